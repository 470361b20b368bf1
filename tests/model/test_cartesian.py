"""Irreducible Cartesian tensors against their definition, Legendre polynomials and Wigner 3j."""

import math

import numpy as np
import pytest
import torch
from e3nn import o3
from scipy.special import eval_legendre

from tace_al.model import cartesian

DEGREES = range(5)


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


@pytest.mark.parametrize("l", DEGREES)
def test_packing_is_orthonormal_symmetric_and_traceless(l: int) -> None:
    packing = cartesian.packing(l)
    assert packing.shape == (3**l, 2 * l + 1)
    assert np.allclose(packing.T @ packing, np.eye(2 * l + 1), atol=1e-14)
    for column in packing.T:
        tensor = column.reshape((3,) * l)
        for axis in range(l - 1):
            assert np.allclose(tensor, np.swapaxes(tensor, axis, axis + 1), atol=1e-15)
        if l >= 2:
            assert np.abs(np.trace(tensor)).max() < 1e-14


@pytest.mark.parametrize("l", DEGREES)
def test_the_projector_projects(l: int) -> None:
    projector = cartesian.projector(l)
    assert np.allclose(projector @ projector, projector, atol=1e-14)
    assert np.trace(projector) == pytest.approx(2 * l + 1)


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
    for l, scale in enumerate(scales):
        tensor = cartesian.harmonic_norm(l) * outer_power(unit, l)
        packed = cartesian.packing(l).T @ tensor
        spherical = o3.spherical_harmonics(
            l, torch.tensor(unit[[1, 2, 0]]), normalize=False, normalization="component"
        )  # e3nn's polar axis is y
        assert np.allclose(packed, scale * spherical.numpy(), atol=2e-6)


@pytest.mark.parametrize("l1", range(4))
@pytest.mark.parametrize("l2", range(4))
@pytest.mark.parametrize("l3", range(5))
def test_couplings_are_proportional_to_wigner_3j(l1: int, l2: int, l3: int) -> None:
    coupling = cartesian.coupling(l1, l2, l3)
    if not abs(l1 - l2) <= l3 <= l1 + l2:
        assert not coupling.any()
        return
    expected = math.sqrt(2 * l3 + 1) * wigner_3j(l1, l2, l3)
    sign = np.sign((coupling * expected).sum())
    assert np.allclose(coupling, sign * expected, atol=1e-10)
    if cartesian.couples(l1, l2, l3):
        assert sign > 0


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


@pytest.mark.parametrize(
    "degrees", [(1, 1, 0), (1, 1, 2), (2, 1, 1), (2, 2, 2), (3, 2, 3), (1, 1, 1), (2, 1, 2)]
)
def test_contractions_on_full_tensors(degrees: tuple[int, int, int]) -> None:
    """The definition, index by index: contract k pairs, project, pack."""
    l1, l2, l3 = degrees
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=2 * l1 + 1), rng.normal(size=2 * l2 + 1)
    left = (cartesian.packing(l1) @ first).reshape((3,) * l1)
    right = (cartesian.packing(l2) @ second).reshape((3,) * l2)
    odd = (l1 + l2 - l3) % 2
    k = (l1 + l2 - l3 - odd) // 2
    full = np.tensordot(left, right, axes=(range(l1 - k, l1), range(k)))
    if odd:  # one more pair through the Levi-Civita symbol: last of left, first of right
        full = np.tensordot(full, cartesian.levi_civita(), axes=((l1 - k - 1, l1 - k), (0, 1)))
    packed = cartesian.packing(l3).T @ full.ravel()
    assert np.allclose(packed, np.einsum("a,b,abc", first, second, cartesian.contraction(*degrees)))


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
