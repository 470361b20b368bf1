"""Packed symmetric tensors against plain 3^n ones."""

import itertools
import math

import numpy as np
import pytest

from tace_al.model import cartesian, symmetric_tensor
from tace_al.model.sphere_quadrature import sphere_harmonics


def symmetrise(tensor: np.ndarray) -> np.ndarray:
    """Return the mean over all orders of the indices."""
    orders = list(itertools.permutations(range(tensor.ndim)))
    return sum(np.transpose(tensor, order) for order in orders) / len(orders)


def unpack(packed: np.ndarray, rank: int) -> np.ndarray:
    """Return the full tensor."""
    return (symmetric_tensor.packing(rank) @ packed).reshape((3,) * rank)


@pytest.mark.parametrize("rank", range(6))
def test_packing_is_an_isometry_onto_symmetric_tensors(rank: int) -> None:
    packing = symmetric_tensor.packing(rank)
    assert packing.shape == (3**rank, symmetric_tensor.rank_size(rank))
    assert np.allclose(packing.T @ packing, np.eye(packing.shape[1]), atol=1e-14)
    tensor = np.random.default_rng(0).normal(size=(3,) * rank)
    projected = (packing @ (packing.T @ tensor.ravel())).reshape(tensor.shape)
    assert np.allclose(projected, symmetrise(tensor), atol=1e-13)


def test_sizes_add_up_and_vectors_are_ordered_as_elsewhere() -> None:
    sizes = [symmetric_tensor.rank_size(rank) for rank in range(7)]
    assert sizes == [1, 3, 6, 10, 15, 21, 28]
    assert [symmetric_tensor.rank_start(rank) for rank in range(7)] == [0, 1, 4, 10, 20, 35, 56]
    assert np.array_equal(symmetric_tensor.packing(1), cartesian.packing(1))


@pytest.mark.parametrize("rank", range(6))
def test_irreducible_parts_are_an_orthogonal_decomposition(rank: int) -> None:
    parts = [symmetric_tensor.irreducible_part(rank, l) for l in range(rank % 2, rank + 1, 2)]
    matrix = np.concatenate(parts)
    assert np.allclose(matrix @ matrix.T, np.eye(symmetric_tensor.rank_size(rank)), atol=1e-13)


def test_the_part_of_degree_zero_is_the_trace() -> None:
    packed = np.random.default_rng(0).normal(size=6)
    trace = np.trace(unpack(packed, 2)) / math.sqrt(3.0)
    assert symmetric_tensor.irreducible_part(2, 0) @ packed == pytest.approx([trace])


def test_powers_of_a_direction_come_from_its_harmonics() -> None:
    direction = np.random.default_rng(0).normal(size=3)
    direction /= np.linalg.norm(direction)
    powers = symmetric_tensor.powers_from_harmonics(5) @ sphere_harmonics(5, direction[None])[0]
    full = np.ones(())
    for rank in range(6):
        start = symmetric_tensor.rank_start(rank)
        packed = powers[start : symmetric_tensor.rank_start(rank + 1)]
        size = symmetric_tensor.rank_size(rank)
        assert np.allclose(unpack(packed, rank), math.sqrt(size) * full, atol=1e-12)
        full = np.multiply.outer(full, direction)


@pytest.mark.parametrize(("first", "second", "pairs"), [(1, 1, 0), (2, 2, 1), (3, 2, 2), (2, 3, 1)])
@pytest.mark.parametrize("irreducible", [False, True])
def test_contractions_are_those_of_full_tensors(
    first: int, second: int, pairs: int, irreducible: bool
) -> None:
    generator = np.random.default_rng(0)
    left = cartesian.packing(first) if irreducible else symmetric_tensor.packing(first)
    a = generator.normal(size=left.shape[1])
    b = generator.normal(size=symmetric_tensor.rank_size(second))
    rank = first + second - 2 * pairs
    axes = (range(first - pairs, first), range(pairs))
    full = np.tensordot((left @ a).reshape((3,) * first), unpack(b, second), axes=axes)
    expected = symmetric_tensor.packing(rank).T @ symmetrise(full).ravel()
    contract = (
        symmetric_tensor.feature_contraction if irreducible else symmetric_tensor.moment_contraction
    )
    matrix = contract(first, second, pairs)
    found = np.einsum("a,b,abc->c", a, b, matrix)
    factor = np.sum(found * expected) / np.sum(expected**2)
    assert factor > 0
    assert np.allclose(found, factor * expected, atol=1e-12)
    assert np.linalg.norm(matrix) == pytest.approx(math.sqrt(symmetric_tensor.rank_size(rank)))
