"""Collective variables: one number of a structure, and its gradient.

    distance:i,j             |r_j - r_i|, nearest image
    difference:i,j,k         |r_j - r_i| - |r_k - r_j|: where j is on its way from i to k
    coordination:A,B,r0      sum over a in A, b in B of 1 / (1 + (r_ab / r0)^6)

A and B are an element ("O") or an atom (an index); a pair is counted once, an atom not with itself.
The switching function is (1 - x^6) / (1 - x^12), simplified: 1/2 at r0, and 0.02 at 2 r0.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.geometry import find_mic

from tace_al.core.errors import ConfigError, nearest_names

DEFAULT_WIDTHS = {"distance": 0.05, "difference": 0.08, "coordination": 0.05}
"""Widths of hills, in the variables' own units."""


class CollectiveVariable(ABC):
    """One number of a structure."""

    @property
    @abstractmethod
    def name(self) -> str:
        """As it was asked for: "distance:0,1"."""

    @property
    @abstractmethod
    def label(self) -> str:
        """For axes, with its unit."""

    @abstractmethod
    def evaluate(self, atoms: Atoms) -> tuple[float, np.ndarray]:
        """Return the value and its (atoms, 3) gradient with respect to positions."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Distance(CollectiveVariable):
    """The distance in A of two atoms, at their nearest images."""

    first: int
    second: int

    @property
    def name(self) -> str:
        """distance:i,j."""
        return f"distance:{self.first},{self.second}"

    @property
    def label(self) -> str:
        """For axes."""
        return f"distance {self.first}-{self.second} (Å)"

    def evaluate(self, atoms: Atoms) -> tuple[float, np.ndarray]:
        """Return the distance and its gradient."""
        vector, length = _nearest(atoms, self.first, self.second)
        gradient = np.zeros((len(atoms), 3))
        gradient[self.second] += vector / length
        gradient[self.first] -= vector / length
        return length, gradient


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class DistanceDifference(CollectiveVariable):
    """How much further the middle atom is from the first than from the last, in A."""

    first: int
    middle: int
    last: int

    @property
    def name(self) -> str:
        """difference:i,j,k."""
        return f"difference:{self.first},{self.middle},{self.last}"

    @property
    def label(self) -> str:
        """For axes."""
        return f"d({self.first}-{self.middle}) - d({self.middle}-{self.last}) (Å)"

    def evaluate(self, atoms: Atoms) -> tuple[float, np.ndarray]:
        """Return the difference and its gradient."""
        longer, up = Distance(first=self.first, second=self.middle).evaluate(atoms)
        shorter, down = Distance(first=self.middle, second=self.last).evaluate(atoms)
        return longer - shorter, up - down


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Coordination(CollectiveVariable):
    """The number of contacts between two groups of atoms.

    Parameters
    ----------
    pairs
        Atom indices, each pair once.
    radius
        Distance in A at which a contact counts half.
    text
        How it was asked for.
    """

    pairs: tuple[tuple[int, int], ...]
    radius: float
    text: str

    @property
    def name(self) -> str:
        """coordination:A,B,r0."""
        return self.text

    @property
    def label(self) -> str:
        """For axes."""
        first, second, _ = self.text.partition(":")[2].split(",")
        return f"coordination {first}-{second}"

    def evaluate(self, atoms: Atoms) -> tuple[float, np.ndarray]:
        """Return the number and its gradient."""
        first, second = np.array(self.pairs).T
        vectors = atoms.positions[second] - atoms.positions[first]
        if atoms.pbc.any():
            vectors, _ = find_mic(vectors, atoms.cell, atoms.pbc)
        lengths = np.linalg.norm(vectors, axis=1)
        powers = (lengths / self.radius) ** 6
        contacts = 1.0 / (1.0 + powers)
        slopes = -6.0 * powers / np.maximum(lengths, 1e-9) * contacts**2
        pulls = (slopes / np.maximum(lengths, 1e-9))[:, None] * vectors
        gradient = np.zeros((len(atoms), 3))
        np.add.at(gradient, second, pulls)
        np.add.at(gradient, first, -pulls)
        return float(contacts.sum()), gradient


def collective_variable(text: str, atoms: Atoms) -> CollectiveVariable:
    """Return the variable that a text such as "distance:0,1" names for a structure.

    Raises
    ------
    ConfigError
        The kind is unknown, the number of its parts is wrong, or atoms are not there.
    """
    kind, _, rest = text.replace(" ", "").partition(":")
    parts = rest.split(",")
    counts = {"distance": 2, "difference": 3, "coordination": 3}
    if kind not in counts:
        raise ConfigError(
            f"no collective variable is called '{kind}' in '{text}'.{nearest_names(kind, counts)}"
        )
    if len(parts) != counts[kind]:
        raise ConfigError(
            f"'{text}' has {len(parts)} parts, {kind} takes {counts[kind]}: distance:0,1, "
            "difference:0,1,2 or coordination:O,H,1.2"
        )
    if kind == "coordination":
        pairs = _pairs(_group(parts[0], atoms, text), _group(parts[1], atoms, text), text)
        return Coordination(pairs=pairs, radius=_radius(parts[2], text), text=f"{kind}:{rest}")
    indices = [_index(part, atoms, text) for part in parts]
    if len(set(indices)) < len(indices):
        raise ConfigError(f"'{text}' names an atom twice; name different atoms")
    if kind == "distance":
        return Distance(first=indices[0], second=indices[1])
    return DistanceDifference(first=indices[0], middle=indices[1], last=indices[2])


def _nearest(atoms: Atoms, first: int, second: int) -> tuple[np.ndarray, float]:
    """Return the vector between two atoms' nearest images, and its length."""
    vector = atoms.positions[second] - atoms.positions[first]
    if atoms.pbc.any():
        vector = find_mic(vector[None], atoms.cell, atoms.pbc)[0][0]
    return vector, max(float(np.linalg.norm(vector)), 1e-9)


def _index(text: str, atoms: Atoms, whole: str) -> int:
    """Return an atom's index."""
    if not text.isdigit() or int(text) >= len(atoms):
        raise ConfigError(
            f"'{text}' in '{whole}' is no atom of {atoms.get_chemical_formula()}; give an index "
            f"from 0 to {len(atoms) - 1}"
        )
    return int(text)


def _group(text: str, atoms: Atoms, whole: str) -> list[int]:
    """Return the atoms of an element, or the one of an index."""
    if text not in chemical_symbols[1:]:
        return [_index(text, atoms, whole)]
    found = [index for index, symbol in enumerate(atoms.symbols) if symbol == text]
    if not found:
        raise ConfigError(f"there is no {text} in {atoms.get_chemical_formula()} for '{whole}'")
    return found


def _pairs(first: list[int], second: list[int], whole: str) -> tuple[tuple[int, int], ...]:
    """Return the pairs between two groups, each once."""
    pairs = {(min(a, b), max(a, b)) for a in first for b in second if a != b}
    if not pairs:
        raise ConfigError(f"'{whole}' has no pair of atoms; name two different ones")
    return tuple(sorted(pairs))


def _radius(text: str, whole: str) -> float:
    """Return a positive length."""
    try:
        radius = float(text)
    except ValueError:
        radius = -1.0
    if not 0.0 < radius < 100.0:
        raise ConfigError(f"'{text}' in '{whole}' is no distance in Å; write coordination:O,H,1.2")
    return radius
