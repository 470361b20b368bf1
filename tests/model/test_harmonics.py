"""Harmonics: component norm, parity, and e3nn's values in the same order."""

import pytest
import torch
from e3nn import o3

from tace_al.model.cartesian import degree_slice
from tace_al.model.harmonics import CartesianHarmonics

L_MAX = 5


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


def test_no_edges_are_fine() -> None:
    assert CartesianHarmonics(2)(torch.zeros(0, 3, dtype=torch.float64)).shape == (0, 9)
