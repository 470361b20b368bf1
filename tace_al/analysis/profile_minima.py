"""Basins of a profile on a grid of one variable, and the lowest ways between neighbours."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Basins:
    """Minima of a profile that are deeper than a threshold, and the barriers between them.

    Parameters
    ----------
    places, energies
        (minima,) where they are, ascending, and how deep, in eV above the lowest.
    tops, barriers
        (minima - 1,) where the highest point between neighbours is, and how high, in eV above the
        lowest minimum.
    """

    places: np.ndarray
    energies: np.ndarray
    tops: np.ndarray
    barriers: np.ndarray


def basins(grid: np.ndarray, energies: np.ndarray, *, depth: float) -> Basins:
    """Return the basins of a profile; wiggles less deep than `depth` (eV) are none.

    Minima at the ends of the grid do not count: what lies beyond is not known.

    >>> x = np.linspace(-1.5, 1.5, 301)
    >>> found = basins(x, (x**2 - 1) ** 2, depth=0.1)
    >>> found.places.round(2).tolist(), found.barriers.round(2).tolist()
    ([-1.0, 1.0], [1.0])
    """
    inner = np.flatnonzero((energies[1:-1] < energies[:-2]) & (energies[1:-1] <= energies[2:])) + 1
    minima = inner.tolist()
    while len(minima) > 1:
        # the barrier that is lowest above the higher of its two minima goes first
        tops = [energies[a : b + 1].max() for a, b in pairwise(minima)]
        rises = [
            top - max(energies[a], energies[b])
            for top, (a, b) in zip(tops, pairwise(minima), strict=True)
        ]
        shallow = int(np.argmin(rises))
        if rises[shallow] >= depth:
            break
        pair = (minima[shallow], minima[shallow + 1])
        minima.remove(max(pair, key=lambda index: energies[index]))
    lowest = energies[minima].min() if minima else 0.0
    tops_at = [a + int(energies[a : b + 1].argmax()) for a, b in pairwise(minima)]
    return Basins(
        places=grid[minima],
        energies=energies[minima] - lowest,
        tops=grid[tops_at],
        barriers=energies[tops_at] - lowest,
    )
