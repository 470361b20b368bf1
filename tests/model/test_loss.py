"""The loss on errors one can sum by hand; absent labels count nothing and poison nothing."""

import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from tace_al.data.extxyz import ENERGY, FORCES, STRESS
from tace_al.model.labelled_batch import join, labelled
from tace_al.model.loss import LossWeights, training_loss
from tace_al.model.tace import TaceOutput

WEIGHTS = LossWeights(energy=2.0, forces=3.0, stress=5.0)


def pair(*, with_labels: bool = True) -> Atoms:
    atoms = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.8]])
    if with_labels:
        atoms.info[ENERGY] = 0.0
        atoms.set_array(FORCES, np.zeros((2, 3)))
    return atoms


def crystal() -> Atoms:
    atoms = bulk("Cu", a=3.6)
    atoms.info[ENERGY] = 0.0
    atoms.info[STRESS] = np.zeros((3, 3))
    return atoms


def output(batch, *, energy: list[float], force: float, stress: float | None = None) -> TaceOutput:  # type: ignore[no-untyped-def]
    volumes = batch.graph.volumes[:, None, None]
    whole = None if stress is None else torch.where(volumes > 0, stress, math.nan).expand(-1, 3, 3)
    return TaceOutput(
        energy=torch.tensor(energy, dtype=torch.float64),
        node_energy=torch.zeros(batch.graph.num_atoms).double(),
        forces=torch.full((batch.graph.num_atoms, 3), force).double(),
        stress=whole,
        descriptors=torch.zeros(batch.graph.num_atoms, 1),
    )


def test_energies_count_per_atom_and_forces_per_component() -> None:
    batch = join([labelled(pair(), 3.0)])
    loss = training_loss(output(batch, energy=[0.4], force=0.1), batch, WEIGHTS)
    assert loss.item() == pytest.approx(2.0 * 0.2**2 + 3.0 * 0.1**2)


def test_stress_counts_as_virial_per_atom() -> None:
    batch = join([labelled(crystal(), 3.0)])
    loss = training_loss(output(batch, energy=[0.0], force=9.0, stress=0.01), batch, WEIGHTS)
    assert loss.item() == pytest.approx(5.0 * (0.01 * 3.6**3 / 4) ** 2)  # no force label: no 9.0


def test_absent_labels_count_nothing() -> None:
    batch = join([labelled(pair(), 3.0), labelled(pair(with_labels=False), 3.0)])
    loss = training_loss(output(batch, energy=[0.4, 77.0], force=0.1), batch, WEIGHTS)
    assert loss.item() == pytest.approx(2.0 * 0.2**2 + 3.0 * 0.1**2)


def test_no_label_at_all_is_a_loss_of_zero() -> None:
    batch = join([labelled(pair(with_labels=False), 3.0)])
    assert training_loss(output(batch, energy=[1.0], force=1.0), batch, WEIGHTS).item() == 0.0


def test_masked_entries_send_no_nan_back() -> None:
    batch = join([labelled(pair(), 3.0), labelled(crystal(), 3.0)])
    guess = torch.tensor([0.1, 0.1], dtype=torch.float64, requires_grad=True)
    base = output(batch, energy=[0.0, 0.0], force=0.1)
    stress = torch.where(
        torch.isnan(batch.graph.volumes)[:, None, None], math.nan, guess.sum() * torch.eye(3)
    )
    mixed = TaceOutput(
        energy=guess,
        node_energy=base.node_energy,
        forces=base.forces,
        stress=stress,
        descriptors=base.descriptors,
    )
    training_loss(mixed, batch, WEIGHTS).backward()
    assert guess.grad is not None
    assert torch.isfinite(guess.grad).all()
    assert (guess.grad != 0).all()
