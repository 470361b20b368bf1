import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc100, molecule
from ase.constraints import FixAtoms
from scipy.spatial.distance import pdist

from tace_al.core.errors import StructureError
from tace_al.engines.sampling.band_path import (
    aligned,
    comparable_ends,
    given_path,
    interpolated_path,
)


def test_a_turned_copy_is_turned_back() -> None:
    atoms = molecule("CH3CH2OH")
    turned = atoms.copy()
    turned.rotate(77, (1, -2, 0.5))
    turned.positions += [1.0, 5.0, -3.0]
    assert np.allclose(comparable_ends(atoms, turned), atoms.positions, atol=1e-8)


def test_a_mirror_image_is_not_mirrored_back() -> None:
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.3, seed=1)
    mirrored = atoms.positions * [1, 1, -1]
    result = aligned(mirrored, atoms.positions)
    assert not np.allclose(result, atoms.positions, atol=0.1)
    assert np.allclose(pdist(result), pdist(mirrored))


def test_periodic_ends_are_joined_the_short_way() -> None:
    initial = Atoms("Cu", positions=[[0.5, 0, 0]], cell=[5, 5, 5], pbc=True)
    final = Atoms("Cu", positions=[[4.5, 0, 0]], cell=[5, 5, 5], pbc=True)
    assert comparable_ends(initial, final)[0, 0] == pytest.approx(-0.5)


def test_a_molecule_with_fixed_atoms_is_not_turned() -> None:
    atoms = molecule("CH3OH")
    atoms.set_constraint(FixAtoms(indices=[0]))
    turned = atoms.copy()
    turned.set_constraint()
    turned.rotate(90, "z")
    with pytest.raises(StructureError, match="fix the same atoms"):
        comparable_ends(atoms, turned)
    turned.set_constraint(FixAtoms(indices=[0]))
    assert np.array_equal(comparable_ends(atoms, turned), turned.positions)


def test_atoms_go_round_each_other() -> None:
    """Two hydrogens trade places on a line: a straight path takes them through each other."""
    initial = Atoms("OH2", positions=[[0, 0.6, 0], [-0.8, 0, 0], [0.8, 0.05, 0.0]])
    last = initial.positions[[0, 2, 1]]
    path = interpolated_path(initial, last, 9)
    closest = min(pdist(positions).min() for positions in path)
    straight = 0.5 * (path[0] + path[-1])
    assert closest > 0.5 > pdist(straight).min()
    assert np.array_equal(path[0], initial.positions)
    assert np.allclose(path[-1], last)


def test_a_surface_path_keeps_what_is_fixed_and_does_not_jump() -> None:
    slab = fcc100("Pt", (2, 2, 2), vacuum=6.0)
    slab.append("O")
    slab.positions[-1] = slab.positions[4] + [0.1, 0.0, 1.9]
    slab.set_constraint(FixAtoms(indices=range(8)))
    final = slab.copy()
    final.positions[-1, 0] += 0.9 * slab.cell[0, 0]  # the short way is backwards
    path = interpolated_path(slab, comparable_ends(slab, final), 6)
    assert np.array_equal(path[:, :8], np.tile(slab.positions[:8], (6, 1, 1)))
    steps = np.linalg.norm(np.diff(path, axis=0), axis=(1, 2))
    assert steps.sum() < 0.2 * slab.cell[0, 0]


def test_a_given_path_is_unwrapped_aligned_and_respaced() -> None:
    images = [
        Atoms("Cu", positions=[[x % 5.0, 0, 0]], cell=[5, 5, 5], pbc=True)
        for x in (4.0, 4.6, 5.4, 6.0)
    ]
    assert given_path(images, 4)[:, 0, 0] == pytest.approx([4.0, 4.6, 5.4, 6.0])
    assert given_path(images, 5)[:, 0, 0] == pytest.approx([4.0, 4.5, 5.0, 5.5, 6.0])


def test_other_periodicity_is_refused() -> None:
    with pytest.raises(StructureError, match="pbc"):
        comparable_ends(Atoms("Cu", cell=[5, 5, 5], pbc=True), Atoms("Cu", cell=[5, 5, 5]))
