"""Exponential moving average of a model's weights: the model that is validated and kept."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn


@final
class MovingAverage:
    """theta_avg <- d theta_avg + (1 - d) theta, with d warmed up as (1 + n) / (10 + n)."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self._parameters = list(parameters)
        self.average = [p.detach().clone() for p in self._parameters]

    def update(self) -> None:
        """Take in the present weights."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, [p.detach() for p in self._parameters], 1 - decay)

    def swap(self) -> None:
        """Exchange the model's weights with the average; call twice to undo."""
        with torch.no_grad():
            for parameter, average in zip(self._parameters, self.average, strict=True):
                held = parameter.detach().clone()
                parameter.copy_(average)
                average.copy_(held)

    def reset(self, values: list[Tensor]) -> None:
        """Set model and average to `values`."""
        with torch.no_grad():
            for parameter, average, value in zip(
                self._parameters, self.average, values, strict=True
            ):
                parameter.copy_(value)
                average.copy_(value)
