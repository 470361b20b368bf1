"""The structures of the speed benchmark, and the rattling that makes every call a new one."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111, molecule
from ase.io import read

from benchmarks.peers.frames_text import ENERGY, FORCES
from benchmarks.preset_costs import structure

RATTLE = 0.05
"""Standard deviation of the displacements, Angstrom."""
STEP = 0.01
"""The same for frames that follow one another as in dynamics."""
BOXES: Mapping[str, tuple[int, int, int]] = {
    "water 192": (1, 1, 1),
    "water 768": (2, 2, 1),
    "water 1536": (2, 2, 2),
    "water 3072": (4, 2, 2),
    "water 6144": (4, 4, 2),
    "water 12288": (4, 4, 4),
}
"""Repeats of the box of 64 molecules."""


def named_structure(name: str) -> Atoms:
    """Return a structure of the benchmark."""
    if name in BOXES:
        return structure("water").repeat(BOXES[name])
    if name == "copper 256":
        return bulk("Cu", cubic=True).repeat(4)
    if name == "silicon 512":
        return bulk("Si", cubic=True).repeat(4)
    if name == "platinum and CO":
        # wide enough for codes that see every neighbour once: twice the cutoff in all directions
        slab = fcc111("Pt", (5, 5, 4), vacuum=8.0, periodic=True)
        carbon_monoxide = molecule("CO")
        carbon_monoxide.rotate(180, "x")
        add_adsorbate(slab, carbon_monoxide, 1.9, "ontop")
        return slab
    if name == "ethanol":
        return structure("ethanol")
    if name == "27 atoms":
        atoms = read(Path(__file__).parent / "molecule_27_atoms.xyz")
        assert isinstance(atoms, Atoms)
        return atoms
    raise KeyError(name)


def elements(atoms: Atoms) -> tuple[str, ...]:
    """Return the symbols of a structure."""
    return tuple(sorted(set(atoms.get_chemical_symbols())))


def rattled(atoms: Atoms, count: int, generator: np.random.Generator) -> list[Atoms]:
    """Return copies with every atom displaced at random."""
    copies = [atoms.copy() for _ in range(count)]
    for copy in copies:
        copy.positions += generator.normal(scale=RATTLE, size=copy.positions.shape)
    return copies


def walk(atoms: Atoms, count: int, generator: np.random.Generator) -> list[Atoms]:
    """Return frames that follow this one and one another in small steps, as in dynamics."""
    frames = [atoms]
    for _ in range(count):
        frames.append(frames[-1].copy())
        frames[-1].positions += generator.normal(scale=STEP, size=atoms.positions.shape)
    return frames[1:]


def with_labels(frames: Sequence[Atoms], generator: np.random.Generator) -> list[Atoms]:
    """Return the frames with energies and forces drawn at random: training takes no less time."""
    for atoms in frames:
        atoms.info[ENERGY] = float(generator.normal())
        atoms.set_array(FORCES, generator.normal(size=(len(atoms), 3)))
    return list(frames)
