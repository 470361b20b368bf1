"""Site energies: an isolated atom is E0 exactly, a bonded one is not held back by the gate."""

import pytest
import torch

from tace_al.model.head import Head, lone_gate, smooth_gate
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
    scalars, gate = [torch.randn(2, 8), torch.randn(2, 8)], torch.ones(2)
    first = head(scalars, species, gate) - head.e0[species] - head.shift[species]
    head.scale.fill_(3.4)
    second = head(scalars, species, gate) - head.e0[species] - head.shift[species]
    assert torch.allclose(second, 2 * first, atol=1e-12)


def test_a_bond_opens_the_gate() -> None:
    bond = polynomial_cutoff(torch.tensor(2.0), 5.0)
    assert smooth_gate(bond.reshape(1)).item() == pytest.approx(1.0, abs=2e-4)
    assert smooth_gate(torch.zeros(1)).item() == 0.0


def test_the_lone_gate_is_shut_for_one_atom_without_images_only() -> None:
    system_index = torch.tensor([0, 1, 2, 2])  # a free atom, a one-atom crystal, two atoms apart
    coordination = torch.tensor([0.0, 3.0, 0.0, 0.0])
    assert lone_gate(coordination, system_index, 3).tolist() == [0.0, 1.0, 1.0, 1.0]


def test_total_energies_keep_their_digits_in_float32() -> None:
    head, species = make_head(), torch.tensor([1])
    quiet = [torch.zeros(1, 8), torch.zeros(1, 8)]
    energy = head(quiet, species, torch.ones(1))
    assert energy.dtype == torch.float64
    assert energy.item() == -2041.3 - 4.2
