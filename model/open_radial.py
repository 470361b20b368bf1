"""Radial weights with the envelope outside: R(r) = f_c(r) q(b(r), Z_i, Z_j).

The networks of `tace_al.model.radial` read functions that vanish at the cutoff and have no biases,
so that what they say vanishes too. With the envelope outside, q may say anything: it has biases and
may read the species of both atoms beside the basis. Models of `tace-al import-tace` are made so.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tace_al.model.radial import BASIS_GAIN, SILU_GAIN, RadialBasis


@final
class OpenBasis(nn.Module):
    """Radial functions without the envelope up to the cutoff, and the envelope as the last one."""

    def __init__(self, basis: RadialBasis) -> None:
        super().__init__()
        self.basis = basis

    def forward(
        self, r: Float[Tensor, " edges"], envelope: Float[Tensor, " edges"]
    ) -> Float[Tensor, "edges functions"]:
        """Return b_n(r), zero from the cutoff on, and f_c(r)."""
        inside = (envelope > 0).to(envelope.dtype)
        return torch.cat([self.basis(r, inside), envelope.unsqueeze(-1)], dim=-1)


@final
class OpenRadialNetwork(nn.Module):
    """Multilayer perceptron from an `OpenBasis` to one weight per path and channel.

    With `num_species` learned numbers of receiver and sender are added in the first layer, and
    every hidden layer is normalised before its SiLU (layer norm).
    """

    def __init__(
        self, num_functions: int, hidden: Sequence[int], num_outputs: int, *, num_species: int = 0
    ) -> None:
        super().__init__()
        widths = [num_functions, *hidden, num_outputs]
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(fan_in, fan_out)) for fan_in, fan_out in pairwise(widths)
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(width)) for width in widths[1:])
        self.num_species = num_species
        if num_species:
            self.species = nn.Parameter(torch.randn(2, num_species, widths[1]))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in hidden if num_species)

    def forward(
        self,
        basis: Float[Tensor, "edges functions"],
        pairs: Int[Tensor, " edges"] | None = None,
    ) -> Float[Tensor, "edges outputs"]:
        """Return the weights; zero from the cutoff on.

        `pairs` (`tace_al.model.radial.species_pairs`) is needed by a network that knows species.
        """
        first, *others = self.weights
        hidden = basis[:, :-1] @ (first * (BASIS_GAIN / math.sqrt(first.shape[0])))
        hidden = hidden + self.biases[0]
        if self.num_species:
            assert pairs is not None, "a species-dependent radial network needs `pairs`"
            of_pairs = self.species[0].unsqueeze(1) + self.species[1]  # receiver, sender
            hidden = hidden + of_pairs.flatten(0, 1).index_select(0, pairs)
        for index, weight in enumerate(others):
            if self.num_species:
                hidden = self.norms[index](hidden)
            gain = SILU_GAIN / math.sqrt(weight.shape[0])
            hidden = nn.functional.silu(hidden) @ (weight * gain) + self.biases[index + 1]
        return hidden * basis[:, -1:]
