"""Graphs: vectors point from sender to receiver, batches keep structures apart."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from tace_al.data.graph import batch_graphs, graph_from_atoms, split_graph


def test_vectors_point_from_sender_to_receiver() -> None:
    atoms = Atoms("HO", positions=[[0, 0, 0], [0, 0, 1.5]])
    graph = graph_from_atoms(atoms, 3.0)
    to_oxygen = int((graph.receiver == 1).nonzero().item())
    assert graph.sender[to_oxygen] == 0
    assert torch.equal(graph.edge_vectors()[to_oxygen], torch.tensor([0, 0, 1.5]).double())


def test_lengths_are_the_neighbour_shells_of_the_crystal() -> None:
    graph = graph_from_atoms(bulk("Cu", a=3.6), 4.0)
    lengths = graph.edge_vectors().norm(dim=1)
    shells = sorted({round(value, 9) for value in lengths.tolist()})
    assert shells == pytest.approx([3.6 / np.sqrt(2), 3.6])


def test_a_batch_is_its_structures_end_to_end() -> None:
    frames = [molecule("H2O"), bulk("Cu", a=3.6), Atoms("H")]
    graphs = [graph_from_atoms(atoms, 4.0) for atoms in frames]
    batch = batch_graphs(graphs)
    assert batch.num_atoms == 5
    assert batch.num_systems == 3
    assert batch.atom_counts().tolist() == [3, 1, 1]
    assert torch.equal(batch.edge_vectors(), torch.cat([g.edge_vectors() for g in graphs]))
    sender_system = batch.system_index[batch.sender]
    assert torch.equal(sender_system, batch.system_index[batch.receiver])
    assert batch_graphs([graphs[0]]) is graphs[0]


def test_only_three_periodic_directions_have_a_volume() -> None:
    copper = bulk("Cu", a=3.6)
    assert graph_from_atoms(copper, 3.0).volumes.item() == pytest.approx(3.6**3 / 4)
    copper.pbc = (True, True, False)
    assert torch.isnan(graph_from_atoms(copper, 3.0).volumes).all()
    assert torch.isnan(graph_from_atoms(molecule("H2O"), 3.0).volumes).all()


def test_the_structure_is_not_changed_and_not_shared() -> None:
    atoms = molecule("H2O")
    before = atoms.positions.copy()
    graph = graph_from_atoms(atoms, 4.0)
    atoms.positions += 1.0
    assert np.array_equal(graph.positions.numpy(), before)


def test_pieces_of_a_batch_are_its_structures() -> None:
    frames = [molecule("H2O"), bulk("Cu", a=3.6), Atoms("H"), molecule("C6H6")]
    for charge, atoms in enumerate(frames):
        atoms.info["total_charge"] = charge
        atoms.set_initial_charges(np.full(len(atoms), 0.5 * charge))
    names = ("total_charge", "initial_charges")
    batch = batch_graphs([graph_from_atoms(atoms, 4.0, names) for atoms in frames])
    assert [piece.num_systems for piece in split_graph(batch, 1)] == [1, 1, 1, 1]
    pieces = split_graph(batch, 24)  # 6 + 18, 0, 132 edges
    assert [piece.num_systems for piece in pieces] == [3, 1]
    for some in (pieces, split_graph(batch, 10**6)):
        again = batch_graphs(some)
        for name in (
            "numbers",
            "positions",
            "sender",
            "receiver",
            "shift",
            "system_index",
            "cells",
        ):
            assert torch.equal(getattr(again, name), getattr(batch, name)), name
        for name in names:
            assert torch.allclose(again.conditions[name], batch.conditions[name], equal_nan=True)
