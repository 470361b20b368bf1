"""Small labelled data sets whose labels are exact and cheap: Morse pairs and EMT crystals."""

from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.morse import MorsePotential


def morse_frames(num_frames: int, seed: int, *, amplitude: float = 0.12) -> list[Atoms]:
    """Return rattled water molecules whose atoms interact by one Morse potential."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(num_frames):
        atoms = molecule("H2O")
        atoms.positions += rng.normal(scale=amplitude, size=(3, 3))
        atoms.calc = MorsePotential(epsilon=3.0, r0=1.1, rho0=3.0, rcut1=6.0, rcut2=8.0)
        atoms.info["REF_energy"] = float(atoms.get_potential_energy()) - 3.0 * len(atoms)
        atoms.set_array("REF_forces", atoms.get_forces())
        atoms.calc = None
        frames.append(atoms)
    return frames


def crystal_frames(num_frames: int, seed: int) -> list[Atoms]:
    """Return rattled, strained copper cells with EMT energies, forces and stresses."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(num_frames):
        atoms = bulk("Cu", cubic=True)
        strain = np.eye(3) + rng.normal(scale=0.02, size=(3, 3))
        atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        atoms.positions += rng.normal(scale=0.08, size=atoms.positions.shape)
        atoms.calc = EMT()
        atoms.info["REF_energy"] = float(atoms.get_potential_energy())
        atoms.set_array("REF_forces", atoms.get_forces())
        atoms.info["REF_stress"] = atoms.get_stress(voigt=False)
        atoms.calc = None
        frames.append(atoms)
    return frames


@pytest.fixture
def make_molecules() -> Callable[..., list[Atoms]]:
    """Return the maker of Morse molecules."""
    return morse_frames


@pytest.fixture
def make_crystals() -> Callable[..., list[Atoms]]:
    """Return the maker of EMT crystals."""
    return crystal_frames
