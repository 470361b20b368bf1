"""Radial functions: a Bessel basis under a smooth cutoff, and the network that weights each path.

    b_n(r) = sqrt(2/r_c) sin(n pi r / r_c) / r,   n = 1..num_bessel      (arXiv 2003.03123, eq. 7)
    f_c(r) = 1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2),  x = r/r_c   (ibid., eq. 8)

With p = 5, f_c and its first two derivatives vanish at the cutoff. The weight network has no biases
and SiLU(0) = 0, so its output vanishes with the same smoothness.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

SILU_GAIN = 1.6790
"""1 / rms of SiLU(x) for x ~ N(0, 1): keeps the variance through a layer."""

BASIS_GAIN = 4.0
"""1 / rms of the Bessel basis over the edges of small molecules at a 5 Angstrom cutoff. Without it
first messages are so weak that the higher orders of the product hardly take part at the start of
training; 8 was measured to be too much."""


def polynomial_cutoff(r: Tensor, cutoff: float | Tensor, power: int = 5) -> Tensor:
    """Return f_c(r): 1 at r = 0, 0 from the cutoff on, twice continuously differentiable.

    Parameters
    ----------
    r
        Distances in Angstrom, any shape.
    cutoff
        Angstrom; a number or a tensor of r's shape.
    power
        The exponent p.
    """
    x = r / cutoff
    envelope = 1.0 + x**power * (
        -(power + 1) * (power + 2) / 2 + x * (power * (power + 2) - x * (power * (power + 1) / 2))
    )
    return torch.where(x < 1.0, envelope, torch.zeros_like(envelope))


@final
class BesselBasis(nn.Module):
    """Bessel functions times the polynomial cutoff."""

    def __init__(self, num_functions: int, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        frequencies = torch.arange(1, num_functions + 1, dtype=torch.float64) * math.pi / cutoff
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.frequencies: Tensor

    def forward(
        self, r: Float[Tensor, " edges"], envelope: Float[Tensor, " edges"]
    ) -> Float[Tensor, "edges functions"]:
        """Return b_n(r) f_c(r) for distances in Angstrom and their envelope f_c(r)."""
        scaled = (math.sqrt(2.0 / self.cutoff) * envelope / r).unsqueeze(-1)
        return scaled * torch.sin(r.unsqueeze(-1) * self.frequencies)


@final
class RadialNetwork(nn.Module):
    """Bias-free multilayer perceptron from radial functions to one weight per path and channel."""

    def __init__(self, num_inputs: int, hidden: Sequence[int], num_outputs: int) -> None:
        super().__init__()
        widths = [num_inputs, *hidden, num_outputs]
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(fan_in, fan_out)) for fan_in, fan_out in pairwise(widths)
        )

    def forward(self, basis: Float[Tensor, "edges inputs"]) -> Float[Tensor, "edges outputs"]:
        """Return the weights; zero where every input is zero."""
        first, *others = self.weights
        hidden = basis @ (first * (BASIS_GAIN / math.sqrt(first.shape[0])))
        for weight in others:
            gain = SILU_GAIN / math.sqrt(weight.shape[0])
            hidden = nn.functional.silu(hidden) @ (weight * gain)
        return hidden
