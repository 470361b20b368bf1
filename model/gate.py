"""The equivariant gate: a nonlinearity that keeps tensors tensors.

    s' = SiLU(s),   x'_l = sigmoid(W_l s) x_l     (l > 0)

(arXiv 1807.02547.) A degree l > 0 may only be multiplied by invariants without losing its
transformation law, so one learned invariant a channel and degree decides how much of it passes.
Both functions are scaled to keep unit variance.
"""

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tace_al.model.cartesian import split_degrees
from tace_al.model.radial import SILU_GAIN

SIGMOID_GAIN = 1.8462
"""1 / rms of sigmoid(x) for x ~ N(0, 1)."""


@final
class EquivariantGate(nn.Module):
    """Gated features of degree 0..l_max; with l_max = 0 it is SiLU alone and has no weights."""

    def __init__(self, l_max: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(l_max, channels, channels))

    def forward(
        self, features: Float[Tensor, "atoms components channels"]
    ) -> Float[Tensor, "atoms components channels"]:
        """Return the gated features, of the same shape."""
        scalars, *tensors = split_degrees(features)
        weight = self.weight / math.sqrt(features.shape[2])
        gated = [SILU_GAIN * nn.functional.silu(scalars)]
        for tensor, matrix in zip(tensors, weight, strict=True):
            gated.append(SIGMOID_GAIN * torch.sigmoid(scalars @ matrix) * tensor)
        return torch.cat(gated, dim=1)
