"""Equivariant linear maps: channels mix, components of a tensor never do."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tace_al.model.cartesian import split_degrees


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeciesGroups:
    """Atoms sorted by species, so that a species-dependent map is one product a species.

    Parameters
    ----------
    species
        Species index of each atom, ascending.
    counts
        Atoms of each species.
    """

    species: Int[Tensor, " atoms"]
    counts: Sequence[int]


@final
class DegreeLinear(nn.Module):
    """One channel-mixing matrix a degree, shared by its 2l + 1 components."""

    def __init__(self, l_max: int, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(l_max + 1, channels_in, channels_out))

    def forward(
        self, features: Float[Tensor, "atoms components channels_in"]
    ) -> Float[Tensor, "atoms components channels_out"]:
        """Return the mixed features."""
        weight = self.weight / math.sqrt(self.weight.shape[1])
        degrees = zip(split_degrees(features), weight, strict=True)
        return torch.cat([degree @ matrix for degree, matrix in degrees], dim=1)


@final
class SpeciesLinear(nn.Module):
    """One channel-mixing matrix a species and degree (the residual connection)."""

    def __init__(
        self,
        l_max: int,
        channels: int,
        num_species: int,
        *,
        channels_out: int = 0,
        bias: bool = False,
    ) -> None:
        """Make matrices from `channels` to `channels_out`; 0 for as many out as in.

        `bias` adds a constant a species and channel in degree 0.
        """
        super().__init__()
        width = channels_out or channels
        self.weight = nn.Parameter(torch.randn(num_species, l_max + 1, channels, width))
        self.bias = nn.Parameter(torch.zeros(num_species, width)) if bias else None

    def forward(
        self, features: Float[Tensor, "atoms components_in channels"], groups: SpeciesGroups
    ) -> Float[Tensor, "atoms components channels_out"]:
        """Return the mixed features of atoms sorted by species; higher degrees are left out."""
        weight = self.weight / math.sqrt(self.weight.shape[-2])
        mixed = []
        for matrices, block in zip(weight, features.split(list(groups.counts)), strict=True):
            if block.shape[0]:
                degrees = zip(matrices, split_degrees(block), strict=False)
                mixed.append(torch.cat([degree @ matrix for matrix, degree in degrees], dim=1))
        result = torch.cat(mixed)
        if self.bias is None:
            return result
        constants = self.bias.index_select(0, groups.species).unsqueeze(1)
        return result + nn.functional.pad(constants, (0, 0, 0, result.shape[1] - 1))
