"""Irreducible Cartesian tensors against their definition, Legendre polynomials and Wigner 3j."""

import itertools
import math

import numpy as np
import pytest
import torch
from e3nn import o3
from scipy.spatial.transform import Rotation
from scipy.special import eval_legendre

from tace_al.model import cartesian

DEGREES = range(7)
PATHS = [
    (l1, l2, l3)
    for l1, l2 in itertools.product(DEGREES, repeat=2)
    for l3 in range(abs(l1 - l2), min(l1 + l2, 6) + 1)
]
SMALL_PATHS = [path for path in PATHS if max(path[:2]) <= 3]


def random_unit(rng: np.random.Generator) -> np.ndarray:
    vector = rng.normal(size=3)
    return vector / np.linalg.norm(vector)


def outer_power(vector: np.ndarray, l: int) -> np.ndarray:
    """Return the flat tensor n (x) n (x) ... of rank l."""
    power = np.ones(1)
    for _ in range(l):
        power = np.kron(power, vector)
    return power


def wigner_3j(l1: int, l2: int, l3: int) -> np.ndarray:
    """Return e3nn's real Wigner 3j (its axes are ours: y, z, x for l = 1)."""
    return o3.wigner_3j(l1, l2, l3, dtype=torch.float64).numpy()


def random_tensor(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def random_rotation(seed: int, *, improper: bool) -> torch.Tensor:
    matrix = torch.tensor(Rotation.random(rng=np.random.default_rng(seed)).as_matrix())
    return -matrix if improper else matrix


def turned(full: torch.Tensor, rotation: torch.Tensor, rank: int) -> torch.Tensor:
    """Return the tensor with every one of its last `rank` indices turned."""
    for axis in range(-rank, 0):
        full = torch.tensordot(full, rotation, dims=([axis], [1])).movedim(-1, axis)
    return full


def symmetric_traceless(full: np.ndarray) -> np.ndarray:
    """Return the symmetric traceless part, without any packing: symmetrise, then subtract traces.

    The traceless part is sum_k a_k sym(delta^k tr^k S), a_k = (-1)^k l! (2l-2k-1)!! /
    ((l-2k)! (2k)!! (2l-1)!!), found by asking the trace to vanish.
    """
    l = full.ndim
    full = symmetrised(full)
    result, trace = np.zeros_like(full), full
    for k in range(l // 2 + 1):
        factor = (-1) ** k * math.factorial(l) / math.factorial(l - 2 * k)
        factor *= double_factorial(2 * l - 2 * k - 1) / double_factorial(2 * l - 1)
        term = trace
        for _ in range(k):
            term = np.multiply.outer(np.eye(3), term)
        result += factor / double_factorial(2 * k) * symmetrised(term)
        trace = np.trace(trace) if trace.ndim >= 2 else trace
    return result


def symmetrised(full: np.ndarray) -> np.ndarray:
    orders = list(itertools.permutations(range(full.ndim)))
    return sum(full.transpose(order) for order in orders) / len(orders)


def double_factorial(n: int) -> int:
    return math.prod(range(n, 0, -2))


@pytest.mark.parametrize("l", DEGREES)
def test_packing_is_orthonormal_symmetric_and_traceless(l: int) -> None:
    packing = cartesian.packing(l)
    assert packing.shape == (3**l, 2 * l + 1)
    assert np.allclose(packing.T @ packing, np.eye(2 * l + 1), atol=1e-14)
    tensors = packing.reshape((3,) * l + (2 * l + 1,))
    for axis in range(l - 1):
        assert np.allclose(tensors, np.swapaxes(tensors, axis, axis + 1), atol=1e-15)
    for pair in itertools.combinations(range(l), 2):
        assert np.abs(np.trace(tensors, axis1=pair[0], axis2=pair[1])).max() < 1e-14


@pytest.mark.parametrize("l", DEGREES)
def test_the_projector_projects(l: int) -> None:
    projector = cartesian.projector(l)
    assert np.allclose(projector @ projector, projector, atol=1e-14)
    assert np.array_equal(projector, projector.T)
    assert np.trace(projector) == pytest.approx(2 * l + 1)


@pytest.mark.parametrize("l", range(6))
def test_the_projector_symmetrises_and_subtracts_the_traces(l: int) -> None:
    full = np.random.default_rng(l).normal(size=(3,) * l)
    projected = (cartesian.projector(l) @ full.ravel()).reshape(full.shape)
    assert np.allclose(projected, symmetric_traceless(full), atol=1e-14)


@pytest.mark.parametrize("l", DEGREES)
def test_contracted_harmonics_are_legendre_polynomials(l: int) -> None:
    rng = np.random.default_rng(l)
    first, second = random_unit(rng), random_unit(rng)
    tensor = cartesian.harmonic_norm(l) * cartesian.projector(l) @ outer_power(first, l)
    assert tensor @ outer_power(second, l) == pytest.approx(eval_legendre(l, first @ second))
    assert tensor @ tensor == pytest.approx(cartesian.harmonic_norm(l))


def test_packed_harmonics_are_the_spherical_ones_up_to_the_known_factor() -> None:
    scales = [1.0, 0.577350, 0.547723, 0.597614, 0.697217]
    unit = random_unit(np.random.default_rng(0))
    for l in DEGREES:
        tensor = cartesian.harmonic_norm(l) * outer_power(unit, l)
        packed = cartesian.packing(l).T @ tensor
        spherical = o3.spherical_harmonics(
            l, torch.tensor(unit[[1, 2, 0]]), normalize=False, normalization="component"
        )  # e3nn's polar axis is y
        scale = math.sqrt(cartesian.harmonic_norm(l) / (2 * l + 1))
        assert np.allclose(packed, scale * spherical.numpy(), atol=1e-12)
        if l < len(scales):
            assert scale == pytest.approx(scales[l], abs=1e-6)


def test_couplings_of_all_paths_are_unit_multiples_of_wigner_3j() -> None:
    for l1, l2, l3 in PATHS:
        coupling = cartesian.coupling(l1, l2, l3)
        expected = math.sqrt(2 * l3 + 1) * wigner_3j(l1, l2, l3)
        sign = np.sign((coupling * expected).sum())
        assert np.allclose(coupling, sign * expected, atol=1e-10), (l1, l2, l3)
        assert sign > 0 or not cartesian.couples(l1, l2, l3)


def test_contractions_of_all_paths_have_one_factor() -> None:
    """3^(-k/2) D (A o_k B) = kappa sqrt(2 l3 + 1) w3j with 0 < kappa <= 1, and 1 without traces."""
    for l1, l2, l3 in PATHS:
        if not cartesian.couples(l1, l2, l3):
            continue
        pairs = (l1 + l2 - l3) // 2
        contraction = 3 ** (-pairs / 2) * cartesian.contraction(l1, l2, l3)
        expected = math.sqrt(2 * l3 + 1) * wigner_3j(l1, l2, l3)
        kappa = (contraction * expected).sum() / (expected**2).sum()
        assert np.allclose(contraction, kappa * expected, atol=1e-11), (l1, l2, l3)
        assert 0.0 < kappa < 1.0 + 1e-12
        if pairs == 0:
            assert kappa == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    ("degrees", "kappa"),
    [
        ((1, 1, 2), 1.0),
        ((2, 1, 3), 1.0),
        ((1, 1, 0), 1.0),
        ((1, 2, 1), math.sqrt(5 / 9)),
        ((2, 2, 0), math.sqrt(5 / 9)),
        ((1, 3, 2), 0.683130),
        ((2, 2, 2), 0.440959),
        ((2, 3, 1), 0.509175),
        ((3, 3, 0), 0.509175),
        ((2, 3, 3), 0.365148),
        ((3, 3, 2), 0.249444),
        ((3, 3, 4), 0.285450),
    ],
)
def test_bare_contractions_have_the_published_factors(
    degrees: tuple[int, int, int], kappa: float
) -> None:
    l1, l2, l3 = degrees
    pairs = (l1 + l2 - l3) // 2
    contraction = 3 ** (-pairs / 2) * cartesian.contraction(l1, l2, l3)
    expected = kappa * math.sqrt(2 * l3 + 1) * wigner_3j(l1, l2, l3)
    assert np.allclose(contraction, expected, atol=2e-6)


@pytest.mark.parametrize("degrees", SMALL_PATHS)
def test_products_are_those_of_full_tensors(degrees: tuple[int, int, int]) -> None:
    """The definition on 3^l components: contract k pairs, symmetrise, subtract the traces."""
    l1, l2, l3 = degrees
    first, second = random_tensor(2 * l1 + 1, seed=1), random_tensor(2 * l2 + 1, seed=2)
    left, right = cartesian.unpack(first, l1).numpy(), cartesian.unpack(second, l2).numpy()
    odd = (l1 + l2 - l3) % 2
    k = (l1 + l2 - l3 - odd) // 2
    full = np.tensordot(left, right, axes=(range(l1 - k, l1), range(k)))
    if odd:  # one more pair through the Levi-Civita symbol: last of left, first of right
        full = np.tensordot(full, cartesian.levi_civita(), axes=((l1 - k - 1, l1 - k), (0, 1)))
    product = cartesian.unpack(cartesian.product(first, l1, second, l2, l3), l3).numpy()
    assert np.allclose(product, symmetric_traceless(full), atol=1e-13)


def test_products_of_all_paths_are_traceless_and_symmetric() -> None:
    for l1, l2, l3 in PATHS:
        first, second = random_tensor(2 * l1 + 1, seed=1), random_tensor(2 * l2 + 1, seed=2)
        full = cartesian.unpack(cartesian.product(first, l1, second, l2, l3), l3)
        for axes in itertools.combinations(range(l3), 2):
            assert full.diagonal(dim1=axes[0], dim2=axes[1]).sum(-1).abs().max() < 1e-12
            assert (full - full.transpose(*axes)).abs().max() < 1e-12


@pytest.mark.parametrize("improper", [False, True], ids=["rotation", "rotoinversion"])
def test_products_are_equivariant(improper: bool) -> None:
    rotation = random_rotation(3, improper=improper)
    matrices = [cartesian.rotation_matrix(rotation, l) for l in DEGREES]
    for l1, l2, l3 in PATHS:
        first, second = random_tensor(2 * l1 + 1, seed=1), random_tensor(2 * l2 + 1, seed=2)
        before = cartesian.product(first, l1, second, l2, l3)
        after = cartesian.product(matrices[l1] @ first, l1, matrices[l2] @ second, l2, l3)
        pseudo = -1.0 if improper and not cartesian.couples(l1, l2, l3) else 1.0
        assert torch.allclose(after, pseudo * matrices[l3] @ before, rtol=0.0, atol=1e-12)


def test_the_products_of_vectors_are_dot_cross_and_deviator() -> None:
    a, b = random_tensor(3, seed=1), random_tensor(3, seed=2)
    first, second = cartesian.pack(a, 1), cartesian.pack(b, 1)
    dot, cross, deviator = (
        cartesian.unpack(cartesian.product(first, 1, second, 1, l), l) for l in range(3)
    )
    assert torch.allclose(dot, a @ b)
    assert torch.allclose(cross, torch.linalg.cross(a, b))
    expected = (torch.outer(a, b) + torch.outer(b, a)) / 2 - (a @ b) / 3 * torch.eye(3)
    assert torch.allclose(deviator, expected)


@pytest.mark.parametrize("l", DEGREES)
@pytest.mark.parametrize("leading", [(), (4,), (2, 3)])
def test_packing_and_unpacking(l: int, leading: tuple[int, ...]) -> None:
    packed = random_tensor(*leading, 2 * l + 1)
    full = cartesian.unpack(packed, l)
    assert full.shape == (*leading, *(3,) * l)
    assert torch.allclose(cartesian.pack(full, l), packed, rtol=0.0, atol=1e-14)
    assert torch.allclose((full**2).sum(), (packed**2).sum())
    reducible = random_tensor(*leading, *(3,) * l)
    assert torch.allclose(
        cartesian.unpack(cartesian.pack(reducible, l), l).reshape(-1, 3**l),
        reducible.reshape(-1, 3**l) @ torch.tensor(cartesian.projector(l).copy()),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_is_that_of_the_input(dtype: torch.dtype) -> None:
    vectors = random_tensor(5, 3, dtype=dtype)
    assert cartesian.pack(vectors, 1).dtype == dtype
    assert cartesian.unpack(vectors, 1).dtype == dtype
    assert cartesian.harmonics(vectors, 3).dtype == dtype
    assert cartesian.product(vectors, 1, vectors, 1, 2).dtype == dtype
    assert cartesian.rotation_matrix(torch.eye(3, dtype=dtype), 3).dtype == dtype


def test_leading_axes_of_products_are_broadcast() -> None:
    first, second = random_tensor(4, 1, 3, seed=1), random_tensor(6, 5, seed=2)
    product = cartesian.product(first, 1, second, 2, 3)
    assert product.shape == (4, 6, 7)
    alone = cartesian.product(first[2, 0], 1, second[5], 2, 3)
    assert torch.allclose(product[2, 5], alone)


def test_products_can_be_differentiated_twice() -> None:
    first, second = random_tensor(2, 3, seed=1), random_tensor(2, 5, seed=2)
    first.requires_grad_()
    second.requires_grad_()

    def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return cartesian.product(a, 1, b, 2, 2)

    assert torch.autograd.gradcheck(product, (first, second))
    assert torch.autograd.gradgradcheck(product, (first, second))


@pytest.mark.parametrize("l", DEGREES)
def test_rotation_matrices_turn_packed_tensors(l: int) -> None:
    for improper in (False, True):
        rotation, packed = random_rotation(l, improper=improper), random_tensor(2 * l + 1)
        matrix = cartesian.rotation_matrix(rotation, l)
        expected = cartesian.pack(turned(cartesian.unpack(packed, l), rotation, l), l)
        assert torch.allclose(matrix @ packed, expected, rtol=0.0, atol=1e-13)
        assert torch.allclose(matrix @ matrix.T, torch.eye(2 * l + 1).double(), atol=1e-13)
    assert torch.allclose(
        cartesian.rotation_matrix(-torch.eye(3).double(), l),
        (-1) ** l * torch.eye(2 * l + 1).double(),
        atol=1e-14,
    )


def test_rotation_matrices_of_many_rotations() -> None:
    rotations = torch.stack([random_rotation(seed, improper=False) for seed in range(3)])
    matrices = cartesian.rotation_matrix(rotations, 2)
    assert matrices.shape == (3, 5, 5)
    assert torch.allclose(matrices[1], cartesian.rotation_matrix(rotations[1], 2))
    both = cartesian.rotation_matrix(rotations[0] @ rotations[1], 2)
    assert torch.allclose(matrices[0] @ matrices[1], both)


def test_unit_inputs_give_unit_outputs() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(20_000, 3)), rng.normal(size=(20_000, 5))
    for l3 in (1, 3):
        product = np.einsum("sa,sb,abc->sc", first, second, cartesian.coupling(1, 2, l3))
        assert (product**2).mean() == pytest.approx(1.0, abs=0.03)


def test_cached_arrays_cannot_be_damaged() -> None:
    for array in (cartesian.packing(2), cartesian.coupling(1, 1, 2), cartesian.projector(1)):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0


def test_parity_rules() -> None:
    assert cartesian.couples(1, 1, 2)
    assert not cartesian.couples(1, 1, 1)
    assert not cartesian.couples(0, 1, 2)
    assert not cartesian.coupling(1, 1, 3).any()


@pytest.mark.parametrize("l", [-1, cartesian.MAX_DEGREE + 1])
def test_degrees_out_of_range_are_refused(l: int) -> None:
    vector = random_tensor(3)
    for call in (
        lambda: cartesian.packing(l),
        lambda: cartesian.projector(l),
        lambda: cartesian.contraction(1, 1, l),
        lambda: cartesian.pack(vector, l),
        lambda: cartesian.unpack(vector, l),
        lambda: cartesian.harmonics(vector, l),
        lambda: cartesian.product(vector, 1, vector, 1, l),
        lambda: cartesian.rotation_matrix(torch.eye(3), l),
    ):
        with pytest.raises(ValueError, match=f"degree of a tensor is {l}, expected a whole"):
            call()


def test_what_does_not_fit_is_refused() -> None:
    vector = random_tensor(4, 3)
    with pytest.raises(ValueError, match="no product of degree 3; ask for one from 0 to 2"):
        cartesian.product(vector, 1, vector, 1, 3)
    with pytest.raises(ValueError, match=r"degree 2 has shape \(4, 3\), expected 5 components"):
        cartesian.product(vector, 2, vector, 1, 3)
    with pytest.raises(ValueError, match=r"shape \(4, 3\), expected one that ends in \(3, 3\)"):
        cartesian.pack(vector, 2)
    with pytest.raises(ValueError, match="expected 7 components"):
        cartesian.unpack(vector, 3)
    with pytest.raises(TypeError):
        cartesian.pack(torch.ones(3, dtype=torch.int64), 1)
