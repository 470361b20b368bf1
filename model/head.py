"""A head: how one level of theory reads the shared features.

    E_i = E0[Z_i] + g_i (scale[Z_i] * sum_layers readout(h_i) + shift[Z_i])

Each named head has its own E0 (eV, float64), scale (eV), shift (eV) and readouts: linear after
every layer but the last, a small SiLU network after the last. Training sets one scale and one shift
for all species. The gate, g_i = 1 - exp(-10 n_i) with
n_i = sum_j f_c(r_ij), is 1 for any bonded atom (1 - 1e-4 with one neighbour at 2 Angstrom and a
5 Angstrom cutoff) and 0 for an isolated one, whose energy is thereby exactly E0, however the rest
is trained.
"""

import math
from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tace_al.model.radial import SILU_GAIN

GATE_RATE = 10.0
READOUT_WIDTH = 16
READOUT_START = 0.2
"""An untrained model predicts little, instead of noise as large as the data: after 40 epochs of 36
small molecules force errors were 0.58 of their size with 0.1 and 1.05 with 1."""


@final
class Head(nn.Module):
    """Site energies of one level of theory."""

    def __init__(
        self, *, channels: Sequence[int], num_species: int, width: int = READOUT_WIDTH
    ) -> None:
        """Make an untrained head; `channels` are those of each layer."""
        super().__init__()
        self.linear = nn.ParameterList(
            nn.Parameter(READOUT_START * torch.randn(count, 1)) for count in channels[:-1]
        )
        self.hidden = nn.Parameter(torch.randn(channels[-1], width))
        self.out = nn.Parameter(READOUT_START * torch.randn(width, 1))
        self.register_buffer("e0", torch.zeros(num_species, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(num_species, dtype=torch.float64))
        self.register_buffer("shift", torch.zeros(num_species, dtype=torch.float64))
        self.e0: Tensor
        self.scale: Tensor
        self.shift: Tensor

    def forward(
        self,
        layer_scalars: Sequence[Float[Tensor, "*#members atoms _"]],
        species: Int[Tensor, " atoms"],
        gate: Float[Tensor, "*#members atoms"],
    ) -> Float[Tensor, "*#members atoms"]:
        """Return site energies in eV (float64) without ZBL; `gate` is g_i."""
        hidden = layer_scalars[-1] @ (self.hidden / math.sqrt(self.hidden.shape[-2]))
        gain = SILU_GAIN / math.sqrt(self.out.shape[-2])
        readout = nn.functional.silu(hidden) @ (self.out * gain)
        for scalars, weight in zip(layer_scalars[:-1], self.linear, strict=True):
            readout = readout + scalars @ (weight / math.sqrt(weight.shape[-2]))
        scale, shift = self.scale.index_select(-1, species), self.shift.index_select(-1, species)
        interaction = scale * readout.squeeze(-1).double() + shift
        return self.e0.index_select(-1, species) + gate.double() * interaction


def smooth_gate(coordination: Float[Tensor, "*members atoms"]) -> Float[Tensor, "*members atoms"]:
    """Return 1 - exp(-10 n_i) for n_i, the sum of the cutoff function over an atom's neighbours."""
    return 1.0 - torch.exp(-GATE_RATE * coordination)


def lone_gate(
    coordination: Float[Tensor, " atoms"], system_index: Int[Tensor, " atoms"], num_systems: int
) -> Float[Tensor, " atoms"]:
    """Return 0 for an atom alone in its structure and without images in reach, else 1.

    Unlike `smooth_gate` it leaves the shift to atoms far from all others in a larger structure.
    """
    counts = torch.bincount(system_index, minlength=num_systems).index_select(0, system_index)
    return ((counts > 1) | (coordination > 0)).to(coordination.dtype)
