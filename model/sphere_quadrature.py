"""Quadrature of the unit sphere: exact averages of polynomials up to a known degree.

    (1/4 pi) integral f(n) dn = sum_p w_p f(n_p)

Product grids: every latitude carries the same equally spaced longitudes. N longitudes integrate
e^(i m phi) exactly for |m| < N; what is left is a polynomial in cos(theta), which Gauss-Legendre
latitudes integrate up to degree 2 N - 1 and equal-angle latitudes theta_k = (k + 1/2) pi / N up to
degree N - 1 with Fejer's weights (L. Fejer, Math. Z. 37, 287 (1933); J. Waldvogel, BIT 46, 195
(2006)). A grid below the degree asked for is refused: aliasing breaks rotational symmetry.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from tace_al.core.errors import ConfigError
from tace_al.model import cartesian

SphereRule = Literal["gauss-legendre", "equal-angle"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SphereQuadrature:
    """Points of the unit sphere and their weights.

    Parameters
    ----------
    directions
        (points, 3) unit vectors.
    weights
        (points,), positive, adding to 1.
    degree
        Largest polynomial degree whose average is exact.
    """

    directions: Float[np.ndarray, "points 3"]
    weights: Float[np.ndarray, " points"]
    degree: int


def smallest_grid(degree: int, rule: SphereRule = "gauss-legendre") -> tuple[int, int]:
    """Return the least (latitudes, longitudes) that integrate polynomials of a degree exactly.

    >>> smallest_grid(12)
    (7, 13)
    >>> smallest_grid(12, "equal-angle")
    (13, 13)
    """
    latitudes = degree // 2 + 1 if rule == "gauss-legendre" else degree + 1
    return latitudes, degree + 1


def product_grid(
    latitudes: int, longitudes: int, rule: SphereRule = "gauss-legendre"
) -> SphereQuadrature:
    """Return the grid of given numbers of latitudes and longitudes, both at least 1.

    Raises
    ------
    ConfigError
        The rule is unknown or a number is below 1.
    """
    if rule not in get_args(SphereRule):
        raise ConfigError(f"quadrature '{rule}' is not one of {', '.join(get_args(SphereRule))}")
    if latitudes < 1 or longitudes < 1:
        raise ConfigError(
            f"a sphere grid of {latitudes} latitudes and {longitudes} longitudes is empty; "
            "both numbers must be at least 1"
        )
    if rule == "gauss-legendre":
        height, weights = np.polynomial.legendre.leggauss(latitudes)
        weights = weights / 2.0
        degree = 2 * latitudes - 1
    else:
        height, weights = _fejer(latitudes)
        degree = latitudes - 1
    radius = np.sqrt(1.0 - height**2)
    angle = 2.0 * math.pi * np.arange(longitudes) / longitudes
    x, y = np.outer(radius, np.cos(angle)), np.outer(radius, np.sin(angle))
    z = np.repeat(height[:, None], longitudes, axis=1)
    return SphereQuadrature(
        directions=np.stack([x, y, z], axis=-1).reshape(-1, 3),
        weights=np.repeat(weights / longitudes, longitudes),
        degree=min(degree, longitudes - 1),
    )


def exact_grid(
    degree: int,
    *,
    rule: SphereRule = "gauss-legendre",
    grid: tuple[int, int] | None = None,
) -> SphereQuadrature:
    """Return a grid that integrates polynomials of a degree exactly.

    Parameters
    ----------
    degree
        Polynomial degree, at least 0.
    rule
        Where the latitudes lie.
    grid
        Numbers of latitudes and longitudes; the smallest sufficient ones when not given.

    Raises
    ------
    ConfigError
        The given grid is too coarse; the message names the numbers needed.
    """
    latitudes, longitudes = grid or smallest_grid(degree, rule)
    quadrature = product_grid(latitudes, longitudes, rule)
    if quadrature.degree < degree:
        needed = smallest_grid(degree, rule)
        raise ConfigError(
            f"a {rule} grid of {latitudes} latitudes x {longitudes} longitudes is exact up to "
            f"degree {quadrature.degree}, but degree {degree} occurs; use at least "
            f"{needed[0]} latitudes and {needed[1]} longitudes"
        )
    return quadrature


def sphere_harmonics(
    l_max: int, directions: Float[np.ndarray, "points 3"]
) -> Float[np.ndarray, "points components"]:
    """Return Y_l(n) of all degrees 0..l_max end to end, ||Y_l||^2 = 2l + 1."""
    degrees = []
    for l in range(l_max + 1):
        exponents = np.array(cartesian.monomial_exponents(l))
        monomials = np.prod(directions[:, None, :] ** exponents, axis=2)  # (points, monomials)
        degrees.append(monomials @ cartesian.harmonic_coefficients(l).T)
    return np.concatenate(degrees, axis=1)


def _fejer(latitudes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return cos(theta) of equal-angle latitudes and weights that add to 1."""
    theta = (np.arange(latitudes) + 0.5) * math.pi / latitudes
    order = np.arange(1, latitudes // 2 + 1)
    waves = np.cos(2.0 * np.outer(theta, order)) / (4.0 * order**2 - 1.0)
    return np.cos(theta), (1.0 - 2.0 * waves.sum(axis=1)) / latitudes
