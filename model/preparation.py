"""A model before its first step: what is measured on the training set, not learnt.

Per head: E0 (isolated atoms or a fit of the composition), scale (root mean square of the forces)
and shift (mean of what E0 leaves); those of a head added to a trained model start from what it
copies.
Per direct output: its isotropic part for each species and the scale of the rest. For all: the
average number of neighbours <n>, the size in which radial functions enter, and which conditions
every structure declares.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from ase import Atoms

from tace_al.core.errors import TrainingError
from tace_al.core.random_generators import random_seed
from tace_al.data.extxyz import ENERGY, is_isolated_atom
from tace_al.model.config import TaceConfig, TensorOutput
from tace_al.model.heads import add_head
from tace_al.model.initialisation import scale_to_data
from tace_al.model.labelled_batch import HEAD, LabelledBatch, labelled
from tace_al.model.reference_energies import fit_reference_energies
from tace_al.model.tace import Tace
from tace_al.model.tensor_readout import TensorReadout

logger = logging.getLogger(__name__)

SMALLEST_RATIO = 0.1
"""Smallest ratio of a new head's scale to the one it copies, however little their forces agree."""


def labelled_parts(frames: Sequence[Atoms], config: TaceConfig) -> list[LabelledBatch]:
    """Return the frames that are not isolated atoms, refusing what cannot be trained on."""
    parts = []
    for index, atoms in enumerate(frames):
        unknown = sorted(set(atoms.get_chemical_symbols()) - set(config.elements))
        if unknown:
            raise TrainingError(
                f"structure {index} contains {', '.join(unknown)}, the model is made for "
                f"{', '.join(config.elements)}; add the element or leave the structure out"
            )
        part = labelled(atoms, config)
        if any(bool(label.isinf().any()) for label in part.targets.values()):
            raise TrainingError(
                f"a label of structure {index} is infinite; repair or remove that structure"
            )
        if not is_isolated_atom(atoms):
            parts.append(part)
    return parts


def prepare_model(
    frames: Sequence[Atoms], *, config: TaceConfig, seed: int, start: Tace | None
) -> Tace:
    """Return the model before its first step.

    With `start`, its weights and constants are kept, and heads that `config` names beyond its own
    are added and fitted to the frames of that level.
    """
    parts = labelled_parts(frames, config)
    if start is not None:
        return _extended(start, config, frames, parts)
    required = tuple(
        name
        for name in config.conditions
        if name in config.embeddings
        and all(not part.graph.conditions[name].isnan().any() for part in parts)
    )
    num_atoms = sum(part.graph.num_atoms for part in parts)
    num_edges = sum(part.graph.sender.shape[0] for part in parts)
    config = replace(
        config,
        average_neighbours=max(num_edges / max(num_atoms, 1), 1.0),
        required_conditions=required,
    )
    model = Tace(config, seed=random_seed(seed, "weights"))
    scale_to_data(model, [part.graph for part in parts])
    if not any("energy" in part.targets for part in parts):
        logger.warning("no frame has an energy: the model's energies will lack a constant")
    for name in config.heads:
        _fit_head(model, name, frames, parts)
    for output in config.outputs:
        _fit_tensor(model, output, parts)
    return model


def _extended(
    start: Tace, config: TaceConfig, frames: Sequence[Atoms], parts: Sequence[LabelledBatch]
) -> Tace:
    """Return a copy of a trained model with the heads and the dtype of `config`."""
    model = start.as_dtype(config.dtype).to("cpu")
    for name in config.heads:
        if name not in model.config.heads:
            model = add_head(model, name)
            _fit_added_head(model, name, frames, parts)
    return model


def _fit_head(
    model: Tace, name: str, frames: Sequence[Atoms], parts: Sequence[LabelledBatch]
) -> None:
    """Set E0, scale and shift of an untrained head from the frames of its level.

    What a level has no labels for stays zero, its scale one.
    """
    numbers = model.config.numbers
    head = model.head(name)
    own = [part for part in parts if part.heads[0] == name]
    forces = [part.targets["forces"].flatten() for part in own if "forces" in part.targets]
    known = torch.cat(forces) if forces else torch.zeros(0)
    known = known[~known.isnan()]
    if len(known):
        head.scale.fill_(max(float(known.square().mean().sqrt()), 1e-3))
    level = [
        atoms for atoms in frames if _level(atoms, model.config) == name and _has_energy(atoms)
    ]
    if not level:
        return
    e0 = fit_reference_energies(level, numbers)
    counts, energies = _compositions(own, numbers)
    head.e0.copy_(torch.from_numpy(e0))
    if len(energies):
        head.shift.fill_(float(np.mean((energies - counts @ e0) / counts.sum(axis=1))))


def _fit_added_head(
    model: Tace, name: str, frames: Sequence[Atoms], parts: Sequence[LabelledBatch]
) -> None:
    """Move E0, scale and shift of a head that copies a trained one to the labels of its level.

    The scale is multiplied by what brings the copy's forces closest to the labels. What its
    energies lack is then fitted by one constant a species, of least norm where the compositions do
    not tell: the new E0, or the new shift of species whose isolated atom is labelled.
    """
    numbers = model.config.numbers
    head = model.head(name)
    own = [part for part in parts if part.heads[0] == name]
    head.scale.mul_(_scale_ratio(model, name, own))
    isolated = {
        int(atoms.numbers[0]): float(atoms.info[ENERGY])
        for atoms in frames
        if _level(atoms, model.config) == name and is_isolated_atom(atoms) and _has_energy(atoms)
    }
    for index, z in enumerate(numbers):
        if z in isolated:
            head.e0[index] = isolated[z]
    counts, energies = _compositions(own, numbers)
    known = [part for part in own if _labelled_energy(part)]
    said = [model.evaluate(part.graph, (), head=name).energy.item() for part in known]
    constants = np.linalg.lstsq(counts, energies - np.array(said), rcond=1e-10)[0]
    for index, z in enumerate(numbers):
        (head.shift if z in isolated else head.e0)[index] += constants[index]


def _scale_ratio(model: Tace, name: str, parts: Sequence[LabelledBatch]) -> float:
    """Return the factor of a head's scale with which its forces are closest to the labels.

    The part of the forces that is not scaled is what is left with a scale of zero.
    """
    parts = [part for part in parts if "forces" in part.targets]
    head = model.head(name)
    scale = head.scale.clone()
    product = square = 0.0
    for part in parts:
        whole = model.evaluate(part.graph, head=name).forces
        head.scale.zero_()
        rest = model.evaluate(part.graph, head=name).forces
        head.scale.copy_(scale)
        scaled, wanted = whole - rest, part.targets["forces"] - rest
        present = ~wanted.isnan()
        product += float((scaled * wanted)[present].sum())
        square += float(scaled[present].square().sum())
    return max(product / square, SMALLEST_RATIO) if square > 0.0 else 1.0


def _has_energy(atoms: Atoms) -> bool:
    """Return whether a frame's energy is known."""
    return not math.isnan(atoms.info.get(ENERGY, math.nan))


def _labelled_energy(part: LabelledBatch) -> bool:
    """Return whether a structure's energy is known."""
    return "energy" in part.targets and not bool(part.targets["energy"].isnan().any())


def _compositions(
    parts: Sequence[LabelledBatch], numbers: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return atoms of each element and energy of the structures whose energy is known."""
    known = [part for part in parts if _labelled_energy(part)]
    elements = torch.tensor(numbers)
    counts = [(part.graph.numbers.unsqueeze(1) == elements).sum(dim=0).numpy() for part in known]
    energies = [float(part.targets["energy"]) for part in known]
    return np.array(counts, dtype=float).reshape(-1, len(numbers)), np.array(energies)


def _fit_tensor(model: Tace, output: TensorOutput, parts: Sequence[LabelledBatch]) -> None:
    """Set the isotropic reference of each species and the scale of a direct output."""
    own = [part for part in parts if output.name in part.targets]
    if not own:
        return
    species = torch.arange(len(model.config.elements))
    members = [model.species(part.graph.numbers).unsqueeze(1) == species for part in own]
    per_atom = output.per == "atom"
    readout = model.tensor_readouts[output.name]
    assert isinstance(readout, TensorReadout)
    labels = [part.targets[output.name] for part in own]
    if output.name == "stress":  # the readout is the strain derivative of the energy
        labels = [
            label * part.graph.volumes[:, None, None]
            for label, part in zip(labels, own, strict=True)
        ]
    readout.standardise(
        torch.cat(labels),
        torch.cat([m if per_atom else m.sum(dim=0, keepdim=True) for m in members]).double(),
    )


def _level(atoms: Atoms, config: TaceConfig) -> str:
    """Return the level of theory of a frame; the first head where it names none."""
    return str(atoms.info.get(HEAD, config.heads[0]))
