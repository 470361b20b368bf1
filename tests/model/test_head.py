"""Site energies: an isolated atom is E0 exactly, a bonded one is not held back by the gate."""

import math

import pytest
import torch

from tace_al.model.head import GATE_RATE, Head
from tace_al.model.radial import polynomial_cutoff


def make_head() -> Head:
    torch.manual_seed(0)
    head = Head(channels=[8, 8], num_species=2)
    head.e0.copy_(torch.tensor([-13.6, -2041.3], dtype=torch.float64))
    head.scale.fill_(1.7)
    head.shift.fill_(-4.2)
    return head


def test_without_neighbours_the_energy_is_e0_bit_for_bit() -> None:
    head, species = make_head(), torch.tensor([0, 1, 1])
    scalars = [torch.randn(3, 8), torch.randn(3, 8)]
    assert torch.equal(head(scalars, species, torch.zeros(3)), head.e0[species])


def test_scale_and_shift_act_on_the_interaction_only() -> None:
    head, species = make_head(), torch.tensor([0, 1])
    scalars, coordination = [torch.randn(2, 8), torch.randn(2, 8)], torch.full((2,), 5.0)
    first = head(scalars, species, coordination) - head.e0[species] - head.shift
    head.scale.fill_(3.4)
    second = head(scalars, species, coordination) - head.e0[species] - head.shift
    assert torch.allclose(second, 2 * first, atol=1e-12)


def test_a_bond_opens_the_gate() -> None:
    bond = polynomial_cutoff(torch.tensor(2.0), 5.0)
    assert 1 - math.exp(-GATE_RATE * bond.item()) == pytest.approx(1.0, abs=2e-4)


def test_total_energies_keep_their_digits_in_float32() -> None:
    head, species = make_head(), torch.tensor([1])
    quiet = [torch.zeros(1, 8), torch.zeros(1, 8)]
    energy = head(quiet, species, torch.tensor([100.0]))
    assert energy.dtype == torch.float64
    assert energy.item() == -2041.3 - 4.2
