"""The guard on energies of a campaign: each new label against its labelled neighbours.

See `engines/labelling/outlier.py` for the rule. Neighbours are read from the Store once and kept by
level of theory and by everything that must agree for energies to be comparable.
"""

from pathlib import Path
from typing import final

import numpy as np
from ase import Atoms

from tace_al.core.labels import Label
from tace_al.data.frames import spin_multiplicity, total_charge
from tace_al.dispatch.label_file import read_label
from tace_al.engines.labelling.guards import Problem
from tace_al.engines.labelling.outlier import LabelledNeighbour, energy_problem
from tace_al.store.store import Store


@final
class Outliers:
    """Finds labels whose energies no neighbour explains.

    Parameters
    ----------
    store
        Where earlier labels are.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known: dict[str, dict[tuple[object, ...], list[LabelledNeighbour]]] = {}

    def problem(self, structure: str, path: Path, level: str) -> Problem | None:
        """Return what is wrong with the label of a structure in a file, None where it fits.

        A label that fits is a neighbour from then on.
        """
        label = read_label(path)
        assert isinstance(label, Label)
        atoms = self.store.structure(structure)
        if level not in self._known:
            self._known[level] = self._read(level)
        others = self._known[level].setdefault(_comparable(atoms), [])
        problem = energy_problem(atoms, label, others)
        if problem is None:
            others.append(_neighbour(atoms, label.energy, label.forces))
        return problem

    def _read(self, level: str) -> dict[tuple[object, ...], list[LabelledNeighbour]]:
        """Return the labels of a level that the Store has."""
        known: dict[tuple[object, ...], list[LabelledNeighbour]] = {}
        for atoms in self.store.labelled_frames(level):
            neighbour = _neighbour(atoms, atoms.info["REF_energy"], atoms.arrays["REF_forces"])
            known.setdefault(_comparable(atoms), []).append(neighbour)
        return known


def _neighbour(atoms: Atoms, energy: float, forces: np.ndarray) -> LabelledNeighbour:
    """Return a labelled structure as a neighbour."""
    return LabelledNeighbour(positions=atoms.positions.copy(), energy=energy, forces=forces)


def _comparable(atoms: Atoms) -> tuple[object, ...]:
    """Return what two structures must share for their energies to be compared."""
    return (
        atoms.numbers.tobytes(),
        atoms.cell.array.round(6).tobytes(),
        atoms.pbc.tobytes(),
        total_charge(atoms),
        spin_multiplicity(atoms),
    )
