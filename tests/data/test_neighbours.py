"""Every edge shorter than the cutoff, images included, as ASE's slower list finds them."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.neighborlist import primitive_neighbor_list

from tace_al.core.errors import StructureError
from tace_al.data.neighbours import neighbour_list


def edges(atoms: Atoms, cutoff: float) -> np.ndarray:
    """Return sorted rows (receiver, sender, vector) of our list."""
    sender, receiver, shift = neighbour_list(atoms, cutoff)
    vectors = atoms.positions[receiver] - atoms.positions[sender] + shift @ atoms.cell.array
    return sort_rows(np.column_stack([receiver, sender, vectors]))


def reference_edges(atoms: Atoms, cutoff: float) -> np.ndarray:
    """Return the same rows from ASE, whose vectors point from i to j."""
    i, j, vectors = primitive_neighbor_list(
        "ijD", atoms.pbc, atoms.cell.array, atoms.positions, cutoff, self_interaction=False
    )
    return sort_rows(np.column_stack([i, j, -vectors]))


def sort_rows(rows: np.ndarray) -> np.ndarray:
    keys = np.round(rows, 6) + 0.0
    return rows[np.lexsort(keys.T[::-1])]


def skewed_cell() -> Atoms:
    rng = np.random.default_rng(3)
    cell = np.array([[3.1, 0.0, 0.0], [2.9, 2.2, 0.0], [-1.7, 1.9, 4.0]])
    return Atoms("CuAuPt", positions=rng.uniform(-6, 6, size=(3, 3)), cell=cell, pbc=True)


def wire() -> Atoms:
    atoms = Atoms("AlAl", positions=[[0, 0, 0], [0.3, 0.2, 1.4]], pbc=[False, False, True])
    atoms.cell = [[0, 0, 0], [0, 0, 0], [0, 0.4, 2.8]]
    return atoms


def slab_with_short_vacuum() -> Atoms:
    slab = fcc111("Cu", (1, 1, 2), vacuum=1.0)  # images along z must not appear
    slab.pbc = (True, True, False)
    return slab


def far_outside() -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    atoms.positions += [[100.0, -31.0, 7.0], [-40.0, 0.0, 55.0]]
    return atoms


@pytest.mark.parametrize(
    "build",
    [
        lambda: molecule("C6H6"),
        lambda: bulk("Cu"),
        skewed_cell,
        wire,
        slab_with_short_vacuum,
        far_outside,
        lambda: fcc111("Pt", (2, 2, 3), vacuum=6.0),
    ],
    ids=["molecule", "one atom", "skewed", "wire", "slab", "far outside", "pt slab"],
)
@pytest.mark.parametrize("cutoff", [3.0, 6.5])
def test_edges_are_those_of_ase(build, cutoff: float) -> None:  # type: ignore[no-untyped-def]
    atoms = build()
    ours, theirs = edges(atoms, cutoff), reference_edges(atoms, cutoff)
    assert ours.shape == theirs.shape
    assert np.allclose(ours, theirs, atol=1e-9)


def test_edges_are_sorted_by_receiver_and_come_in_pairs() -> None:
    atoms = skewed_cell()
    sender, receiver, shift = neighbour_list(atoms, 5.0)
    assert np.all(np.diff(receiver) >= 0)
    there = set(zip(sender, receiver, map(tuple, shift), strict=True))
    back = set(zip(receiver, sender, map(tuple, -shift), strict=True))
    assert there == back


def test_a_cell_smaller_than_the_cutoff_sees_its_own_images() -> None:
    sender, receiver, _ = neighbour_list(bulk("Cu", a=3.6), 3.6 * 1.01)
    assert len(sender) == 12 + 6  # first and second neighbours in fcc
    assert not sender.any()
    assert not receiver.any()


def test_an_isolated_atom_has_no_edges() -> None:
    sender, receiver, shift = neighbour_list(Atoms("H"), 5.0)
    assert sender.shape == receiver.shape == (0,)
    assert shift.shape == (0, 3)


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms("H2", positions=[[0, 0, 0], [0, 0, np.nan]]), "NaN or infinity"),
        (Atoms("H2", positions=[[0, 0, 0], [0, 0, 1e-5]]), "cannot share a place"),
        (Atoms("H", pbc=True), "without a cell vector"),
        (Atoms("H", pbc=True, cell=[[1, 0, 0], [2, 0, 0], [0, 0, 1]]), "parallel"),
    ],
)
def test_a_structure_that_cannot_be_used_says_why(atoms: Atoms, message: str) -> None:
    with pytest.raises(StructureError, match=message):
        neighbour_list(atoms, 4.0)
