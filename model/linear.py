"""Equivariant linear maps: channels mix, components of a tensor never do.

Features may have a leading axis of members, whose weights have the same one: the plain network of a
committee is evaluated in one pass (`tace_al.model.committee`).
"""

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


def mix_channels(
    features: Float[Tensor, "*members atoms components channels_in"],
    matrix: Float[Tensor, "*members channels_in channels_out"],
) -> Float[Tensor, "*members atoms components channels_out"]:
    """Return every component's channels times the matrix, one matrix a member."""
    if matrix.dim() == 2:
        return features @ matrix
    rows = features.flatten(-3, -2) @ matrix  # one product a member, not one an atom
    return rows.unflatten(-2, features.shape[-3:-1])


@final
class DegreeLinear(nn.Module):
    """One channel-mixing matrix a degree, shared by its 2l + 1 components."""

    def __init__(self, l_max: int, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(l_max + 1, channels_in, channels_out))

    def forward(
        self, features: Float[Tensor, "*members atoms components channels_in"]
    ) -> Float[Tensor, "*members atoms components channels_out"]:
        """Return the mixed features."""
        weight = self.weight / math.sqrt(self.weight.shape[-2])
        degrees = zip(split_degrees(features), weight.unbind(-3), strict=True)
        return torch.cat([mix_channels(degree, matrix) for degree, matrix in degrees], dim=-2)


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
        self,
        features: Float[Tensor, "*members atoms components_in channels"],
        groups: SpeciesGroups,
    ) -> Float[Tensor, "*members atoms components channels_out"]:
        """Return the mixed features of atoms sorted by species; higher degrees are left out."""
        weight = self.weight / math.sqrt(self.weight.shape[-2])
        mixed = []
        blocks = features.split(list(groups.counts), dim=-3)
        for matrices, block in zip(weight.unbind(-4), blocks, strict=True):
            if block.shape[-3]:
                degrees = zip(matrices.unbind(-3), split_degrees(block), strict=False)
                mixed.append(torch.cat([mix_channels(x, matrix) for matrix, x in degrees], dim=-2))
        result = torch.cat(mixed, dim=-3)
        if self.bias is None:
            return result
        constants = self.bias.index_select(-2, groups.species).unsqueeze(-2)
        return result + nn.functional.pad(constants, (0, 0, 0, result.shape[-2] - 1))


def joined(
    updated: Float[Tensor, "*members atoms components channels"],
    carried: Float[Tensor, "*members atoms _ channels"],
) -> Float[Tensor, "*members atoms components channels"]:
    """Return the product's output plus the residual, which may lack the highest degrees."""
    missing = updated.shape[-2] - carried.shape[-2]
    if missing:
        carried = nn.functional.pad(carried, (0, 0, 0, missing))
    return (updated + carried) * math.sqrt(0.5)
