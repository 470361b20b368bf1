"""Coordinates that are measured on beads: a distance, or the difference of two.

[i, j] is r_ij. [i, j, k] is the proton-sharing coordinate r_ij - r_jk of a proton j between i and
k: zero where it is shared, negative where it belongs to i.
"""

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.geometry import find_mic

from tace_al.core.errors import ConfigError

Coordinate = tuple[int, ...]


def coordinate_values(frames: Sequence[Atoms], coordinates: Sequence[Coordinate]) -> np.ndarray:
    """Return (coordinates, frames) values in A.

    Raises
    ------
    ConfigError
        A coordinate has neither two nor three different atoms, or names one that is not there.
    """
    check_coordinates(coordinates, num_atoms=len(frames[0]))
    return np.array(
        [[_value(atoms, coordinate) for atoms in frames] for coordinate in coordinates]
    ).reshape(len(coordinates), len(frames))


def check_coordinates(coordinates: Sequence[Coordinate], *, num_atoms: int) -> None:
    """Refuse coordinates that mean nothing in a structure of so many atoms."""
    for coordinate in coordinates:
        given = list(coordinate)
        if len(given) not in (2, 3) or len(set(given)) < len(given):
            raise ConfigError(
                f"{given} is no coordinate; give two atoms for their distance, three for "
                "the difference of the distances first-second and second-third"
            )
        if not all(0 <= index < num_atoms for index in given):
            raise ConfigError(
                f"coordinate {given} names an atom that is not there; "
                f"the structure has atoms 0 to {num_atoms - 1}"
            )


def _value(atoms: Atoms, coordinate: Coordinate) -> float:
    """Return one coordinate of one structure in A."""
    steps = np.diff(atoms.positions[list(coordinate)], axis=0)
    if atoms.pbc.any():
        steps, _ = find_mic(steps, atoms.cell, atoms.pbc)
    lengths = np.linalg.norm(steps, axis=1)
    return float(lengths[0] - lengths[1] if len(lengths) == 2 else lengths[0])
