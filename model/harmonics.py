"""Packed Cartesian harmonics of edge directions, as polynomials of the unit vector."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tace_al.model import cartesian


@final
class CartesianHarmonics(nn.Module):
    """Y_l(n) for l = 0..l_max with ||Y_l||^2 = 2l + 1 (see `tace_al.model.cartesian`).

    Monomials of degree l are products of one of degree l - 1 with x, y or z; one small matrix per
    degree turns them into harmonics.
    """

    def __init__(self, l_max: int) -> None:
        super().__init__()
        self.l_max = l_max
        for l in range(1, l_max + 1):
            parents, axes = cartesian.monomial_steps(l)
            coefficients = torch.tensor(cartesian.harmonic_coefficients(l).copy())
            self.register_buffer(f"parents_{l}", torch.tensor(parents), persistent=False)
            self.register_buffer(f"axes_{l}", torch.tensor(axes), persistent=False)
            self.register_buffer(f"coefficients_{l}", coefficients, persistent=False)

    def forward(
        self, unit: Float[Tensor, "*members edges 3"]
    ) -> Float[Tensor, "*members edges components"]:
        """Return all degrees end to end, (edges, (l_max + 1)^2)."""
        monomials = torch.ones_like(unit[..., :1])
        degrees = [monomials]
        for l in range(1, self.l_max + 1):
            parents, axes = self.get_buffer(f"parents_{l}"), self.get_buffer(f"axes_{l}")
            monomials = monomials.index_select(-1, parents) * unit.index_select(-1, axes)
            degrees.append(monomials @ self.get_buffer(f"coefficients_{l}").T)
        return torch.cat(degrees, dim=-1)
