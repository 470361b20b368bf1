import numpy as np
import pytest
from ase.build import bulk, molecule

from tace_al.analysis.supercells import (
    ase_cell,
    crystal_lattice,
    default_mesh,
    default_supercell,
    displaced_supercells,
    heights,
)
from tace_al.core.errors import StructureError


def test_heights_are_distances_between_faces() -> None:
    lattice_constant = 3.6
    primitive = bulk("Cu", a=lattice_constant)
    # faces of the primitive cell of fcc are (111) planes
    np.testing.assert_allclose(heights(primitive), lattice_constant / np.sqrt(3.0))
    assert default_supercell(primitive) == (5, 5, 5)
    assert default_supercell(bulk("Cu", cubic=True)) == (3, 3, 3)
    assert all(number % 2 for number in default_mesh(primitive))


def test_symmetry_leaves_one_displacement_of_copper() -> None:
    copper = bulk("Cu", cubic=True)
    lattice = crystal_lattice(copper, (2, 2, 2))
    assert len(lattice.primitive) == 1 and len(lattice.supercell) == 32
    (frame,) = displaced_supercells(lattice, copper, displacement=0.01)
    moved = np.linalg.norm(frame.positions - ase_cell(lattice.supercell).positions, axis=1)
    np.testing.assert_allclose(np.sort(moved)[-2:], [0.0, 0.01], atol=1e-12)
    both = displaced_supercells(lattice, copper, displacement=0.01, both_ways=True)
    assert len(both) == 2


def test_supercells_inherit_the_conditions_of_their_atoms() -> None:
    oxide = bulk("NiO", "rocksalt", a=4.17)
    oxide.set_initial_magnetic_moments([1.7, 0.1])
    oxide.info["electronic_temperature"] = 300.0
    lattice = crystal_lattice(oxide, (2, 1, 1))
    frame = displaced_supercells(lattice, oxide, displacement=0.01)[0]
    moments = dict(
        zip(frame.get_chemical_symbols(), frame.get_initial_magnetic_moments(), strict=1)
    )
    assert moments == {"Ni": 1.7, "O": 0.1}
    assert frame.info["electronic_temperature"] == 300.0


def test_what_is_no_crystal_is_refused() -> None:
    with pytest.raises(StructureError, match="not periodic in three directions"):
        crystal_lattice(molecule("H2O"), (1, 1, 1))
    charged = bulk("Cu")
    charged.info["total_charge"] = 1
    with pytest.raises(StructureError, match="charge of 1"):
        crystal_lattice(charged, (1, 1, 1))
    with pytest.raises(StructureError, match="three whole numbers"):
        crystal_lattice(bulk("Cu"), (0, 1, 1))
