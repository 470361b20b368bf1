"""Energies on one surface pass, energies on another are found, and too little to go by passes."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from tace_al.engines.labelling.outlier import LabelledNeighbour, energy_problem
from tace_al.engines.labelling.xtb import XTBLabeller

LABELLER = XTBLabeller()


def rattled(seed: int, width: float = 0.03) -> Atoms:
    """Return ethanol with displaced atoms."""
    atoms = molecule("CH3CH2OH")
    atoms.rattle(width, seed=seed)
    return atoms


def neighbours(shift: float, *, num: int, width: float = 0.03) -> list[LabelledNeighbour]:
    """Return labelled neighbours whose energies are off by `shift` eV."""
    found = []
    for seed in range(1, num + 1):
        atoms = rattled(seed, width)
        label = LABELLER.label(atoms)
        found.append(
            LabelledNeighbour(
                positions=atoms.positions, energy=label.energy + shift, forces=label.forces
            )
        )
    return found


@pytest.mark.parametrize("width", [0.01, 0.03, 0.04])
def test_one_surface_is_no_outlier(width: float) -> None:
    """Hot frames of one molecule fit each other, although their energies differ by eV."""
    others = neighbours(0.0, num=6, width=width)
    for seed in range(20, 26):
        atoms = rattled(seed, width)
        assert energy_problem(atoms, LABELLER.label(atoms), others) is None


def test_another_state_is_found() -> None:
    """An energy 1 eV off its neighbours is refused, and the message says by how much."""
    atoms = rattled(0)
    label = LABELLER.label(atoms)
    problem = energy_problem(atoms, replace(label, energy=label.energy + 1.0), neighbours(0, num=3))
    assert problem is not None and problem.kind == "outlier"
    assert "+1.0" in problem.message


def test_one_neighbour_that_fits_is_enough_and_one_that_does_not_too_little() -> None:
    """Which of two is the odd one cannot be known."""
    atoms = rattled(0)
    label = LABELLER.label(atoms)
    odd = neighbours(2.0, num=2)
    assert energy_problem(atoms, label, odd) is not None
    assert energy_problem(atoms, label, odd[:1]) is None
    assert energy_problem(atoms, label, [*odd, *neighbours(0.0, num=1)]) is None
    far = [replace(other, positions=other.positions + np.array([0.5, 0, 0])) for other in odd]
    assert energy_problem(atoms, label, far) is None
