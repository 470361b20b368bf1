"""Frame files give back every number bit for bit, and refuse what they cannot read."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc100, molecule
from ase.constraints import FixAtoms

from tace_al.core.errors import DataError
from tace_al.data import frames as frame_files
from tace_al.data.frames import bare_copy, fixed_mask, read_frames, structure_key, write_frames


def mixed_frames() -> list[Atoms]:
    rng = np.random.default_rng(0)
    water = molecule("H2O")
    water.info["REF_energy"] = -1.0 / 3.0
    water.set_array("REF_forces", rng.normal(size=(3, 3)))
    slab = fcc100("Pt", (2, 1, 2), vacuum=5.0)
    slab.set_constraint(FixAtoms(indices=[0, 1]))
    slab.info["REF_stress"] = rng.normal(size=(3, 3))
    slab.info["note"] = {"parents": ["a", "b"], "step": np.int64(4), "flag": np.bool_(True)}
    slab.set_velocities(rng.normal(size=(4, 3)))
    empty = Atoms()
    return [water, slab, molecule("CH4"), empty]


def test_frames_come_back_bit_for_bit(tmp_path: Path) -> None:
    frames = mixed_frames()
    write_frames(tmp_path / "frames.npz", frames)
    again = read_frames(tmp_path / "frames.npz")
    assert len(again) == len(frames)
    for before, after in zip(frames, again, strict=True):
        assert set(after.arrays) == set(before.arrays)
        for name, array in before.arrays.items():
            assert np.array_equal(after.arrays[name], array), name
        assert np.array_equal(after.cell.array, before.cell.array)
        assert np.array_equal(after.pbc, before.pbc)
        assert np.array_equal(fixed_mask(after), fixed_mask(before))
    assert again[0].info == frames[0].info
    assert np.array_equal(again[1].info["REF_stress"], frames[1].info["REF_stress"])
    assert again[1].info["note"] == {"parents": ["a", "b"], "step": 4, "flag": True}


def test_no_frames_are_a_file_too(tmp_path: Path) -> None:
    write_frames(tmp_path / "none.npz", [])
    assert read_frames(tmp_path / "none.npz") == []


@pytest.mark.parametrize("damage", ["missing", "truncated", "text", "other"])
def test_a_damaged_file_is_a_data_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "frames.npz"
    if damage == "truncated":
        write_frames(path, mixed_frames())
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "text":
        path.write_text("3\nnot a frame file\n")
    elif damage == "other":
        np.savez(path, counts=np.array([1]))
    with pytest.raises(DataError, match=r"frames\.npz is not a frame file"):
        read_frames(path)


def test_a_pickle_inside_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "frames.npz"
    np.savez(path, counts=np.array([{"payload": 1}], dtype=object))
    with pytest.raises(DataError, match="not a frame file"):
        read_frames(path)


def test_charge_and_multiplicity_default_to_the_lowest_that_fit() -> None:
    water, hydroxyl = molecule("H2O"), molecule("OH")
    assert (frame_files.total_charge(water), frame_files.spin_multiplicity(water)) == (0, 1)
    assert frame_files.spin_multiplicity(hydroxyl) == 2
    hydroxyl.info["total_charge"] = -1
    assert frame_files.spin_multiplicity(hydroxyl) == 1
    water.info["spin_multiplicity"] = 3
    assert frame_files.spin_multiplicity(water) == 3


def test_a_bare_copy_keeps_what_was_computed_and_drops_the_rest() -> None:
    slab = mixed_frames()[1]
    slab.info["total_charge"] = 1
    copy = bare_copy(slab)
    assert structure_key(copy) == structure_key(slab)
    assert np.array_equal(fixed_mask(copy), fixed_mask(slab))
    assert set(copy.arrays) == {"numbers", "positions"}
    assert set(copy.info) <= {"total_charge", "spin_multiplicity"}


def test_a_bare_copy_keeps_its_multiplicity() -> None:
    oxygen = molecule("O2")
    oxygen.info["spin_multiplicity"] = 3
    assert structure_key(bare_copy(oxygen)) == structure_key(oxygen)
    assert frame_files.spin_multiplicity(bare_copy(oxygen)) == 3
