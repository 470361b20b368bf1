"""The spatial product basis: powers of the message taken point by point on the sphere.

    f(n) = sum_l m^l . Y_l(n),   B^q_l = (1/4 pi) integral Y_l(n) f_1(n) f_2(n) ... f_q(n) dn

(arXiv 2509.14961 v3, "Spatial TACE"; Gaunt products, arXiv 2401.10216). No coupling coefficients
appear: the message is evaluated on a quadrature of the sphere, multiplied pointwise, and
transformed back. f_1 is the message and f_2, f_3, ... are copies of it whose channels are mixed
degree by degree. B^q is a polynomial of degree q l_in on the sphere, so its parts up to l_out are
exact, and the layer exactly equivariant, when the quadrature integrates q l_in + l_out.

Per channel and degree there is one result an order (a Gaunt product adds all couplings with fixed
coefficients) where the spectral product has many; the mixed copies make up for part of it.
"""

import math
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tace_al.model import cartesian
from tace_al.model.linear import DegreeLinear, SpeciesGroups
from tace_al.model.sphere_quadrature import (
    SphereQuadrature,
    SphereRule,
    exact_grid,
    sphere_harmonics,
)


def sphere_transforms(
    quadrature: SphereQuadrature,
    *,
    l_in: int,
    l_out: int,
    correlation: int,
    equal_factors: bool = False,
) -> tuple[Float[np.ndarray, "points dim_in"], list[Float[np.ndarray, "dim_out points"]]]:
    """Return the matrix onto the sphere's points and those back, one for each order 2..correlation.

    A message of independent components of unit variance is of unit variance at every point, and so
    are the results of each order and degree, with factors that are independent or, on request, all
    the same. The resolution of the quadrature is not checked.
    """
    harmonics = sphere_harmonics(max(l_in, l_out), quadrature.directions)
    values = harmonics[:, : cartesian.num_components(l_in)]
    values = values / math.sqrt(values.shape[1])
    covariance = values @ values.T  # of f(n), f(n')
    back = (quadrature.weights[:, None] * harmonics)[:, : cartesian.num_components(l_out)].T
    transforms = []
    for order in range(2, correlation + 1):
        moments = _power_moments(covariance, order) if equal_factors else covariance**order
        variance = np.einsum("dp,pq,dq->d", back, moments, back, optimize=True)
        degrees = [variance[cartesian.degree_slice(l)] for l in range(l_out + 1)]
        scale = np.concatenate([np.full_like(part, part.mean()) for part in degrees])
        transforms.append(back / np.sqrt(scale)[:, None])
    return values, transforms


def _power_moments(covariance: np.ndarray, order: int) -> np.ndarray:
    """Return <f^q f'^q> of Gaussians of unit variance: sum_j j! (C(q, j) (q - j - 1)!!)^2 <f f'>^j.

    By pairing (Isserlis 1918): j of the factors f with factors f', the rest among themselves.
    """
    total = np.zeros_like(covariance)
    for j in range(order % 2, order + 1, 2):
        pairings = math.comb(order, j) * math.prod(range(order - j - 1, 0, -2))
        total = total + math.factorial(j) * pairings**2 * covariance**j
    return total


@final
class SpatialProduct(nn.Module):
    """Features of degree 0..l_out from messages of degree 0..l_in.

    Parameters
    ----------
    l_in, l_out
        Largest degrees of the message and of the result, l_out <= l_in.
    correlation
        Largest number of factors.
    channels, num_species
        Sizes.
    rule, grid
        Quadrature (see `tace_al.model.sphere_quadrature.exact_grid`); by default the smallest exact
        Gauss-Legendre grid. A `grid` too coarse to be exact is a ConfigError.
    channel_mixing
        Multiply by copies of the message whose channels are mixed, not by the message itself.
    """

    def __init__(
        self,
        *,
        l_in: int,
        l_out: int,
        correlation: int,
        channels: int,
        num_species: int,
        rule: SphereRule = "gauss-legendre",
        grid: tuple[int, int] | None = None,
        channel_mixing: bool = True,
    ) -> None:
        super().__init__()
        self.l_out, self.correlation, self.channels = l_out, correlation, channels
        quadrature = exact_grid(correlation * l_in + l_out, rule=rule, grid=grid)
        to_points, back = sphere_transforms(
            quadrature,
            l_in=l_in,
            l_out=l_out,
            correlation=correlation,
            equal_factors=not channel_mixing,
        )
        self.register_buffer("to_points", torch.tensor(to_points), persistent=False)
        self.to_points: Tensor
        for order, matrix in enumerate(back, start=2):
            self.register_buffer(f"from_points_{order}", torch.tensor(matrix), persistent=False)
        self.copies = (
            DegreeLinear(l_in, channels, (correlation - 1) * channels)
            if channel_mixing and correlation > 1
            else None
        )
        path_of_row = [
            order * (l_out + 1) + l
            for order in range(correlation)
            for l in range(l_out + 1)
            for _ in range(2 * l + 1)
        ]
        self.register_buffer("path_of_row", torch.tensor(path_of_row), persistent=False)
        self.path_of_row: Tensor
        num_paths = correlation * (l_out + 1)
        self.weight = nn.Parameter(torch.randn(num_species, num_paths, channels))
        self.linear = DegreeLinear(l_out, channels, channels)

    def forward(
        self, message: Float[Tensor, "atoms dim_in channels"], groups: SpeciesGroups
    ) -> Float[Tensor, "atoms dim_out channels"]:
        """Return the product features of atoms sorted by species."""
        dim_out = cartesian.num_components(self.l_out)
        factors = message
        if self.copies is not None:
            factors = torch.cat([message, self.copies(message)], dim=2)
        at_points = self.to_points @ factors  # (atoms, points, factors * channels)
        values = at_points.split(self.channels, dim=2)
        product = values[0]
        orders = [message[:, :dim_out]]
        for order in range(2, self.correlation + 1):
            product = product * (values[order - 1] if self.copies is not None else values[0])
            orders.append(self.get_buffer(f"from_points_{order}") @ product)
        basis = torch.cat(orders, dim=1)  # (atoms, orders * dim_out, channels)
        weight = self.weight / math.sqrt(self.correlation)
        weight = weight.index_select(0, groups.species).index_select(1, self.path_of_row)
        shape = (message.shape[0], self.correlation, dim_out, self.channels)
        return self.linear((basis * weight).reshape(shape).sum(dim=1))
