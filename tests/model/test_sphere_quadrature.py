"""Averages over the sphere: exact up to the degree stated, and not beyond."""

import numpy as np
import pytest
import torch

from tace_al.core.errors import ConfigError
from tace_al.model import cartesian
from tace_al.model.harmonics import CartesianHarmonics
from tace_al.model.sphere_quadrature import (
    SphereRule,
    exact_grid,
    product_grid,
    smallest_grid,
    sphere_harmonics,
)


def largest_error(directions: np.ndarray, weights: np.ndarray, degree: int) -> float:
    """Return the largest error of the averages of harmonics 1..degree, which all vanish."""
    means = weights @ sphere_harmonics(degree, directions)
    return float(np.abs(means[1:]).max())


@pytest.mark.parametrize("rule", ["gauss-legendre", "equal-angle"])
@pytest.mark.parametrize("degree", [0, 1, 2, 3, 5, 6, 7])
def test_the_smallest_grid_is_exact(rule: SphereRule, degree: int) -> None:
    quadrature = exact_grid(degree, rule=rule)
    assert quadrature.degree >= degree
    assert (quadrature.weights > 0).all()
    assert quadrature.weights.sum() == pytest.approx(1.0, abs=1e-14)
    assert np.allclose(np.linalg.norm(quadrature.directions, axis=1), 1.0, atol=1e-14)
    assert largest_error(quadrature.directions, quadrature.weights, max(degree, 1)) < (
        1e-13 if degree else np.inf
    )


@pytest.mark.parametrize("grid", [(3, 7), (4, 6)])
def test_one_latitude_or_longitude_less_is_not_exact(grid: tuple[int, int]) -> None:
    coarse = product_grid(*grid)
    assert smallest_grid(6) == (4, 7)
    assert coarse.degree == 5
    assert largest_error(coarse.directions, coarse.weights, 5) < 1e-13
    assert largest_error(coarse.directions, coarse.weights, 6) > 1e-2


def test_monomials_have_their_known_averages() -> None:
    """<x^2> = 1/3, <x^4> = 1/5, <x^2 y^2> = 1/15, <x^2 y^2 z^2> = 1/105."""
    quadrature = exact_grid(6)
    x, y, z = quadrature.directions.T
    for values, expected in ((x**2, 3), (z**4, 5), (x**2 * y**2, 15), (x**2 * y**2 * z**2, 105)):
        assert quadrature.weights @ values == pytest.approx(1 / expected, abs=1e-14)


def test_a_coarse_grid_is_refused_with_the_numbers_needed() -> None:
    with pytest.raises(ConfigError, match="at least 7 latitudes and 13 longitudes"):
        exact_grid(12, grid=(6, 13))
    with pytest.raises(ConfigError, match="at least 13 latitudes and 13 longitudes"):
        exact_grid(12, rule="equal-angle", grid=(14, 12))
    assert exact_grid(12, rule="equal-angle", grid=(14, 13)).degree == 12
    assert exact_grid(9, rule="equal-angle", grid=(10, 11)).degree == 9


def test_unknown_rules_and_empty_grids_are_refused() -> None:
    with pytest.raises((ConfigError, TypeError), match="lebedev"):
        exact_grid(2, rule="lebedev")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 1"):
        product_grid(0, 3)


def test_harmonics_are_those_of_the_network_and_orthonormal_in_the_mean() -> None:
    quadrature = exact_grid(8)
    values = sphere_harmonics(4, quadrature.directions)
    assert np.allclose(values.T @ (quadrature.weights[:, None] * values), np.eye(25), atol=1e-12)
    network = CartesianHarmonics(4).double()(torch.tensor(quadrature.directions)).numpy()
    assert np.allclose(values, network, atol=1e-12)
    assert values.shape[1] == cartesian.num_components(4)
