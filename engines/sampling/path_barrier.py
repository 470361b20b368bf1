"""The highest point of an energy profile, from energies and forces at its images.

Each segment is the cubic that meets the energies and slopes of its two images; its maximum is
exact, so a barrier depends little on where the images happen to sit (10.1063/1.1323224).
"""

import numpy as np


def highest_point(
    coordinate: np.ndarray, energies: np.ndarray, tangential_forces: np.ndarray
) -> float:
    """Return the highest energy in eV of the piecewise cubic through the images.

    Parameters
    ----------
    coordinate
        (images,) increasing, in A.
    energies
        (images,) in eV.
    tangential_forces
        (images,) -dE/ds in eV/A.
    """
    highest = float(energies.max())
    for i in range(len(coordinate) - 1):
        width = coordinate[i + 1] - coordinate[i]
        if width <= 0.0:
            continue
        start, rise = energies[i], energies[i + 1] - energies[i]
        first, last = -tangential_forces[i] * width, -tangential_forces[i + 1] * width
        # E(x) = start + first x + b x^2 + c x^3, x in [0, 1]
        b, c = 3.0 * rise - 2.0 * first - last, first + last - 2.0 * rise
        for x in _roots(3.0 * c, 2.0 * b, first):
            if 0.0 < x < 1.0:
                highest = max(highest, float(start + x * (first + x * (b + x * c))))
    return highest


def _roots(a: float, b: float, c: float) -> list[float]:
    """Return the real roots of a x^2 + b x + c."""
    if abs(a) < 1e-14:
        return [] if abs(b) < 1e-14 else [-c / b]
    discriminant = b * b - 4.0 * a * c
    if discriminant < 0.0:
        return []
    root = float(np.sqrt(discriminant))
    return [(-b - root) / (2.0 * a), (-b + root) / (2.0 * a)]
