"""What the accuracy benchmarks train on, what they are judged on, and which models they compare.

Every task has its own split of one shared file: frames that are judged are never trained on. The
first model of a task is what the network does without the idea that the task is about, the last is
the one with it. Origins and licences of the files are listed in the README beside them.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from tace_al.core.errors import DataError
from tace_al.core.units import COULOMB_CONSTANT
from tace_al.data.extxyz import is_isolated_atom, read_labelled
from tace_al.model.config import TensorOutput
from tace_al.model.loss import LossWeights

DATA = "TACE_AL_DATA"
"""Environment variable that names the folder of the data files."""
NEAR = 7
"""Separations of each dimer that are trained on; the three beyond are judged."""

CHAINS = {6: "3 to 6 carbon atoms", 10: "7 to 10 carbon atoms", 99: "13 and 14 carbon atoms"}
"""Groups of cumulenes by the longest chain in each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Frames to train on and, by name, frames to be judged on."""

    train: list[Atoms]
    held_out: dict[str, list[Atoms]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One benchmark.

    Parameters
    ----------
    title, protocol
        For the reader of the table.
    split
        Split of the file for a seed.
    models
        Options of `TaceConfig` by the name of the model.
    training
        Options of `TrainingOptions`.
    metrics
        Errors to show, as in `tace_al.model.evaluation.Metrics.to_dict`.
    """

    title: str
    protocol: str
    split: Callable[[int], Split]
    models: Mapping[str, dict[str, Any]]
    metrics: tuple[str, ...]
    training: Mapping[str, Any] = field(default_factory=dict)


def read(name: str) -> list[Atoms]:
    """Return the frames of a shared file, with labels under the names of outputs."""
    folder = os.environ.get(DATA)
    if not folder:
        raise DataError(f"{DATA} is not set; export it as the folder that holds {name}.xyz.xz")
    return read_labelled(Path(folder) / f"{name}.xyz.xz")


def random_split(frames: list[Atoms], num_held_out: int, seed: int) -> Split:
    """Return a split with so many held-out frames; isolated atoms are always trained on."""
    atoms = [frame for frame in frames if is_isolated_atom(frame)]
    others = [frame for frame in frames if not is_isolated_atom(frame)]
    order = np.random.default_rng(seed).permutation(len(others))
    held_out = [others[index] for index in sorted(order[:num_held_out])]
    train = [others[index] for index in sorted(order[num_held_out:])]
    return Split(train=atoms + train, held_out={"held out": held_out})


def dimers(seed: int) -> Split:
    """Return the nearer separations of each dimer to train on, the far ones to be judged on."""
    by_kind: dict[str, list[Atoms]] = {}
    for atoms in read("lode_charged_dimers_train"):
        by_kind.setdefault(str(atoms.info["config_type"]), []).append(atoms)
    ordered = [
        sorted(group, key=lambda atoms: float(atoms.info["distance"])) for group in by_kind.values()
    ]
    return Split(
        train=[atoms for group in ordered for atoms in group[:NEAR]],
        held_out={"far separations": [atoms for group in ordered for atoms in group[NEAR:]]},
    )


def acetylacetone(seed: int) -> Split:
    """Return 450 of the 500 structures at 300 K; the other 50 and 100 at 600 K are judged."""
    split = random_split(read("acac_train_300K"), 50, seed)
    return Split(
        train=split.train,
        held_out={"300 K": split.held_out["held out"], "600 K": read("acac_valid_600K")},
    )


def qm7b(seed: int) -> Split:
    """Return molecules with dipoles in e Angstrom and polarisabilities in e Angstrom^2/V."""
    frames = read("qm7b_dipole_polarizability_a")
    for atoms in frames:
        volume = np.asarray(atoms.info["REF_polarizability"], dtype=float)  # Angstrom^3
        atoms.info["REF_polarizability"] = volume / COULOMB_CONSTANT
    return random_split(frames, 121, seed)


def cumulenes(seed: int) -> Split:
    """Return the training file as it is; the validation file is judged by length of chain."""
    held_out: dict[str, list[Atoms]] = {}
    frames = read("gnl_cumulene_val")
    for atoms in sorted(frames, key=lambda atoms: int(atoms.info["nC"])):
        num_carbon = int(atoms.info["nC"])
        group = next(name for longest, name in CHAINS.items() if num_carbon <= longest)
        held_out.setdefault(group, []).append(atoms)
    return Split(train=read("gnl_cumulene_train"), held_out=held_out)


MECHANICAL = ("energy_rmse_mev_per_atom", "forces_rmse_mev_per_angstrom")
RESPONSE = (
    *MECHANICAL,
    "stress_rmse_mev_per_angstrom3",
    "dipole_rmse",
    "polarizability_rmse",
    "born_charges_rmse",
)
LATENT_EWALD = {"charges": "free", "long_range": "ewald", "ewald_width": 3.0}
FIELD = {"embeddings": ("electric_field",)}
DIPOLE = TensorOutput(name="dipole", rank=1)
POLARIZABILITY = TensorOutput(name="polarizability", rank=2, symmetry="ij=ji")

TASKS: dict[str, Task] = {
    "dimers": Task(
        title="Charged dimers at separations beyond training, with and without latent Ewald",
        protocol=(
            "Six dimers of charged (C), polar (P) and apolar (A) molecules in a periodic box of "
            f"30 A; trained on the {NEAR} nearer of 10 separations of each, judged on the 3 "
            "farthest (8.5 to 12.2 A), where no atom has one of the other molecule within its "
            "cutoff. No total charges are given: they are learnt. `local` and `latent Ewald` are "
            "the same network of one layer. Charges smeared over 3 A are learnt sooner than sharp "
            "ones."
        ),
        split=dimers,
        models={
            "local": {"num_layers": 1},
            "local, two layers": {},
            "latent Ewald": {"num_layers": 1, **LATENT_EWALD},
        },
        metrics=("energy_rmse_mev", *MECHANICAL),
        training={"batch_size": 6, "weights": LossWeights(energy=40.0)},
    ),
    "sio2": Task(
        title="SiO2: energy, forces, stress and the response to an electric field, together",
        protocol=(
            "72 atoms; 80 of 100 frames trained on, 20 judged. Conventions of the file, checked "
            "between its frames: the polarisation is e A a cell modulo lattice vectors, changes of "
            "it (1.6 e A) are Born charges times displacements to 0.05 e A with rows of the "
            "tensor for the polarisation, 0.20 with columns; polarisabilities in e A^2/V give a "
            "dielectric constant of 2.4; Born charges of a cell sum to zero. With seed 0 one "
            "of the frames judged has a bond of 2.48 A, longer than any trained on (2.36 A), "
            "and most of the error of Born charges: the other 19 are predicted to 0.027 e by the "
            "model of two layers."
        ),
        split=lambda seed: random_split(read("SiO2_pol_becs_dev"), 20, seed),
        models={
            "one layer": {**FIELD, "cutoff": 4.0, "num_layers": 1},
            "field": {**FIELD, "cutoff": 4.0},
        },
        metrics=RESPONSE,
        training={"batch_size": 1, "learning_rate": 0.01},
    ),
    "batio3": Task(
        title="BaTiO3: energy, forces, stress and the response to an electric field, together",
        protocol=(
            "135 atoms; 29 of 36 frames trained on, 7 judged. Conventions as for SiO2. The file "
            "folds the polarisation to half a lattice vector times e (it spans 5.9 of 5.95 e A "
            "either way), less than a ferroelectric of this size may have: Born charges alone fix "
            "how it changes."
        ),
        split=lambda seed: random_split(read("BaTiO3_pol_becs_dev"), 7, seed),
        models={
            "one layer": {**FIELD, "cutoff": 4.5, "num_layers": 1},
            "field": {**FIELD, "cutoff": 4.5},
        },
        metrics=RESPONSE,
        training={"batch_size": 1, "learning_rate": 0.01},
    ),
    "acac": Task(
        title="Acetylacetone at 300 and 600 K, trained at 300 K",
        protocol=(
            "15 atoms; 450 of the 500 structures at 300 K trained on. Published test errors of "
            "MACE with all 500, on other frames than ours (10.48550/arXiv.2206.07697): energy of "
            "the molecule 0.9 meV and forces 5.1 meV/A at 300 K, 4.6 and 22.4 at 600 K."
        ),
        split=acetylacetone,
        models={"one layer": {"num_layers": 1}, "full": {}},
        metrics=("energy_rmse_mev", *MECHANICAL),
        training={"batch_size": 5, "learning_rate": 0.01},
    ),
    "qm7b": Task(
        title="QM7b: dipoles and polarisabilities of small molecules (CCSD)",
        protocol="721 molecules of H, C, N, O, S, Cl; 600 trained on, 121 judged.",
        split=qm7b,
        models={
            "one layer, read directly": {"num_layers": 1, "outputs": (DIPOLE, POLARIZABILITY)},
            "read directly": {"outputs": (DIPOLE, POLARIZABILITY)},
            "derivatives by the field": FIELD,
        },
        metrics=("dipole_rmse", "dipole_mae", "polarizability_rmse", "polarizability_mae"),
        training={"batch_size": 10, "learning_rate": 0.01},
    ),
    "nio": Task(
        title="NiO with non-collinear moments: energies, forces and magnetic forces",
        protocol=(
            "32 atoms; 80 of 100 frames trained on, 20 judged. Moments of nickel have one length "
            "(1.27 in the file's unit); magnetic forces have the sign of -dE/dm (energies of "
            "frames whose moments are close follow their part across the moments with slopes of "
            "1.3 to 1.4)."
        ),
        split=lambda seed: random_split(read("NiO_spin_dev"), 20, seed),
        models={
            "without moments": {"cutoff": 4.5},
            "with moments": {"cutoff": 4.5, "embeddings": ("magnetic_moments",)},
        },
        metrics=(*MECHANICAL, "magnetic_forces_rmse", "magnetic_forces_mae"),
        training={"batch_size": 2, "learning_rate": 0.01},
    ),
    "cumulenes": Task(
        title="Cumulenes: energies that depend on both ends of a chain at once",
        protocol=(
            "200 frames trained on, the 50 of the validation file judged by length of chain. The "
            "energy depends on the angle between the end groups, 4 to 17 A apart: by 2.6 eV "
            "for three carbon atoms, by 0.7 eV for fourteen. A layer reaches 5 A."
        ),
        split=cumulenes,
        models={
            "one layer": {"num_layers": 1},
            "two layers": {},
            "three layers": {"num_layers": 3},
        },
        metrics=("energy_rmse_mev", *MECHANICAL),
        training={"batch_size": 5, "learning_rate": 0.02, "weights": LossWeights(energy=40.0)},
    ),
}
