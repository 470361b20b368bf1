"""The structures of the contract, and the conditions they are put under.

An organic molecule, a sheared alloy, a slab, a one-atom cell far smaller than the cutoff and a
wire: every pattern of periodic directions. Conditions differ from structure to structure and some
are absent, as they would be in a batch of a mixed data set.
"""

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from potentials import Potential, reads
from scipy.spatial.transform import Rotation

CHARGES = {"molecule": 1, "alloy": 0, "slab": 0, "one-atom cell": -1, "wire": 0}


def rattled(atoms: Atoms, amplitude: float = 0.15) -> Atoms:
    atoms.rattle(amplitude, seed=7)
    return atoms


def ethanol() -> Atoms:
    return rattled(molecule("CH3CH2OH"))


def alloy() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.symbols[1] = "Au"
    shear = np.array([[0, 0.3, 0], [0, 0, -0.2], [0.5, 0, 0]])
    atoms.set_cell(atoms.cell.array + shear, scale_atoms=True)
    return rattled(atoms)


def slab() -> Atoms:
    atoms = rattled(fcc111("Cu", (1, 1, 2), vacuum=3.0))
    atoms.pbc = (True, True, False)
    return atoms


def tiny_crystal() -> Atoms:
    """Return one atom in a skewed cell much smaller than the cutoff."""
    return Atoms("Cu", cell=[[2.5, 0, 0], [1.1, 2.2, 0], [0.3, 0.9, 2.4]], pbc=True)


def wire() -> Atoms:
    """Return a zigzag chain along a skewed direction, its cell shorter than the cutoff."""
    atoms = Atoms("COH", positions=[[0, 0, 0], [1.2, 0.5, 0.3], [1.7, 1.3, 0.1]])
    atoms.set_cell([[0, 0, 0], [2.6, 0.4, 0.3], [0, 0, 0]])
    atoms.pbc = (False, True, False)
    return atoms


def systems(model: Potential, conditions: bool = True) -> dict[str, Atoms]:
    """Return the structures a model takes; a wire has no Ewald sum."""
    makers = {"molecule": ethanol, "alloy": alloy, "slab": slab, "one-atom cell": tiny_crystal}
    if not model.long_range:
        makers["wire"] = wire
    frames = {name: make() for name, make in makers.items()}
    if conditions:
        for index, name in enumerate(frames):
            absent = ABSENT[index % len(ABSENT)]
            impose(model, frames[name], seed=index, charge=CHARGES[name], absent=absent)
    return frames


ABSENT: Sequence[tuple[str, ...]] = (
    (),
    ("magnetic_field", "spin_multiplicity"),
    ("electric_field", "initial_charges"),
    ("magnetic_moments", "collinear_moments", "electronic_temperature"),
    ("total_charge", "electric_field"),
)
"""What the structures of a batch do not say, in turn."""


def conditions_of(num_atoms: int, *, seed: int, charge: int = 0) -> dict[str, np.ndarray | float]:
    """Return a value of every condition."""
    rng = np.random.default_rng(seed)
    return {
        "total_charge": charge,
        "spin_multiplicity": 1 + seed % 3,
        "electronic_temperature": 300.0 * (1 + seed),
        "electric_field": rng.normal(0.0, 0.2, 3),
        "magnetic_field": rng.normal(0.0, 100.0, 3),
        "initial_charges": rng.normal(0.0, 0.5, num_atoms),
        "collinear_moments": rng.normal(0.0, 1.0, num_atoms),
        "magnetic_moments": rng.normal(0.0, 2.0, (num_atoms, 3)),
    }


PER_ATOM = ("initial_charges", "collinear_moments", "magnetic_moments")


def give(atoms: Atoms, name: str, value: np.ndarray | float) -> Atoms:
    """Put a structure under a condition."""
    if name in PER_ATOM:
        atoms.set_array(name, np.array(value, dtype=float))
    else:
        atoms.info[name] = value
    return atoms


def impose(
    model: Potential,
    atoms: Atoms,
    *,
    seed: int,
    charge: int = 0,
    absent: Sequence[str] = (),
) -> Atoms:
    """Put a structure under every condition that a model reads but `absent`, and name its head."""
    atoms.info["head"] = model.config.heads[seed % len(model.config.heads)]
    for name, value in conditions_of(len(atoms), seed=seed, charge=charge).items():
        if reads(model, name) and name not in absent:
            give(atoms, name, value)
    return atoms


VECTORS = {"electric_field": False, "magnetic_field": True, "magnetic_moments": True}
"""Conditions that turn with the structure; whether they are axial."""


def turned(atoms: Atoms, rotation: np.ndarray) -> Atoms:
    """Return a structure with its cell, fields and moments turned about the origin."""
    after = atoms.copy()
    after.set_cell(atoms.cell.array @ rotation.T)
    after.positions = atoms.positions @ rotation.T
    for name, axial in VECTORS.items():
        matrix = rotation * (np.linalg.det(rotation) if axial else 1.0)
        place = atoms.arrays if name in PER_ATOM else atoms.info
        if name in place:
            give(after, name, place[name] @ matrix.T)
    return after


def reversed_in_time(atoms: Atoms) -> Atoms:
    """Return a structure with all spins and the magnetic field turned round."""
    after = atoms.copy()
    for name in ("magnetic_field", "magnetic_moments", "collinear_moments"):
        place = atoms.arrays if name in PER_ATOM else atoms.info
        if name in place:
            give(after, name, -place[name])
    return after


def strained(atoms: Atoms, direction: np.ndarray, size: float) -> Atoms:
    """Return a structure under the symmetric strain size * direction."""
    deformation = np.eye(3) + size * direction
    after = atoms.copy()
    after.set_cell(atoms.cell.array @ deformation)
    after.positions = atoms.positions @ deformation
    return after


def displaced(atoms: Atoms, atom: int, axis: int, size: float) -> Atoms:
    """Return a structure with one coordinate changed."""
    after = atoms.copy()
    after.positions[atom, axis] += size
    return after


def rotations() -> dict[str, np.ndarray]:
    """Return a rotation, the inversion, and both together."""
    rotation = Rotation.random(rng=np.random.default_rng(5)).as_matrix()
    return {"rotation": rotation, "inversion": -np.eye(3), "rotoinversion": -rotation}


def neutral(model: Potential, atoms: Atoms, seed: int = 1) -> Atoms:
    """Put a structure under conditions that it shares with its supercells and fragments."""
    impose(model, atoms, seed=seed)
    if "spin_multiplicity" in atoms.info:
        atoms.info["spin_multiplicity"] = 1
    return atoms
