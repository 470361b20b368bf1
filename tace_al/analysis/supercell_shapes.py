"""Supercells of one size and many shapes, which between them hold many wave vectors.

A supercell of N cells shows the forces of those N wave vectors q whose waves fit into it; along
every other q a model interpolates, and all members of a committee may err alike, unchecked by any
label. Supercells of another shape hold others: the sublattices of index N are the Hermite normal
forms

    [a b c; 0 d e; 0 0 f],   a d f = N,   0 <= b < d,   0 <= c, e < f

and a whole grid of N x N x N points needs none larger (Lloyd-Williams and Monserrat,
doi:10.1103/PhysRevB.92.184301). So labels of the same cost tell about more of the zone. A cell
thinner than the model's reach does no harm: model and labeller see the same images.
"""

import numpy as np
from ase import Atoms
from ase.build import make_supercell
from ase.geometry import minkowski_reduce

from tace_al.core.random_generators import random_generator

THINNEST = 0.6
"""Least distance between opposite faces of a shape, over that of the thickest."""
_TRIALS = 300


def supercell_shapes(cell: Atoms, size: int, *, number: int, seed: int = 0) -> list[Atoms]:
    """Return supercells of one size in different shapes, the thickest first.

    Parameters
    ----------
    cell
        The unit cell.
    size
        Unit cells in a supercell.
    number
        Supercells, at most: few cells have few shapes.
    seed
        Which of the shapes.

    Returns
    -------
    Supercells whose atoms come in the order of the unit cell, again and again.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from tace_al.analysis.supercells import heights
    >>> shapes = supercell_shapes(bulk("Cu", cubic=True), 4, number=3, seed=1)
    >>> [len(shape) for shape in shapes]
    [16, 16, 16]
    >>> [round(float(heights(shape).min()), 2) for shape in shapes]
    [5.11, 3.61, 3.61]
    """
    rng = random_generator(seed, "supercell shapes")
    found: dict[tuple[float, ...], np.ndarray] = {}
    for _ in range(_TRIALS):
        vectors, _ = minkowski_reduce(_sublattice(rng, size) @ cell.cell.array)
        found.setdefault(_shape(vectors), vectors)
    thickness = {
        key: 1.0 / np.linalg.norm(np.linalg.inv(v), axis=0).max() for key, v in found.items()
    }
    # a stable sort: of equally thick ones the first that was drawn
    first = max(found, key=lambda key: thickness[key])
    others = [key for key in found if key != first and thickness[key] > THINNEST * thickness[first]]
    return [_supercell(cell, found[key]) for key in (first, *others)[:number]]


def _supercell(cell: Atoms, vectors: np.ndarray) -> Atoms:
    """Return the supercell of lattice vectors, right-handed."""
    matrix = np.rint(vectors @ np.linalg.inv(cell.cell.array)).astype(int)
    return make_supercell(cell, matrix if np.linalg.det(matrix) > 0 else -matrix)


def _sublattice(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return a random (3, 3) Hermite normal form of a determinant."""
    first = int(rng.choice(_divisors(size)))
    second = int(rng.choice(_divisors(size // first)))
    third = size // first // second
    return np.array(
        [
            [first, rng.integers(second), rng.integers(third)],
            [0, second, rng.integers(third)],
            [0, 0, third],
        ]
    )


def _divisors(number: int) -> list[int]:
    """Return the divisors of a whole number.

    >>> _divisors(8)
    [1, 2, 4, 8]
    """
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def _shape(vectors: np.ndarray) -> tuple[float, ...]:
    """Return what is the same for equal shapes in any orientation: sorted lengths and products."""
    products = vectors @ vectors.T
    aside = np.abs(products[np.triu_indices(3, k=1)])
    return tuple(np.round([*np.sort(np.diag(products)), *np.sort(aside)], 3).tolist())
