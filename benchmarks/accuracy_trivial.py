"""What one knows of a structure from its composition: the error that a model has to beat.

Outputs of a structure are a least-squares sum over its atoms of one constant a species, those of an
atom the mean over the atoms of its species in the training set; forces are zero.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms

from tace_al.data.extxyz import is_isolated_atom
from tace_al.data.graph import batch_graphs, graph_from_atoms
from tace_al.model.loss import nearest_polarization

INTENSIVE = ("stress",)
"""Outputs of a structure that do not grow with it: their mean is predicted."""
MILLI = {
    "energy": "mev_per_atom",
    "forces": "mev_per_angstrom",
    "stress": "mev_per_angstrom3",
}
"""Outputs whose errors are given in thousandths, and the end of their name."""


def trivial_errors(train: Sequence[Atoms], held_out: Sequence[Atoms]) -> dict[str, float]:
    """Return errors by the names of `tace_al.model.evaluation.Metrics.to_dict`."""
    known = [atoms for atoms in train if not is_isolated_atom(atoms)]
    first = held_out[0]
    names = [key.removeprefix("REF_") for key in (*first.info, *first.arrays) if key in _LABELS]
    errors: dict[str, float] = {}
    for name in names:
        difference = _differences(name, known, held_out)
        unit = 1e3 if name in MILLI else 1.0
        if name == "energy":
            errors["energy_rmse_mev"] = unit * _rms(difference)
            difference = difference / np.array([[len(atoms)] for atoms in held_out])
        end = f"_{MILLI[name]}" if name in MILLI else ""
        errors[f"{name}_rmse{end}"] = unit * _rms(difference)
        errors[f"{name}_mae{end}"] = unit * float(np.abs(difference).mean())
    return errors


_LABELS = {
    "REF_energy",
    "REF_forces",
    "REF_stress",
    "REF_dipole",
    "REF_polarizability",
    "REF_born_charges",
    "REF_magnetic_forces",
}


def _differences(name: str, known: Sequence[Atoms], held_out: Sequence[Atoms]) -> np.ndarray:
    """Return trivial predictions minus labels, one row for each structure or atom."""
    key = f"REF_{name}"
    if key in held_out[0].arrays:
        numbers, values = _of_atoms(known, key)
        wanted, labels = _of_atoms(held_out, key)
        if name == "forces":
            return -labels
        means = {z: values[numbers == z].mean(axis=0) for z in set(numbers.tolist())}
        return np.array([means[z] for z in wanted.tolist()]) - labels
    values = np.array([np.ravel(atoms.info[key]) for atoms in known])
    labels = np.array([np.ravel(atoms.info[key]) for atoms in held_out])
    if name in INTENSIVE:
        return values.mean(axis=0) - labels
    elements = sorted({z for atoms in known for z in atoms.numbers.tolist()})
    if name == "dipole":  # a vector that composition says nothing about
        return _nearest(-labels, held_out)
    fit = np.linalg.lstsq(_counts(known, elements), values, rcond=None)[0]
    return np.asarray(_counts(held_out, elements) @ fit - labels)


def _of_atoms(frames: Sequence[Atoms], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return atomic numbers and labels of all atoms."""
    numbers = np.concatenate([atoms.numbers for atoms in frames])
    values = np.concatenate([atoms.arrays[key].reshape(len(atoms), -1) for atoms in frames])
    return numbers, values


def _counts(frames: Sequence[Atoms], elements: Sequence[int]) -> np.ndarray:
    """Return the number of atoms of each element in each frame."""
    return np.array([[(atoms.numbers == z).sum() for z in elements] for atoms in frames])


def _nearest(difference: np.ndarray, frames: Sequence[Atoms]) -> np.ndarray:
    """Return differences of dipoles less whole lattice vectors, where a crystal has them."""
    graph = batch_graphs([graph_from_atoms(atoms, 1.0) for atoms in frames])
    return nearest_polarization(torch.as_tensor(difference), graph).numpy()


def _rms(values: np.ndarray) -> float:
    """Return the root mean square."""
    return math.sqrt(float(np.mean(values**2)))
