"""Symmetric Cartesian tensors, packed: what moments of a neighbourhood are.

A symmetric tensor of rank n has (n + 1)(n + 2)/2 different components, one for each monomial
x^a y^b z^c of degree n. A component that occurs n!/(a! b! c!) times in the full tensor is stored
times the square root of that number, so packing, m = S_n^T M, is an isometry. Rank 1 is ordered
(y, z, x), as vectors are in `tace_al.model.cartesian`; ranks 0, 1, .. lie end to end on one axis.

A symmetric tensor is reducible: it holds one irreducible part of each degree l = n, n - 2, ...,
found by tracing (n - l)/2 index pairs. Everything here is float64 numpy, built once and cached.
"""

import math
from functools import cache

import numpy as np

from tace_al.model import cartesian
from tace_al.model.sphere_quadrature import sphere_harmonics


def rank_size(rank: int) -> int:
    """Return the packed length of one rank, (n + 1)(n + 2)/2."""
    return (rank + 1) * (rank + 2) // 2


def rank_start(rank: int) -> int:
    """Return where a rank begins on the packed axis: n (n + 1)(n + 2)/6 numbers lie below it."""
    return rank * (rank + 1) * (rank + 2) // 6


@cache
def packing(rank: int) -> np.ndarray:
    """Return S_n, (3^n, (n+1)(n+2)/2): orthonormal columns spanning the symmetric tensors."""
    exponents = [(b, c, rank - b - c) for b in range(rank, -1, -1) for c in range(rank - b, -1, -1)]
    columns = np.zeros((3,) * rank + (len(exponents),))
    for index in np.ndindex((3,) * rank):
        columns[(*index, exponents.index((index.count(1), index.count(2), index.count(0))))] = 1.0
    flat = columns.reshape(3**rank, len(exponents))
    return _read_only(flat / np.linalg.norm(flat, axis=0))


@cache
def irreducible_part(rank: int, l: int) -> np.ndarray:
    """Return (2l+1, (n+1)(n+2)/2): the part of degree l of a rank-n tensor, packed; an isometry.

    l = n, n - 2, ..., down to 0 or 1. The parts of all l together are an orthogonal matrix.
    """
    tensors = packing(rank).reshape((3,) * rank + (rank_size(rank),))
    for _ in range((rank - l) // 2):
        tensors = np.einsum("...iix->...x", tensors)
    part = cartesian.packing(l).T @ tensors.reshape(3**l, -1)
    return _read_only(part * (math.sqrt(2 * l + 1) / np.linalg.norm(part)))


@cache
def powers_from_harmonics(rank_max: int) -> np.ndarray:
    """Return the matrix from Y_l(n), l <= rank_max, to the packed powers n^(r), r <= rank_max.

    Powers are scaled to ||n^(r)||^2 = (r+1)(r+2)/2: components of unit size, as harmonics.
    """
    pole = np.array([[0.0, 0.0, 1.0]])
    at_pole = sphere_harmonics(rank_max, pole)[0]
    matrix = np.zeros((rank_start(rank_max + 1), cartesian.num_components(rank_max)))
    for rank in range(rank_max + 1):
        power = math.sqrt(rank_size(rank)) * packing(rank)[-1]  # row z z ... z
        rows = slice(rank_start(rank), rank_start(rank + 1))
        for l in range(rank % 2, rank + 1, 2):
            part, columns = irreducible_part(rank, l), cartesian.degree_slice(l)
            factor = float(part @ power @ at_pole[columns]) / (2 * l + 1)  # part(n^r) = factor Y_l
            matrix[rows, columns] = factor * part.T
    return _read_only(matrix)


@cache
def moment_contraction(first: int, second: int, pairs: int) -> np.ndarray:
    """Return Sym(A o_k B) of packed symmetric tensors, scaled to unit variance.

    k index pairs of A (rank `first`) and B (rank `second`) are contracted and what is left is made
    symmetric; shape (size of A, size of B, size of the rank first + second - 2 k).
    """
    return _contract(packing(first), packing(second), first, second, pairs)


@cache
def feature_contraction(l: int, rank: int, pairs: int) -> np.ndarray:
    """Return the same with an irreducible packed tensor of degree l as first factor."""
    return _contract(cartesian.packing(l), packing(rank), l, rank, pairs)


def _contract(a: np.ndarray, b: np.ndarray, first: int, second: int, pairs: int) -> np.ndarray:
    """Contract the last `pairs` indices of a's columns with the first ones of b's; symmetrise."""
    result = packing(first + second - 2 * pairs)
    left = a.reshape(3 ** (first - pairs), 3**pairs, -1)
    right = b.reshape(3**pairs, 3 ** (second - pairs), -1)
    target = result.reshape(3 ** (first - pairs), 3 ** (second - pairs), -1)
    product = np.einsum("ikx,kjy,ijz->xyz", left, right, target, optimize=True)
    product[np.abs(product) < 1e-14] = 0.0
    return _read_only(product * (math.sqrt(result.shape[1]) / np.linalg.norm(product)))


def _read_only(array: np.ndarray) -> np.ndarray:
    """Return the array with writing switched off, so that a cached one cannot be damaged."""
    array.setflags(write=False)
    return array
