import bz2
import gzip
import logging
import lzma
import os
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from tace_al.core.errors import DataError
from tace_al.data.extxyz import (
    LabelKeys,
    is_isolated_atom,
    normalised_labels,
    read_labelled,
    read_structures,
    write_structures,
)
from tace_al.data.frames import fixed_mask, spin_multiplicity, structure_key, total_charge

H2 = "2\n{comment}\nH 0.0 0.0 0.0 {a}\nH 0.0 0.0 0.75 {b}\n"


def h2(comment, *, forces=None):
    """Text of one H2 frame with the given comment entries and optionally a column of forces."""
    columns = "Properties=species:S:1:pos:R:3" + (f":{forces}:R:3" if forces else "")
    a, b = ("0.0 0.0 0.5", "0.0 0.0 -0.5") if forces else ("", "")
    return H2.format(comment=f"{columns} {comment}", a=a, b=b)


@pytest.fixture
def file(tmp_path):
    def write(*frames, name="labels.xyz"):
        path = tmp_path / name
        path.write_text("".join(frames))
        return path

    return write


# Reading and writing structures


@pytest.mark.parametrize("ending", [".xyz", ".xyz.xz", ".xyz.gz", ".xyz.bz2"])
def test_frames_survive_a_file_compressed_or_not(tmp_path, ending):
    rng = np.random.default_rng(0)
    slab = bulk("Cu", cubic=True)
    slab.positions += rng.normal(size=slab.positions.shape)
    slab.set_constraint(FixAtoms([0, 2]))
    ion = Atoms("OH", positions=rng.normal(size=(2, 3)))
    ion.info.update(total_charge=-1, channel="water", nothing=None, empty="")
    path = tmp_path / f"frames{ending}"
    write_structures(path, [slab, ion])
    slab_back, ion_back = read_structures(path)
    assert [structure_key(slab_back), structure_key(ion_back)] == [
        structure_key(slab),
        structure_key(ion),
    ]
    assert fixed_mask(slab_back).tolist() == [True, False, True, False]
    assert ion_back.info["channel"] == "water" and "nothing" not in ion_back.info
    assert list(tmp_path.iterdir()) == [path]
    magic = {".xz": lzma, ".gz": gzip, ".bz2": bz2}.get(path.suffix)
    if magic:
        assert magic.open(path, "rt").readline() == "4\n"


def test_labels_survive_a_file(tmp_path):
    atoms = bulk("Cu", cubic=True)
    atoms.info["REF_energy"] = -1.23456789012345
    atoms.info["REF_stress"] = np.diag([0.1, 0.2, 0.3]) + 0.01
    atoms.arrays["REF_forces"] = np.random.default_rng(0).normal(size=(4, 3))
    write_structures(tmp_path / "a.xyz", [atoms])
    (back,) = read_labelled(tmp_path / "a.xyz")
    assert back.info["REF_energy"] == atoms.info["REF_energy"]
    assert back.info["REF_stress"] == pytest.approx(atoms.info["REF_stress"], abs=1e-14)
    assert back.arrays["REF_forces"] == pytest.approx(atoms.arrays["REF_forces"], abs=1e-8)


def test_index_picks_frames_and_an_at_sign_belongs_to_the_name(file):
    frames = [h2(f"REF_energy={-number}.0") for number in range(6)]
    path = file(*frames, name="set@2.xyz")
    assert len(read_structures(path)) == 6
    assert len(read_structures(path, "::2")) == 3
    assert read_labelled(path, index=-1)[0].info["REF_energy"] == -5.0
    with pytest.raises(DataError):
        read_structures(path, 9)
    with pytest.raises(DataError, match="no frames at index '7:9'"):
        read_structures(path, "7:9")


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        (b"", "a.xyz", "is empty"),
        (b"hello\nworld\n", "a.xyz", "cannot be read"),
        (b"2\n\nH 0 0 0\n", "a.xyz", "cannot be read"),
        (b"1\n\nQq 0 0 0\n", "a.xyz", "cannot be read"),
        (b"1\n\nH 0 0 x\n", "a.xyz", "cannot be read"),
        (b"1\nstress=abc\nH 0 0 0\n", "a.xyz", "cannot be read"),
        (b"1\n\nH 0 0 nan\n", "a.xyz", "not finite"),
        (b"0\n\n", "a.xyz", "no atoms"),
        (b"garbage", "a.xyz.xz", "cannot be read"),
        (b"garbage", "a.xyz.gz", "cannot be read"),
        (b"garbage", "a.unheard-of", "cannot be read"),
        (bytes(range(256)), "a.xyz", "cannot be read"),
    ],
)
def test_damaged_files_are_refused_by_name(tmp_path, content, name, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        read_structures(tmp_path / name)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["labels.csv", "labels", "labels.db.xz", "labels.xz"])
def test_names_of_other_formats_are_refused(tmp_path, name):
    with pytest.raises(DataError, match="would hold extended XYZ"):
        write_structures(tmp_path / name, [molecule("H2O")])
    assert not list(tmp_path.iterdir())


def test_missing_files_folders_and_nothing_to_write_are_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_structures(tmp_path / "none.xyz")
    with pytest.raises(DataError, match="is a folder"):
        read_structures(tmp_path)
    with pytest.raises(DataError, match="no frames"):
        write_structures(tmp_path / "none.xyz", [])


def test_charge_and_multiplicity_get_one_name(file):
    path = file(
        h2("charge=1 multiplicity=2"), h2("total_charge=-1.0 spin=2"), h2("spin_multiplicity=3")
    )
    frames = read_structures(path)
    assert [total_charge(atoms) for atoms in frames] == [1, -1, 0]
    assert [spin_multiplicity(atoms) for atoms in frames] == [2, 2, 3]
    assert not {"charge", "multiplicity", "spin"} & set(frames[0].info) | set(frames[1].info) - {
        "total_charge",
        "spin_multiplicity",
    }


@pytest.mark.parametrize(
    ("comment", "words"),
    [
        ("charge=1 total_charge=0", "contradicts itself"),
        ("charge=0.5", "expected one integer"),
        ("charge=plus", "expected one integer"),
        ("charge", "expected one integer"),
        ('charge="0 1"', "expected one integer"),
        ("spin=0", "a singlet is 1"),
    ],
)
def test_senseless_charges_are_refused(file, comment, words):
    with pytest.raises(DataError, match=words):
        read_structures(file(h2("REF_energy=-1.0"), h2(comment)))


# Reading labels


def test_reference_keys_come_first_then_the_calculator(file, caplog):
    both = h2("energy=-1.0 REF_energy=-2.0", forces="forces")
    (atoms,) = read_labelled(file(both))
    assert atoms.info["REF_energy"] == -2.0
    with caplog.at_level(logging.INFO):
        (atoms,) = read_labelled(file(h2("energy=-1.0", forces="forces")))
    assert "energy taken from the calculator" in caplog.text
    assert atoms.info["REF_energy"] == -1.0
    assert atoms.arrays["REF_forces"][:, 2] == pytest.approx([0.5, -0.5])
    assert atoms.calc is None


def test_a_frame_without_the_reference_key_does_not_borrow_the_calculators(file):
    with pytest.raises(DataError, match=r"frame 1 .* has no energy under 'REF_energy'"):
        read_labelled(file(h2("REF_energy=-2.0"), h2("energy=-1.0")))
    path = file(h2("REF_energy=-2.0", forces="REF_forces"), h2("energy=-1.0", forces="REF_forces"))
    first, second = read_labelled(path)
    assert first.info["REF_energy"] == -2.0
    assert "REF_energy" not in second.info and "REF_forces" in second.arrays


def test_labels_from_two_places_are_told(file, caplog):
    read_labelled(file(h2("REF_energy=-2.0", forces="forces")))
    assert "may not be the same level of theory" in caplog.text


def test_named_keys_are_found_wherever_ase_puts_them(file):
    path = file(h2("energy=-1.0 REF_energy=-2.0 mp2=-3.0", forces="forces"))
    (atoms,) = read_labelled(path, LabelKeys(energy="mp2", forces="forces"))
    assert atoms.info["REF_energy"] == -3.0 and "REF_forces" in atoms.arrays
    (atoms,) = read_labelled(path, LabelKeys(energy="energy"))
    assert atoms.info["REF_energy"] == -1.0


def test_a_named_key_that_is_missing_says_where_and_what_there_is(file):
    path = file(h2("dft_energy=-1.0", forces="dft_forces"), h2("other=-1.0", forces="dft_forces"))
    with pytest.raises(DataError) as caught:
        read_labelled(path, LabelKeys(energy="dft_enrgy"))
    message = str(caught.value)
    for words in ("frame 0", "'dft_enrgy'", "--energy-key", "Did you mean 'dft_energy'?"):
        assert words in message
    with pytest.raises(DataError, match=r"frame 1 .* has no energy under 'dft_energy'"):
        read_labelled(path, LabelKeys(energy="dft_energy", forces="dft_forces"))
    with pytest.raises(DataError, match=r"no forces under 'forces'"):
        read_labelled(path, LabelKeys(energy="dft_energy", forces="forces"))
    with pytest.raises(DataError, match=r"no stress under 'sigma'"):
        read_labelled(path, LabelKeys(forces="dft_forces", stress="sigma"))


def test_forces_and_stress_may_be_missing_and_energy_beside_forces(file):
    path = file(
        h2("REF_energy=-1.0", forces="REF_forces"),
        h2("REF_energy=-1.0"),
        h2("x=1", forces="REF_forces"),
    )
    assert ["REF_forces" in atoms.arrays for atoms in read_labelled(path)] == [True, False, True]
    assert ["REF_energy" in atoms.info for atoms in read_labelled(path)] == [True, True, False]
    with pytest.raises(DataError, match="has no energy"):
        read_labelled(file(h2("x=1")))


SYMMETRIC = np.array([[1.0, 6.0, 5.0], [6.0, 2.0, 4.0], [5.0, 4.0, 3.0]]) * 1e-3


@pytest.mark.parametrize(
    "entry",
    [
        'REF_stress="1e-3 6e-3 5e-3 6e-3 2e-3 4e-3 5e-3 4e-3 3e-3"',
        'REF_stress="1e-3 2e-3 3e-3 4e-3 5e-3 6e-3"',
        'REF_stress="_JSON [[1e-3,6e-3,5e-3],[6e-3,2e-3,4e-3],[5e-3,4e-3,3e-3]]"',
        'stress="1e-3 6e-3 5e-3 6e-3 2e-3 4e-3 5e-3 4e-3 3e-3"',
    ],
)
def test_stress_in_any_form_becomes_a_symmetric_matrix(file, entry):
    lattice = 'Lattice="9 0 0 0 9 0 0 0 9" pbc="T T T"'
    (atoms,) = read_labelled(file(h2(f"{lattice} REF_energy=-1.0 {entry}")))
    assert atoms.info["REF_stress"] == pytest.approx(SYMMETRIC, abs=1e-15)
    (atoms,) = read_labelled(file(h2(f"REF_energy=-1.0 {entry}")))
    assert "REF_stress" not in atoms.info  # no cell, no volume, no stress


def test_voigt_order_is_that_of_ase():
    atoms = bulk("Cu", cubic=True)
    voigt = np.arange(1.0, 7.0)
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, stress=voigt)
    (labelled,) = normalised_labels([atoms], LabelKeys())
    assert labelled.info["REF_stress"] == pytest.approx(atoms.get_stress(voigt=False))
    assert atoms.calc is not None and "REF_energy" not in atoms.info  # the argument is untouched


@pytest.mark.parametrize(
    ("comment", "words"),
    [
        ("REF_energy=nan", r"frame 1 .*not finite"),
        ("REF_energy=-13.6eV", "expected numbers"),
        ("REF_energy", "expected numbers"),
        ('REF_energy="1 2"', "shape"),
        ('REF_energy=1 REF_stress="1 2 3" Lattice="9 0 0 0 9 0 0 0 9"', "shape"),
        ('REF_energy=1 REF_stress="1 2 3 0 5 6 7 8 9" Lattice="9 0 0 0 9 0 0 0 9"', "symmetric"),
    ],
)
def test_broken_labels_are_refused_by_frame(file, comment, words):
    with pytest.raises(DataError, match=words):
        read_labelled(file(h2("REF_energy=-1.0"), h2(comment)))


def test_broken_and_unbelievable_forces_are_refused():
    atoms = molecule("H2O")
    atoms.info["REF_energy"] = -1.0
    atoms.arrays["REF_forces"] = np.full((3, 3), 2e3)
    with pytest.raises(DataError, match="check the unit"):
        normalised_labels([atoms], LabelKeys())
    atoms.arrays["REF_forces"] = np.full((3, 3), np.nan)
    with pytest.raises(DataError, match="forces is not finite"):
        normalised_labels([atoms], LabelKeys())
    with pytest.raises(DataError, match="virial"):
        LabelKeys(stress="REF_virials")


def test_isolated_atoms_are_recognised():
    atom = Atoms("H")
    assert is_isolated_atom(atom)
    boxed = Atoms("H", cell=[20, 20, 20], pbc=True)
    assert not is_isolated_atom(boxed)
    for name in ("IsolatedAtom", "isolated_atom"):
        boxed.info["config_type"] = name
        assert is_isolated_atom(boxed)
    assert not is_isolated_atom(molecule("H2"))


@pytest.mark.slow
@pytest.mark.skipif("TACE_AL_DATA" not in os.environ, reason="TACE_AL_DATA names no folder")
def test_published_sets_read_whole():
    folder = Path(os.environ["TACE_AL_DATA"])
    train = read_labelled(folder / "acac_train_300K.xyz.xz")
    assert sum(map(is_isolated_atom, train)) == 3  # C, H, O
    assert all("REF_energy" in atoms.info and "REF_forces" in atoms.arrays for atoms in train)
    tungsten = read_labelled(folder / "MoNbTaW_train_sub.xyz.xz", index=":5")
    assert all(atoms.info["REF_stress"].shape == (3, 3) for atoms in tungsten)
    phonons = read_labelled(folder / "phonopy_supercells_dev.xyz.xz")
    assert all("REF_energy" not in atoms.info for atoms in phonons)
    assert total_charge(read_structures(folder / "zundel_H5O2+.xyz.xz", 0)[0]) == 1


def test_other_formats_are_read(tmp_path):
    ase.io.write(tmp_path / "POSCAR", bulk("Cu", cubic=True))
    assert len(read_structures(tmp_path / "POSCAR")[0]) == 4


def test_text_that_looks_like_a_number_stays_text(tmp_path: Path) -> None:
    atoms = Atoms("H")
    keys = {"a": "1" * 32, "b": "12e" + "3" * 29, "c": "0" * 31 + "1", "d": "1 2", "e": "x y"}
    atoms.info.update(keys, number=3, ratio=0.5)
    write_structures(tmp_path / "a.xyz", [atoms])
    (again,) = read_structures(tmp_path / "a.xyz")
    assert {name: again.info[name] for name in keys} == keys
    assert (again.info["number"], again.info["ratio"]) == (3, 0.5)


def test_exact_positions_come_back_to_the_last_bit(tmp_path: Path) -> None:
    frames = [bulk("Cu", "hcp", a=2.55, c=4.16) * (2, 1, 1), molecule("H2O")]
    for atoms in frames:
        atoms.rattle(0.1, seed=1)
        atoms.set_constraint(FixAtoms([1]))
    write_structures(tmp_path / "exact.xyz", frames, exact=True)
    for atoms, found in zip(frames, read_structures(tmp_path / "exact.xyz", ":"), strict=True):
        np.testing.assert_array_equal(found.positions, atoms.positions)
        assert found.constraints[0].index.tolist() == [1]
