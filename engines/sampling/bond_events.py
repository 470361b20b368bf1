"""Which bonds have formed and broken since the start of a trajectory.

A pair bonds when it comes closer than `form` times the sum of its covalent radii (Cordero et al.,
10.1039/b801115j), and stays bonded until it is further apart than `part` times that sum. Between
the two nothing changes, so vibrations across one threshold are no events. Bonds between metal atoms
are counted by the same rule. Of two atoms' periodic images the nearest counts: in a cell so small
that an atom is bonded to several images of another, moving from one image to the next is no event.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from vesin import NeighborList

from tace_al.core.errors import ConfigError

FORM, PART = 1.15, 1.45
"""Multiples of the sum of covalent radii; O-H: 1.12 and 1.41 A, Cu-Cu: 3.04 and 3.83 A. Neighbours
of a crystal at 1.0 and second neighbours at 1.4 cross neither by heat."""
_ALIKE = np.array(covalent_radii)
_ALIKE[[1, 9]] = 0.37, 0.71
"""A, between equal atoms: H2 and F2 are longer than their radii by more than `FORM` allows."""

Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class BondEvents:
    """The bonds of a frame against those at the start.

    Parameters
    ----------
    formed, broken
        Pairs of atom indices, ascending: there now and not at the start, and the other way round.
    changed
        Whether anything formed or broke since the frame before.
    """

    formed: tuple[Pair, ...]
    broken: tuple[Pair, ...]
    changed: bool

    def store(self, atoms: Atoms) -> None:
        """Write the events into a frame: `bonds_formed`, `bonds_broken`, `bond_event`.

        The first two are text such as "O0-H3 O1-H2", left out where there is nothing to say.
        """
        for name, pairs in (("bonds_formed", self.formed), ("bonds_broken", self.broken)):
            atoms.info.pop(name, None)
            if pairs:
                atoms.info[name] = bond_names(atoms, pairs)
        atoms.info["bond_event"] = self.changed


@final
class BondTracker:
    """Follows the bonds of one structure from frame to frame.

    Parameters
    ----------
    start
        What later frames are compared with.
    form, part
        Multiples of the sum of covalent radii, `form` < `part`.

    Examples
    --------
    >>> water = Atoms("OH2", [[0, 0, 0], [0.97, 0, 0], [0, 0.97, 0]])
    >>> tracker = BondTracker(water)
    >>> water.positions[1, 0] = 2.0
    >>> tracker.look(water).broken
    ((0, 1),)
    """

    def __init__(self, start: Atoms, *, form: float = FORM, part: float = PART) -> None:
        if not 0.0 < form < part:
            raise ConfigError(
                f"bonds form below {form} and part above {part} times the covalent radii; give two "
                "positive numbers, the first smaller"
            )
        self.form, self.part = form, part
        self._initial = frozenset(_pairs(start, form)[0])
        self._bonds = self._initial

    def look(self, atoms: Atoms) -> BondEvents:
        """Return what has happened up to the next frame."""
        near, within = _pairs(atoms, self.form, self.part)
        bonds = frozenset((self._bonds & within) | near)
        changed, self._bonds = bonds != self._bonds, bonds
        return BondEvents(
            formed=tuple(sorted(bonds - self._initial)),
            broken=tuple(sorted(self._initial - bonds)),
            changed=changed,
        )

    def state(self) -> np.ndarray:
        """Return (bonds, 2) pairs that are bonded now, for `restore`."""
        return np.array(sorted(self._bonds), dtype=np.int64).reshape(-1, 2)

    def restore(self, state: np.ndarray) -> None:
        """Take up the bonds of a tracker of the same start."""
        self._bonds = frozenset((int(i), int(j)) for i, j in state)


def bond_names(atoms: Atoms, pairs: tuple[Pair, ...]) -> str:
    """Return pairs as text.

    >>> bond_names(Atoms("OH2"), ((0, 1), (0, 2)))
    'O0-H1 O0-H2'
    """
    symbols = atoms.symbols
    return " ".join(f"{symbols[i]}{i}-{symbols[j]}{j}" for i, j in pairs)


def _pairs(atoms: Atoms, form: float, part: float | None = None) -> tuple[set[Pair], set[Pair]]:
    """Return the pairs closer than `form` and than `part` (`form` without it) times their radii.

    Of a periodic pair the closest image counts; an atom is no neighbour of its own image.
    """
    part = form if part is None else part
    radii, alike = covalent_radii[atoms.numbers], _ALIKE[atoms.numbers]
    if len(atoms) < 2:
        return set(), set()
    neighbours = NeighborList(cutoff=2.0 * part * float(alike.max()), full_list=False)
    box = atoms.cell.complete().array if atoms.pbc.any() else np.eye(3)
    first, second, distances = neighbours.compute(
        points=atoms.positions, box=box, periodic=atoms.pbc, quantities="ijd"
    )
    first, second = first.astype(np.int64), second.astype(np.int64)
    equal = atoms.numbers[first] == atoms.numbers[second]
    ratio = distances / np.where(equal, 2.0 * alike[first], radii[first] + radii[second])
    found: list[set[Pair]] = []
    for limit in (form, part):
        kept = (ratio < limit) & (first != second)
        lower, upper = np.minimum(first, second)[kept], np.maximum(first, second)[kept]
        found.append(set(zip(lower.tolist(), upper.tolist(), strict=True)))
    return found[0], found[1]
