"""Forces of the phonopy example MgO against phonopy's own numbers for it; see data/README.md."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from tace_al.analysis.force_constants import from_forces
from tace_al.analysis.phonons import phonons, read_born
from tace_al.analysis.supercell_forces import (
    from_supercell_forces,
    match_supercells,
    supercell_of_frames,
)
from tace_al.analysis.supercells import crystal_lattice
from tace_al.core.errors import DataError
from tace_al.data.extxyz import read_structures

DATA = Path(__file__).parent / "data"
ALL = Path(os.environ.get("TACE_AL_DATA", "nowhere"))


def unit_cell(reference: dict) -> Atoms:
    """Return the unit cell of a reference."""
    return Atoms(
        reference["unitcell_symbols"],
        cell=reference["unitcell"],
        scaled_positions=reference["scaled_positions"],
        pbc=True,
    )


@pytest.fixture(scope="module")
def mgo() -> dict:
    """Return the unit cell, settings and frequencies of the example."""
    return json.loads((DATA / "phonopy_mgo.json").read_text())


@pytest.fixture(scope="module")
def frames() -> list[Atoms]:
    """Return its displaced supercells."""
    return read_structures(DATA / "phonopy_mgo.xyz.xz")


def test_reference_forces_give_reference_frequencies(mgo: dict, frames: list[Atoms]) -> None:
    lattice = crystal_lattice(unit_cell(mgo), mgo["supercell_matrix"])
    constants = from_supercell_forces(lattice, frames)
    found = phonons(
        lattice, constants, mesh=(8, 8, 8), q_points=mgo["qpoints"], temperatures=[300.0]
    )
    expected = mgo["frequencies_THz_no_NAC"]  # rounded to 1e-4
    np.testing.assert_allclose(found.q_frequencies.value, expected, atol=1e-4)
    assert found.thermal.free_energy.value[0] == pytest.approx(mgo["F_300K_kJ_mol"], abs=1e-4)
    assert found.thermal.entropy.value[0] == pytest.approx(mgo["S_300K"], abs=1e-4)
    assert found.thermal.heat_capacity.value[0] == pytest.approx(
        mgo["Cv_300K_J_per_K_mol"], abs=1e-4
    )


def test_order_and_images_of_atoms_do_not_matter(mgo: dict, frames: list[Atoms]) -> None:
    rng = np.random.default_rng(0)
    lattice = crystal_lattice(unit_cell(mgo), mgo["supercell_matrix"])
    plain = from_supercell_forces(lattice, frames).mean
    shuffled = []
    for frame in reversed(frames):
        other = frame[rng.permutation(len(frame))]
        other.positions += other.cell.array[1]
        shuffled.append(other)
    np.testing.assert_allclose(from_supercell_forces(lattice, shuffled).mean, plain, atol=1e-7)


def test_displacements_of_many_atoms_are_fitted(mgo: dict, frames: list[Atoms]) -> None:
    """Forces of a harmonic crystal on rattled atoms give its own force constants back."""
    lattice = crystal_lattice(unit_cell(mgo), mgo["supercell_matrix"])
    constants = from_supercell_forces(lattice, frames).mean
    wanted = phonons(lattice, from_supercell_forces(lattice, frames), mesh=(3, 3, 3))
    lattice.force_constants = constants
    full = lattice.force_constants  # compact: expand by the lattice's own translations
    rng = np.random.default_rng(1)
    from phonopy.harmonic.force_constants import compact_fc_to_full_fc

    full = compact_fc_to_full_fc(lattice.primitive, constants)
    rattled = []
    for _ in range(4):
        frame = frames[0].copy()
        frame.positions = lattice.supercell.positions
        shift = rng.normal(0.0, 0.01, frame.positions.shape)
        frame.positions += shift
        frame.arrays["REF_forces"] = -np.einsum("ijab,jb->ia", full, shift)
        rattled.append(frame)
    found = phonons(lattice, from_supercell_forces(lattice, rattled), mesh=(3, 3, 3))
    np.testing.assert_allclose(found.gamma.value, wanted.gamma.value, atol=2e-2)
    assert float(found.mesh_max.value) == pytest.approx(float(wanted.mesh_max.value), abs=2e-2)


def test_frames_of_other_crystals_are_passed_over(mgo: dict, frames: list[Atoms]) -> None:
    lattice = crystal_lattice(unit_cell(mgo), mgo["supercell_matrix"])
    stretched = frames[0].copy()
    stretched.set_cell(1.01 * stretched.cell.array, scale_atoms=True)
    found = match_supercells(lattice, [stretched, *frames])
    assert found.num_ignored == 1 and len(found.forces) == 2
    with pytest.raises(DataError, match="none of the 1 frames is a supercell"):
        match_supercells(lattice, [stretched])


def test_the_supercell_is_read_off_the_frames(mgo: dict, frames: list[Atoms]) -> None:
    cell = unit_cell(mgo)
    other = frames[0].copy()
    other.set_cell(other.cell.array * 1.02, scale_atoms=True)
    np.testing.assert_array_equal(supercell_of_frames(cell, [other, *frames]), 2 * np.eye(3))
    skewed = cell.copy()
    skewed.set_cell(np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1]]) @ cell.cell.array)
    matrix = supercell_of_frames(skewed, frames)
    np.testing.assert_allclose(matrix.T @ skewed.cell.array, frames[0].cell.array, atol=1e-6)
    assert len(crystal_lattice(skewed, matrix).supercell) == len(frames[0])
    with pytest.raises(DataError, match="whole cells"):
        supercell_of_frames(cell, [other])


def test_missing_displacements_are_named(mgo: dict, frames: list[Atoms]) -> None:
    lattice = crystal_lattice(unit_cell(mgo), mgo["supercell_matrix"])
    with pytest.raises(DataError, match=r"atom \d+ \(O\) and its equivalents span 0 of 3"):
        from_supercell_forces(lattice, frames[:1])
    bare = frames[0].copy()
    del bare.arrays["REF_forces"]
    with pytest.raises(DataError, match="has no forces"):
        from_supercell_forces(lattice, [bare])
    with pytest.raises(DataError, match="do not determine"):
        lattice.generate_displacements(distance=0.01)
        from_forces(lattice, np.zeros((1, 1, len(lattice.supercell), 3)))


@pytest.mark.skipif(not (ALL / "phonopy_reference.json").is_file(), reason="TACE_AL_DATA not set")
@pytest.mark.parametrize("name", ["NaCl", "Al2O3", "Si-gruneisen/orig"])
def test_published_examples(name: str, tmp_path: Path) -> None:
    """Al2O3's numbers, whatever their name says, hold the non-analytical correction."""
    reference = json.loads((ALL / "phonopy_reference.json").read_text())[name]
    lattice = crystal_lattice(unit_cell(reference), reference["supercell_matrix"])
    frames = read_structures(ALL / "phonopy_supercells_dev.xyz.xz")
    constants = from_supercell_forces(lattice, frames)
    if name == "Al2O3":
        born = tmp_path / "BORN"
        born.write_text(reference["BORN"])
        read_born(lattice, born)
    found = phonons(lattice, constants, mesh=(8, 8, 8), q_points=reference["qpoints"])
    expected = reference["frequencies_THz_no_NAC"]
    np.testing.assert_allclose(found.q_frequencies.value, expected, atol=1e-3)
