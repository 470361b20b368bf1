"""Grids in real and reciprocal space from lattice vectors, the same for the same cell.

A lattice vector of length L gets the smallest number of points N >= L / spacing that is a multiple
of four and has no prime factor above five: fast transforms, and sites half a lattice vector apart
lie alike on the grid. Along a reciprocal vector of length b = 2 pi / d (d the distance of lattice
planes) there are ceil(b density) points.
"""

import math

import numpy as np


def grid_points(cell: np.ndarray, spacing: float) -> tuple[int, int, int]:
    """Return the number of points along each row of `cell` (A) for a spacing in A.

    >>> grid_points(np.diag([5.16, 5.16, 10.0]), 0.22)
    (24, 24, 48)
    """
    sizes = [_fast_size(math.ceil(float(length) / spacing - 1e-9)) for length in _lengths(cell)]
    return sizes[0], sizes[1], sizes[2]


def kpoint_grid(cell: np.ndarray, pbc: np.ndarray, density: float) -> tuple[int, int, int]:
    """Return the k-point grid with `density` points per 1/A; one along directions not periodic.

    >>> kpoint_grid(np.diag([5.16, 5.16, 10.0]), np.array([True, True, False]), 1.6)
    (2, 2, 1)
    """
    reciprocal = 2.0 * math.pi * np.linalg.norm(np.linalg.inv(cell).T, axis=1)
    sizes = [
        max(1, math.ceil(float(length) * density - 1e-9)) if periodic else 1
        for length, periodic in zip(reciprocal, pbc, strict=True)
    ]
    return sizes[0], sizes[1], sizes[2]


def parsed_grid(text: str) -> tuple[int, int, int]:
    """Return the three numbers of a grid written as "2x2x1".

    >>> parsed_grid("2x2x1")
    (2, 2, 1)

    Raises
    ------
    ValueError
        The text is no grid.
    """
    parts = text.lower().replace(",", "x").split("x")
    if len(parts) != 3 or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise ValueError(f"'{text}' is no grid of k-points; write three numbers such as 2x2x1")
    return int(parts[0]), int(parts[1]), int(parts[2])


def _lengths(cell: np.ndarray) -> np.ndarray:
    """Return the lengths of the rows of a cell."""
    return np.asarray(np.linalg.norm(cell, axis=1))


def _fast_size(least: int) -> int:
    """Return the smallest multiple of four from `least` on with the prime factors 2, 3 and 5."""
    size = 4 * math.ceil(max(least, 4) / 4)
    while not _is_smooth(size):
        size += 4
    return size


def _is_smooth(number: int) -> bool:
    """Tell whether a number has no prime factor above five."""
    for prime in (2, 3, 5):
        while number % prime == 0:
            number //= prime
    return number == 1
