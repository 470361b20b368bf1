"""A head: how one level of theory reads the shared features.

    E_i = E0[Z_i] + g_i (scale * sum_layers readout(h_i) + shift)

Each named head has its own E0 (eV, float64), scale (eV), shift (eV) and readouts: linear after
every layer but the last, a small SiLU network after the last. The gate, g_i = 1 - exp(-10 n_i) with
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

    def __init__(self, *, channels: Sequence[int], num_species: int) -> None:
        """Make an untrained head; `channels` are those of each layer."""
        super().__init__()
        self.linear = nn.ParameterList(
            nn.Parameter(READOUT_START * torch.randn(width, 1)) for width in channels[:-1]
        )
        self.hidden = nn.Parameter(torch.randn(channels[-1], READOUT_WIDTH))
        self.out = nn.Parameter(READOUT_START * torch.randn(READOUT_WIDTH, 1))
        self.register_buffer("e0", torch.zeros(num_species, dtype=torch.float64))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.register_buffer("shift", torch.zeros((), dtype=torch.float64))
        self.e0: Tensor
        self.scale: Tensor
        self.shift: Tensor

    def forward(
        self,
        layer_scalars: Sequence[Float[Tensor, "atoms channels"]],
        species: Int[Tensor, " atoms"],
        coordination: Float[Tensor, " atoms"],
    ) -> Float[Tensor, " atoms"]:
        """Return site energies in eV (float64) without ZBL.

        `coordination` is the sum of the cutoff function over the neighbours of each atom.
        """
        hidden = layer_scalars[-1] @ (self.hidden / math.sqrt(self.hidden.shape[0]))
        gain = SILU_GAIN / math.sqrt(READOUT_WIDTH)
        readout = nn.functional.silu(hidden) @ (self.out * gain)
        for scalars, weight in zip(layer_scalars[:-1], self.linear, strict=True):
            readout = readout + scalars @ (weight / math.sqrt(weight.shape[0]))
        gate = 1.0 - torch.exp(-GATE_RATE * coordination)
        interaction = self.scale * readout.squeeze(-1).double() + self.shift
        return self.e0.index_select(0, species) + gate.double() * interaction
