"""The loss on errors one can sum by hand; absent labels count nothing and poison nothing."""

import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from tace_al.data.extxyz import ENERGY, FORCES, STRESS
from tace_al.data.graph import batch_graphs, graph_from_atoms
from tace_al.model.config import TaceConfig, TensorOutput
from tace_al.model.labelled_batch import join, labelled
from tace_al.model.loss import LossWeights, balanced, nearest_polarization, training_loss
from tace_al.model.outputs import TaceOutput

CONFIG = TaceConfig(elements=("H", "Cu"), cutoff=3.0)
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
        descriptors=torch.zeros(batch.graph.num_atoms, 1),
        tensors={
            "forces": torch.full((batch.graph.num_atoms, 3), force).double(),
            **({} if whole is None else {"stress": whole}),
        },
    )


def test_energies_count_per_atom_and_forces_per_component() -> None:
    batch = join([labelled(pair(), CONFIG)])
    loss = training_loss(output(batch, energy=[0.4], force=0.1), batch, WEIGHTS)
    assert loss.item() == pytest.approx(2.0 * 0.2**2 + 3.0 * 0.1**2)


def test_stress_counts_as_virial_per_atom() -> None:
    batch = join([labelled(crystal(), CONFIG)])
    loss = training_loss(output(batch, energy=[0.0], force=9.0, stress=0.01), batch, WEIGHTS)
    assert loss.item() == pytest.approx(5.0 * (0.01 * 3.6**3 / 4) ** 2)  # no force label: no 9.0


def test_absent_labels_count_nothing() -> None:
    batch = join([labelled(pair(), CONFIG), labelled(pair(with_labels=False), CONFIG)])
    loss = training_loss(output(batch, energy=[0.4, 77.0], force=0.1), batch, WEIGHTS)
    assert loss.item() == pytest.approx(2.0 * 0.2**2 + 3.0 * 0.1**2)


def test_no_label_at_all_is_a_loss_of_zero() -> None:
    batch = join([labelled(pair(with_labels=False), CONFIG)])
    assert training_loss(output(batch, energy=[1.0], force=1.0), batch, WEIGHTS).item() == 0.0


def test_masked_entries_send_no_nan_back() -> None:
    batch = join([labelled(pair(), CONFIG), labelled(crystal(), CONFIG)])
    guess = torch.tensor([0.1, 0.1], dtype=torch.float64, requires_grad=True)
    base = output(batch, energy=[0.0, 0.0], force=0.1)
    stress = torch.where(
        torch.isnan(batch.graph.volumes)[:, None, None], math.nan, guess.sum() * torch.eye(3)
    )
    mixed = TaceOutput(
        energy=guess,
        node_energy=base.node_energy,
        descriptors=base.descriptors,
        tensors={"forces": base.forces, "stress": stress},
    )
    training_loss(mixed, batch, WEIGHTS).backward()
    assert guess.grad is not None
    assert torch.isfinite(guess.grad).all()
    assert (guess.grad != 0).all()


def test_the_dipole_of_a_crystal_counts_to_the_nearest_equivalent() -> None:
    cell = np.array([[4.0, 0, 0], [1.0, 3.0, 0], [0, 0.5, 5.0]])
    crystal = Atoms("Cu", cell=cell, pbc=True)
    molecule = Atoms("Cu")
    graph = batch_graphs([graph_from_atoms(atoms, 3.0) for atoms in (crystal, molecule)])
    small = np.array([0.1, -0.2, 0.3])
    difference = torch.tensor(np.stack([small + [2, -1, 3] @ cell, small + np.array([4.0, 0, 0])]))
    nearest = nearest_polarization(difference, graph)
    assert np.allclose(nearest[0], small)
    assert torch.equal(nearest[1], difference[1])  # a molecule's dipole has one value


def test_any_output_counts_with_its_own_weight() -> None:
    config = TaceConfig(elements=("H",), outputs=(TensorOutput(name="magic", rank=1, per="atom"),))
    atoms = pair(with_labels=False)
    atoms.set_array("REF_magic", np.ones((2, 3)))
    batch = join([labelled(atoms, config), labelled(pair(with_labels=False), config)])
    assert batch.names == ("magic",)
    answer = TaceOutput(
        energy=torch.zeros(2).double(),
        node_energy=torch.zeros(4).double(),
        descriptors=torch.zeros(4, 1),
        tensors={"magic": torch.full((4, 3), 1.5).double()},
    )
    weights = LossWeights(others={"magic": 8.0})
    assert training_loss(answer, batch, weights).item() == pytest.approx(8.0 * 0.25)


def test_weights_that_are_not_given_follow_from_how_much_labels_vary() -> None:
    config = TaceConfig(
        elements=("H", "Cu"),
        outputs=(
            TensorOutput(name="magic", rank=1, per="atom"),
            TensorOutput(name="spell", rank=0),
            TensorOutput(name="given", rank=0),
        ),
    )
    rng = np.random.default_rng(0)
    parts = []
    for _ in range(200):
        atoms = pair()
        atoms.set_array(FORCES, rng.normal(scale=3.0, size=(2, 3)))
        atoms.set_array("REF_magic", rng.normal(loc=1.0, scale=0.5, size=(2, 3)))
        atoms.info |= {"REF_spell": 7.0, "REF_given": 1.0}
        parts.append(labelled(atoms, config))
    weights = balanced(LossWeights(forces=2.0, others={"given": 5.0}), parts)
    assert weights.of("magic") == pytest.approx(2.0 * 9.0 / 0.25, rel=0.15)
    # seven for two atoms, always: worth a tenth of itself, as a sum of two independent parts
    assert weights.of("spell") == pytest.approx(2.0 * 9.0 / (0.01 * 49.0 / 2.0), rel=0.1)
    assert weights.of("given") == 5.0
    assert (weights.energy, weights.forces) == (LossWeights().energy, 2.0)
