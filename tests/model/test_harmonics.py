"""Harmonics: component norm, parity, and e3nn's values in the same order."""

import numpy as np
import pytest
import torch
from e3nn import o3
from scipy.spatial.transform import Rotation
from scipy.special import eval_legendre

from tace_al.model import cartesian
from tace_al.model.cartesian import degree_slice
from tace_al.model.harmonics import CartesianHarmonics

L_MAX = 6


def random_units(num_vectors: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(num_vectors, 3, generator=generator, dtype=torch.float64)
    return vectors / vectors.norm(dim=1, keepdim=True)


def test_harmonics_are_those_of_e3nn() -> None:
    units = random_units(20)
    expected = o3.spherical_harmonics(
        list(range(L_MAX + 1)), units[:, [1, 2, 0]], normalize=False, normalization="component"
    )  # e3nn's polar axis is y
    assert torch.allclose(CartesianHarmonics(L_MAX)(units), expected, atol=1e-12)


def test_one_degree_alone_is_the_same() -> None:
    units = random_units(6).reshape(2, 3, 3)
    together = CartesianHarmonics(L_MAX)(units.reshape(6, 3))
    for l in range(L_MAX + 1):
        alone = cartesian.harmonics(units, l)
        assert alone.shape == (2, 3, 2 * l + 1)
        expected = together[:, degree_slice(l)].reshape(2, 3, -1)
        assert torch.allclose(alone, expected, rtol=0.0, atol=1e-14)


def test_each_degree_has_norm_2l_plus_1() -> None:
    values = CartesianHarmonics(L_MAX)(random_units(20))
    for l in range(L_MAX + 1):
        norms = values[:, degree_slice(l)].square().sum(dim=1)
        assert torch.allclose(norms, torch.full_like(norms, 2 * l + 1.0), atol=1e-12)


@pytest.mark.parametrize("l", range(L_MAX + 1))
def test_parity_is_minus_one_to_the_l(l: int) -> None:
    units, harmonics = random_units(5), CartesianHarmonics(L_MAX)
    there, back = harmonics(units)[:, degree_slice(l)], harmonics(-units)[:, degree_slice(l)]
    assert torch.equal(back, (-1) ** l * there)


@pytest.mark.parametrize("l", range(L_MAX + 1))
def test_addition_theorem(l: int) -> None:
    """Y_l(n) . Y_l(n') = (2l + 1) P_l(n . n')."""
    units = random_units(8)
    values = cartesian.harmonics(units, l)
    cosines = (units @ units.T).numpy()
    expected = (2 * l + 1) * eval_legendre(l, cosines)
    assert np.allclose((values @ values.T).numpy(), expected, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("l", range(L_MAX + 1))
@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["rotation", "rotoinversion"])
def test_harmonics_turn_with_their_vector(l: int, sign: float) -> None:
    rotation = sign * torch.tensor(Rotation.random(rng=np.random.default_rng(l)).as_matrix())
    units = random_units(5)
    after = cartesian.harmonics(units @ rotation.T, l)
    expected = cartesian.harmonics(units, l) @ cartesian.rotation_matrix(rotation, l).T
    assert torch.allclose(after, expected, rtol=0.0, atol=1e-12)


def test_all_derivatives_are_finite_on_the_axes() -> None:
    pole = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64, requires_grad=True)

    def harmonics(vector: torch.Tensor) -> torch.Tensor:
        return cartesian.harmonics(vector, 3)

    assert torch.autograd.gradcheck(harmonics, pole)
    assert torch.autograd.gradgradcheck(harmonics, pole)


def test_solid_harmonics_grow_with_the_power_of_the_length() -> None:
    units = random_units(4)
    for l in range(L_MAX + 1):
        grown = cartesian.harmonics(2.0 * units, l)
        assert torch.allclose(grown, 2.0**l * cartesian.harmonics(units, l), atol=1e-12)


def test_no_edges_are_fine() -> None:
    assert CartesianHarmonics(2)(torch.zeros(0, 3, dtype=torch.float64)).shape == (0, 9)
