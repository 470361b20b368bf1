"""A list with a skin gives the graph of a fresh list, whatever has moved meanwhile."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from tace_al.core.errors import StructureError
from tace_al.data.graph import AtomicGraph, batch_graphs, graph_from_atoms
from tace_al.data.neighbour_skin import NeighbourSkin
from tace_al.model.tace import Tace

CUTOFF = 4.0


def rows(graph: AtomicGraph) -> np.ndarray:
    """Return sorted rows (receiver, sender, shift, vector)."""
    columns = [graph.receiver[:, None], graph.sender[:, None], graph.shift, graph.edge_vectors()]
    table = torch.cat([column.double() for column in columns], dim=1).numpy()
    keys = np.round(table, 6) + 0.0
    return table[np.lexsort(keys.T[::-1])]


def assert_same_graph(graph: AtomicGraph, frames: list[Atoms], cutoff: float = CUTOFF) -> None:
    fresh = batch_graphs([graph_from_atoms(atoms, cutoff) for atoms in frames])
    assert torch.equal(graph.numbers, fresh.numbers)
    assert torch.equal(graph.positions, fresh.positions)
    assert torch.equal(graph.system_index, fresh.system_index)
    assert torch.equal(graph.pbc, fresh.pbc)
    assert torch.equal(graph.cells, fresh.cells)
    assert torch.allclose(graph.volumes, fresh.volumes, rtol=1e-12, equal_nan=True)
    assert graph.sender.shape == fresh.sender.shape
    assert np.allclose(rows(graph), rows(fresh), atol=1e-9)
    assert bool((graph.receiver.diff() >= 0).all())


def skewed() -> Atoms:
    rng = np.random.default_rng(3)
    cell = np.array([[3.1, 0.0, 0.0], [2.9, 2.2, 0.0], [-1.7, 1.9, 4.0]])
    return Atoms("CuAuPt", positions=rng.uniform(-6, 6, size=(3, 3)), cell=cell, pbc=True)


def slab() -> Atoms:
    atoms = fcc111("Cu", (2, 2, 2), vacuum=4.0)
    atoms.pbc = (True, True, False)
    return atoms


def wire() -> Atoms:
    atoms = Atoms("AlAl", positions=[[0, 0, 0], [0.3, 0.2, 1.4]], pbc=[False, False, True])
    atoms.cell = [[0, 0, 0], [0, 0, 0], [0, 0.4, 2.8]]
    return atoms


STRUCTURES = {
    "molecule": lambda: molecule("C6H6"),
    "one atom": lambda: bulk("Cu"),
    "skewed": skewed,
    "slab": slab,
    "wire": wire,
    "crystal": lambda: bulk("NaCl", "rocksalt", a=5.6, cubic=True),
}


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("thickness", [0.0, 0.4])
def test_moving_atoms_have_the_edges_of_a_fresh_list(name: str, thickness: float) -> None:
    atoms = STRUCTURES[name]()
    rng = np.random.default_rng(1)
    skin = NeighbourSkin(CUTOFF, thickness)
    velocities = rng.normal(0.0, 0.03, (len(atoms), 3))
    for _ in range(30):
        atoms.positions += velocities + rng.normal(0.0, 0.01, (len(atoms), 3))
        assert_same_graph(skin.graph([atoms]), [atoms])
    assert skin.num_lists == 30 if thickness == 0.0 else 1 < skin.num_lists < 20


@pytest.mark.parametrize("name", ["one atom", "skewed", "slab", "wire", "crystal"])
def test_cells_that_breathe_and_shear_keep_their_lists_while_they_may(name: str) -> None:
    atoms = STRUCTURES[name]()
    rng = np.random.default_rng(2)
    skin = NeighbourSkin(CUTOFF, 0.6)
    rate = rng.normal(0.0, 0.002, (3, 3))
    for step in range(30):
        if step % 3:
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + rate), scale_atoms=True)
        atoms.positions += rng.normal(0.0, 0.005, (len(atoms), 3))
        assert_same_graph(skin.graph([atoms]), [atoms])
    assert skin.num_lists < 10


def test_a_squeezed_cell_brings_pairs_from_outside_the_list() -> None:
    atoms = bulk("Cu", a=4.2 * np.sqrt(2.0))  # nearest neighbours at 4.2 A
    skin = NeighbourSkin(CUTOFF, 0.1)
    assert skin.graph([atoms]).sender.shape == (0,)
    atoms.set_cell(atoms.cell.array * 0.94, scale_atoms=True)
    assert skin.graph([atoms]).sender.shape == (12,)


def test_energies_are_those_of_fresh_lists_while_atoms_cross_the_cutoff() -> None:
    model = Tace.from_preset("tiny", elements=["O"], dtype="float64", seed=0)
    cutoff = model.config.cutoff
    atoms = Atoms("O3", positions=[[0, 0, 0], [1.3, 0, 0], [0, cutoff - 0.3, 0]])
    skin = NeighbourSkin(cutoff, 0.5)
    counts = []
    for _ in range(24):
        atoms.positions[2, 1] += 0.025
        graph = skin.graph([atoms])
        fresh = graph_from_atoms(atoms, cutoff)
        ours, theirs = model.evaluate(graph, ("forces",)), model.evaluate(fresh, ("forces",))
        assert float(ours.energy) == pytest.approx(float(theirs.energy), rel=1e-14)
        assert torch.allclose(ours["forces"], theirs["forces"], atol=1e-13, rtol=0.0)
        counts.append(graph.sender.shape[0])
    assert counts[0] == 6
    assert counts[-1] == 2
    assert skin.num_lists <= 3


def test_lists_of_a_batch_are_renewed_one_by_one() -> None:
    frames = [molecule("H2O"), bulk("Cu"), molecule("C6H6"), slab()]
    skin = NeighbourSkin(CUTOFF, 0.4)
    assert_same_graph(skin.graph(frames), frames)
    assert skin.num_lists == 4
    frames[2].positions[0] += 0.1
    assert_same_graph(skin.graph(frames), frames)
    assert skin.num_lists == 4
    frames[2].positions[0] += 0.1
    assert_same_graph(skin.graph(frames), frames)
    assert skin.num_lists == 5


def test_structures_with_names_keep_their_lists_when_others_leave() -> None:
    frames = [molecule("H2O"), molecule("H2O"), molecule("C6H6")]
    skin = NeighbourSkin(CUTOFF, 0.4)
    skin.graph(frames, keys=["a", "b", "c"])
    assert_same_graph(skin.graph(frames[1:], keys=["b", "c"]), frames[1:])
    assert_same_graph(skin.graph(frames[:0:-1], keys=["c", "b"]), frames[:0:-1])
    assert skin.num_lists == 3
    skin.graph(frames, keys=["a", "b", "c"])
    assert skin.num_lists == 4


def test_another_structure_under_the_same_name_is_noticed() -> None:
    skin = NeighbourSkin(CUTOFF, 0.4)
    water = molecule("H2O")
    sulfide = water.copy()
    sulfide.numbers[0] = 16
    crystal = water.copy()
    crystal.cell, crystal.pbc = [5.0, 5.0, 5.0], True
    for atoms in (water, sulfide, crystal, molecule("CH4"), crystal, water):
        assert_same_graph(skin.graph([atoms]), [atoms])
    assert skin.num_lists == 6


def test_the_same_pairs_are_the_same_tensors() -> None:
    atoms = molecule("H2O")
    skin = NeighbourSkin(CUTOFF)
    first = skin.graph([atoms])
    atoms.positions += 0.01
    second = skin.graph([atoms])
    assert second.sender is first.sender
    assert second.receiver is first.receiver
    assert not torch.equal(second.positions, first.positions)


def test_a_graph_stays_as_it_was_when_atoms_move_on() -> None:
    atoms = molecule("H2O")
    skin = NeighbourSkin(CUTOFF)
    graph = skin.graph([atoms])
    before = graph.edge_vectors()
    atoms.positions[0] += 0.05
    skin.graph([atoms])
    assert torch.equal(graph.edge_vectors(), before)


def test_conditions_are_read_at_every_call() -> None:
    frames = [molecule("H2O"), molecule("OH")]
    skin = NeighbourSkin(CUTOFF, conditions=("total_charge",))
    frames[1].info["total_charge"] = -1
    assert skin.graph(frames).conditions["total_charge"][1] == -1.0
    frames[1].info["total_charge"] = 1
    charges = skin.graph(frames).conditions["total_charge"]
    assert torch.isnan(charges[0])
    assert charges[1] == 1.0


@pytest.mark.parametrize(
    ("place", "message"), [(np.nan, "NaN or infinity"), (0.0, "cannot share a place")]
)
def test_what_a_fresh_list_refuses_is_refused(place: float, message: str) -> None:
    atoms = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.1]])
    skin = NeighbourSkin(CUTOFF, 0.5)
    skin.graph([atoms])
    atoms.positions[1, 2] = place
    with pytest.raises(StructureError, match=message):
        skin.graph([atoms])
    atoms.positions[1, 2] = 0.3
    assert_same_graph(skin.graph([atoms]), [atoms])


def test_a_list_needs_a_cutoff_and_no_negative_skin() -> None:
    with pytest.raises(ValueError, match="make no list"):
        NeighbourSkin(CUTOFF, -0.1)
    with pytest.raises(ValueError, match="make no list"):
        NeighbourSkin(0.0)
