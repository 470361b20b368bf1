"""Energies that forces cannot explain: a label on another electronic state than its neighbours.

A self-consistent field may settle on an excited or broken state and say nothing. Between two
structures a short way d apart, on one smooth surface, the trapezoidal rule holds:

    E_b - E_a = -(F_a + F_b) . d / 2 + O(|d|^3)

The error is that of the third derivative, at most k sum_i |d_i|^3 / 12 with k about 300 eV/A^3 for
the stiffest bonds. A label is an outlier when the rule is broken by more than that and
`ENERGY_SLACK` towards each of at least two neighbours; one alone might be the odd one itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from tace_al.core.labels import Label
from tace_al.engines.labelling.guards import Problem

ENERGY_SLACK = 0.3
"""eV; convergence, smearing and grids stay far below, other electronic states rarely do."""
REACH = 0.15
"""A; neighbours are structures none of whose atoms lies further away."""
_THIRD_ORDER = 25.0  # eV/A^3, k / 12
_FEWEST = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledNeighbour:
    """A labelled structure of the same atoms, cell, charge and multiplicity.

    Parameters
    ----------
    positions, energy, forces
        In A, eV, eV/A.
    """

    positions: np.ndarray
    energy: float
    forces: np.ndarray


def energy_problem(
    atoms: Atoms, label: Label, others: Sequence[LabelledNeighbour]
) -> Problem | None:
    """Return why the energy does not fit those of close neighbours, None where it does.

    With fewer than two neighbours within `REACH` nothing can be said.
    """
    misfits: list[float] = []
    for other in others:
        step = atoms.positions - other.positions
        lengths = np.linalg.norm(step, axis=1)
        if lengths.max() > REACH or lengths.max() == 0.0:
            continue
        expected = other.energy - 0.5 * float(((label.forces + other.forces) * step).sum())
        misfit = label.energy - expected
        if abs(misfit) <= ENERGY_SLACK + _THIRD_ORDER * float((lengths**3).sum()):
            return None
        misfits.append(misfit)
    if len(misfits) < _FEWEST:
        return None
    return Problem(
        kind="outlier",
        message=f"the energy lies {np.median(misfits):+.2f} eV from where the forces of "
        f"{len(misfits)} close neighbours lead; the field most likely settled on another "
        "electronic state: try another first guess or spin, or drop the structure",
    )
