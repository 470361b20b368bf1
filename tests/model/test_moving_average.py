"""The averaged weights follow the weights, slowly, and change places without loss."""

import pytest
import torch
from torch import nn

from tace_al.model.moving_average import MovingAverage


def model_at(value: float) -> nn.Linear:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, value)
    return model


def test_it_converges_to_constant_weights() -> None:
    model = model_at(0.0)
    average = MovingAverage(list(model.parameters()), 0.9)
    nn.init.constant_(model.weight, 1.0)
    for _ in range(200):
        average.update()
    assert average.average[0].item() == pytest.approx(1.0, abs=1e-6)


def test_the_first_updates_forget_the_start() -> None:
    model = model_at(0.0)
    average = MovingAverage(list(model.parameters()), 0.999)
    nn.init.constant_(model.weight, 1.0)
    average.update()
    assert average.average[0].item() == pytest.approx(1 - 2 / 11)


def test_two_swaps_are_none() -> None:
    model = model_at(2.0)
    average = MovingAverage(list(model.parameters()), 0.9)
    nn.init.constant_(model.weight, 3.0)
    average.swap()
    assert model.weight.item() == 2.0
    average.swap()
    assert model.weight.item() == 3.0
    assert average.average[0].item() == 2.0


def test_reset_puts_both_back() -> None:
    model = model_at(2.0)
    average = MovingAverage(list(model.parameters()), 0.9)
    average.reset([torch.tensor([[7.0]])])
    assert model.weight.item() == average.average[0].item() == 7.0
