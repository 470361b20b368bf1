"""Tensors of any rank into irreducible parts and back: counts, parity, equivariance, symmetry."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from tace_al.model import cartesian
from tace_al.model.decomposition import IrreducibleDecomposition

SYMMETRIES = {  # degrees of the parts, from the characters of the permutations
    (0, ""): [0],
    (1, ""): [1],
    (2, ""): [0, 1, 2],
    (2, "ij=ji"): [0, 2],
    (2, "ij=-ji"): [1],
    (3, ""): [0, 1, 1, 1, 2, 2, 3],
    (3, "ijk=ikj"): [1, 1, 2, 3],
    (3, "ijk=-ikj"): [0, 1, 2],
    (3, "ijk=jik=ikj"): [1, 3],
    (3, "ijk=-jik=-ikj"): [0],
    (4, ""): [0] * 3 + [1] * 6 + [2] * 6 + [3] * 3 + [4],
    (4, "ijkl=jikl"): [0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 4],
    (4, "ijkl=jikl=ijlk"): [0, 0, 1, 2, 2, 2, 3, 4],
    (4, "ijkl=jikl=klij"): [0, 0, 2, 2, 4],
    (4, "ijkl=-jikl=klij"): [0, 2],
    (4, "ijkl=jikl=ikjl=ijlk"): [0, 2, 4],
}
CASES = list(SYMMETRIES)


def random_tensor(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def orthogonal(seed: int, sign: float) -> torch.Tensor:
    return sign * torch.tensor(Rotation.random(rng=np.random.default_rng(seed)).as_matrix())


def turned(tensor: torch.Tensor, rotation: torch.Tensor, rank: int) -> torch.Tensor:
    """Return the tensor with each of its last `rank` indices turned."""
    for axis in range(-rank, 0):
        tensor = torch.tensordot(tensor, rotation, dims=([axis], [1])).movedim(-1, axis)
    return tensor


def with_symmetry(tensor: torch.Tensor, symmetry: str) -> torch.Tensor:
    """Return the tensor after many rounds of the mean over each stated relation."""
    terms = symmetry.split("=")
    for _ in range(60 if symmetry else 0):
        for term in terms[1:]:
            letters = term.removeprefix("-")
            sign = -1.0 if term.startswith("-") else 1.0
            other = torch.einsum(f"...{letters}->...{terms[0]}", tensor)
            tensor = (tensor + sign * other) / 2
    return tensor


@pytest.mark.parametrize(("rank", "symmetry"), CASES)
def test_counts(rank: int, symmetry: str) -> None:
    decomposition = IrreducibleDecomposition(rank, symmetry)
    expected = SYMMETRIES[rank, symmetry]
    assert [part.degree for part in decomposition.parts] == expected
    assert decomposition.multiplicities == Counter(expected)
    assert decomposition.dimension == sum(2 * l + 1 for l in expected)
    for part in decomposition.parts:
        assert part.natural == ((rank - part.degree) % 2 == 0)
    for degree, count in decomposition.multiplicities.items():
        copies = [part.copy for part in decomposition.parts if part.degree == degree]
        assert copies == list(range(count))


@pytest.mark.parametrize(("rank", "symmetry"), CASES)
def test_bases_are_orthonormal(rank: int, symmetry: str) -> None:
    matrix = IrreducibleDecomposition(rank, symmetry).matrix
    assert np.allclose(matrix.T @ matrix, np.eye(matrix.shape[1]), rtol=0.0, atol=1e-13)
    with pytest.raises(ValueError, match="read-only"):
        matrix[0] = 1.0


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["rotation", "rotoinversion"])
@pytest.mark.parametrize(("rank", "symmetry"), CASES)
def test_parts_turn_as_packed_tensors(rank: int, symmetry: str, sign: float) -> None:
    decomposition, rotation = IrreducibleDecomposition(rank, symmetry), orthogonal(1, sign)
    tensor = random_tensor(2, *(3,) * rank)
    before, after = (
        decomposition.decompose(values) for values in (tensor, turned(tensor, rotation, rank))
    )
    for part, there, here in zip(decomposition.parts, before, after, strict=True):
        matrix = cartesian.rotation_matrix(rotation, part.degree)
        pseudo = 1.0 if part.natural else sign
        assert torch.allclose(here, pseudo * there @ matrix.T, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("leading", [(), (5,), (2, 3)])
@pytest.mark.parametrize(("rank", "symmetry"), CASES)
def test_round_trip(rank: int, symmetry: str, leading: tuple[int, ...]) -> None:
    decomposition = IrreducibleDecomposition(rank, symmetry)
    tensor = with_symmetry(random_tensor(*leading, *(3,) * rank), symmetry)
    parts = decomposition.decompose(tensor)
    assert [part.shape for part in parts] == [
        (*leading, 2 * part.degree + 1) for part in decomposition.parts
    ]
    assert torch.allclose(decomposition.compose(parts), tensor, rtol=0.0, atol=1e-12)
    norm = sum((part**2).sum() for part in parts)
    assert torch.allclose(norm, (tensor**2).sum())


@pytest.mark.parametrize(("rank", "symmetry"), CASES)
def test_composed_tensors_have_the_symmetry(rank: int, symmetry: str) -> None:
    decomposition = IrreducibleDecomposition(rank, symmetry)
    parts = [
        random_tensor(4, 2 * part.degree + 1, seed=i) for i, part in enumerate(decomposition.parts)
    ]
    tensor = decomposition.compose(parts)
    assert torch.allclose(with_symmetry(tensor, symmetry), tensor, rtol=0.0, atol=1e-13)
    for given, found in zip(parts, decomposition.decompose(tensor), strict=True):
        assert torch.allclose(given, found, rtol=0.0, atol=1e-13)


@pytest.mark.parametrize("rank", [2, 3, 4])
@pytest.mark.parametrize("seed", range(6))
def test_random_symmetries(rank: int, seed: int) -> None:
    """The dimension is the rank of the mean over the group, found by multiplying out its terms."""
    rng = np.random.default_rng(100 * rank + seed)
    letters = "ijkl"[:rank]
    orders = list(itertools.permutations(letters))
    terms = ["".join(orders[i]) for i in rng.integers(len(orders), size=rng.integers(1, 3))]
    symmetry = "=".join([letters, *terms])
    tensors = torch.eye(3**rank, dtype=torch.float64).reshape(-1, *(3,) * rank)
    subspace = with_symmetry_group(tensors, letters, terms).reshape(3**rank, 3**rank)
    decomposition = IrreducibleDecomposition(rank, symmetry)
    assert decomposition.dimension == round(float(subspace.trace()))
    projector = torch.tensor(decomposition.matrix @ decomposition.matrix.T)
    assert torch.allclose(projector, subspace, rtol=0.0, atol=1e-12)


def with_symmetry_group(tensors: torch.Tensor, letters: str, terms: list[str]) -> torch.Tensor:
    """Return the mean over every product of the permutations, found by brute force."""
    words = {letters}
    while True:
        longer = words | {
            "".join(word[letters.index(letter)] for letter in term)
            for word in words
            for term in terms
        }
        if longer == words:
            break
        words = longer
    return sum(torch.einsum(f"...{word}->...{letters}", tensors) for word in words) / len(words)


def test_parts_of_rank_two_are_trace_cross_and_deviator() -> None:
    tensor = random_tensor(3, 3)
    scalar, vector, deviator = IrreducibleDecomposition(2).decompose(tensor)
    assert torch.allclose(scalar[0], tensor.trace() / math.sqrt(3))
    axial = torch.einsum("ijk,ij->k", torch.tensor(cartesian.levi_civita().copy()), tensor)
    assert torch.allclose(cartesian.unpack(vector, 1), axial / math.sqrt(2))
    symmetric = (tensor + tensor.T) / 2 - tensor.trace() / 3 * torch.eye(3)
    assert torch.allclose(cartesian.unpack(deviator, 2), symmetric)


@pytest.mark.parametrize("rank", range(5))
def test_the_highest_part_is_the_irreducible_tensor(rank: int) -> None:
    highest = IrreducibleDecomposition(rank).parts[-1]
    assert np.allclose(highest.basis, cartesian.packing(rank), rtol=0.0, atol=1e-14)


def test_scalars_of_elastic_constants_are_the_moduli() -> None:
    bulk, shear = 2.5, 0.7
    unit = torch.eye(3, dtype=torch.float64)
    volume = torch.einsum("ij,kl->ijkl", unit, unit)
    symmetric = (volume.permute(0, 2, 1, 3) + volume.permute(0, 2, 3, 1)) / 2
    elastic = (bulk - 2 / 3 * shear) * volume + 2 * shear * symmetric
    parts = IrreducibleDecomposition(4, "ijkl=jikl=klij").decompose(elastic)
    assert float(parts[0]) == pytest.approx(3 * bulk)
    assert float(parts[1]) == pytest.approx(2 * math.sqrt(5) * shear)
    assert max(float(part.abs().max()) for part in parts[2:]) < 1e-14


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_is_kept(dtype: torch.dtype) -> None:
    decomposition = IrreducibleDecomposition(3)
    tensor = random_tensor(4, 3, 3, 3, dtype=dtype)
    parts = decomposition.decompose(tensor)
    back = decomposition.compose(parts)
    assert {part.dtype for part in parts} == {dtype} == {back.dtype}
    assert torch.allclose(back, tensor, atol=1e-5 if dtype == torch.float32 else 1e-13)


def test_both_ways_can_be_differentiated() -> None:
    decomposition = IrreducibleDecomposition(3, "ijk=ikj")
    tensor = random_tensor(2, 3, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: tuple(decomposition.decompose(t)), tensor)
    parts = [part.detach().requires_grad_() for part in decomposition.decompose(tensor)]
    assert torch.autograd.gradcheck(lambda *values: decomposition.compose(values), parts)


def test_signs_and_spaces_may_stand_anywhere() -> None:
    spaced, plain = IrreducibleDecomposition(2, " -ij = ji "), IrreducibleDecomposition(2, "ij=-ji")
    assert np.array_equal(spaced.matrix, plain.matrix)
    assert [part.degree for part in spaced.parts] == [1]


def test_equal_when_rank_and_symmetry_are() -> None:
    assert IrreducibleDecomposition(2, "ij=ji") == IrreducibleDecomposition(2, "ij=ji")
    assert IrreducibleDecomposition(2, "ij=ji") != IrreducibleDecomposition(2)
    assert len({IrreducibleDecomposition(1), IrreducibleDecomposition(1)}) == 1


@pytest.mark.parametrize(
    ("rank", "symmetry", "message"),
    [
        (-1, "", "rank of a tensor is -1, expected a whole number from 0 to 4"),
        (5, "", "rank of a tensor is 5"),
        (2, "ij", "has no '='"),
        (2, "ij=ik", "'ik' of the symmetry 'ij=ik' is not a permutation of 'ij'"),
        (2, "ii=ii", "'ii' .* is not 2 different letters"),
        (3, "ij=ji", "'ij' .* is not 3 different letters"),
        (2, "ij=+ji", r"'\+ji' .* is not 2 different letters"),
        (2, "ij=ji=", "'' .* is not 2 different letters"),
        (2, "ij=-ij", "contradicts itself"),
        (3, "ijk=jki=-jik=ikj", "contradicts itself"),
        (4, "ijkl=-jikl=-ikjl=-ijlk", "only the zero tensor has the symmetry"),
    ],
)
def test_what_has_no_decomposition_is_refused(rank: int, symmetry: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IrreducibleDecomposition(rank, symmetry)


def test_what_does_not_fit_is_refused() -> None:
    decomposition = IrreducibleDecomposition(2, "ij=ji")
    with pytest.raises(ValueError, match=r"shape \(4, 3\), expected one that ends in \(3, 3\)"):
        decomposition.decompose(random_tensor(4, 3))
    with pytest.raises(ValueError, match=r"shape \(3,\), expected one that ends in \(3, 3\)"):
        decomposition.decompose(random_tensor(3))
    with pytest.raises(ValueError, match=r"have \[1, 3\] components, expected \[1, 5\]"):
        decomposition.compose([random_tensor(1), random_tensor(3)])
    with pytest.raises(ValueError, match=r"have \[1\] components, expected \[1, 5\]"):
        decomposition.compose([random_tensor(1)])
