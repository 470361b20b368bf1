import shutil
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write

from tace_al.data import extxyz as tace_al_extxyz
from tace_al.data.extxyz import read_labelled


@pytest.fixture
def argon(tmp_path):
    """Return a file of three argon dimers."""
    frames = [Atoms("Ar2", [[0, 0, 0], [0, 0, r]]) for r in (3.6, 3.8, 4.0)]
    path = tmp_path / "argon.xyz"
    write(path, frames, format="extxyz")
    return path


def test_labels_are_written_with_their_units_and_level(tace_al, argon, tmp_path) -> None:
    out = tmp_path / "labelled.xyz"
    outcome = tace_al("label", argon, "--labeller", "fake", "--out", out)
    assert outcome.code == 0, outcome.err
    frames = read_labelled(out)
    assert len(frames) == 3
    assert all(atoms.info["fidelity"] == "fake" for atoms in frames)
    energies = np.array([atoms.info["REF_energy"] for atoms in frames])
    pulls = np.array([atoms.arrays["REF_forces"][1, 2] for atoms in frames])
    middle = -(energies[2] - energies[0]) / 0.4
    assert pulls[1] == pytest.approx(middle, rel=0.2, abs=1e-3), "forces are -dE/dx"


def test_xtb_water_with_charge(tace_al, tmp_path) -> None:
    write(tmp_path / "water.xyz", molecule("H2O"), format="extxyz")
    out = tmp_path / "cation.xyz"
    arguments = ("label", tmp_path / "water.xyz", "--labeller", "gfn2", "--out", out)
    assert tace_al(*arguments, "--charge", 1).code == 0
    (cation,) = read_labelled(out)
    assert (cation.info["total_charge"], cation.info["spin_multiplicity"]) == (1, 2)
    assert tace_al(*arguments).code == 0
    (neutral,) = read_labelled(out)
    ionisation = cation.info["REF_energy"] - neutral.info["REF_energy"]
    assert 10.0 < ionisation < 20.0, "12.6 eV in experiment; GFN2 is some eV above"


def test_odd_electrons_with_a_singlet(tace_al, tmp_path) -> None:
    write(tmp_path / "oh.xyz", Atoms("OH", [[0, 0, 0], [0, 0, 0.97]]), format="extxyz")
    out = tmp_path / "out.xyz"
    arguments = ("label", tmp_path / "oh.xyz", "--labeller", "gfn2", "--out", out)
    outcome = tace_al(*arguments, "--multiplicity", 1)
    assert outcome.code == 2
    assert outcome.err.startswith("error: ") and "multiplicit" in outcome.err
    assert not out.exists()


def test_overlapping_atoms_are_named_and_the_rest_is_kept(tace_al, argon, tmp_path) -> None:
    mixed = tmp_path / "mixed.xyz"
    good = Atoms("Ar2", [[0, 0, 0], [0, 0, 3.8]])
    write(mixed, [good, Atoms("Ar2", [[0, 0, 0], [0, 0, 0.1]]), good], format="extxyz")
    out = tmp_path / "out.xyz"
    outcome = tace_al("label", mixed, "--labeller", "fake", "--out", out)
    assert outcome.code == 2
    assert "structure 1 (contact)" in outcome.err and f"other 2 labels are in {out}" in outcome.err
    assert len(read_labelled(out)) == 2


def test_periodic_without_a_cell(tace_al, tmp_path) -> None:
    atoms = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.5]])
    write(tmp_path / "cu.xyz", atoms, format="extxyz")
    text = (tmp_path / "cu.xyz").read_text().replace('pbc="F F F"', 'pbc="T T T"')
    (tmp_path / "cu.xyz").write_text(text)
    outcome = tace_al(
        "label", tmp_path / "cu.xyz", "--labeller", "emt", "--out", tmp_path / "o.xyz"
    )
    assert outcome.code == 2 and "cell" in outcome.err


def test_unknown_labeller_and_option_name_the_nearest(tace_al, argon, tmp_path) -> None:
    out = tmp_path / "out.xyz"
    outcome = tace_al("label", argon, "--labeller", "gnf2", "--out", out)
    assert outcome.code == 2 and "Did you mean 'gfn2'?" in outcome.err
    outcome = tace_al("label", argon, "--labeller", "gfn2", "--out", out, "--option", "acuracy=1")
    assert outcome.code == 2 and "Did you mean 'accuracy'?" in outcome.err


def test_a_labeller_that_is_not_installed(tace_al, argon, tmp_path) -> None:
    outcome = tace_al(
        "label", argon, "--labeller", "no_such_code.ase:Code", "--out", tmp_path / "out.xyz"
    )
    assert outcome.code == 2 and "no_such_code" in outcome.err and "install" in outcome.err


def test_missing_and_empty_files(tace_al, tmp_path) -> None:
    (tmp_path / "empty.xyz").touch()
    for name, word in (("none.xyz", "does not exist"), ("empty.xyz", "is empty")):
        outcome = tace_al(
            "label", tmp_path / name, "--labeller", "fake", "--out", tmp_path / "out.xyz"
        )
        assert outcome.code == 2 and word in outcome.err


def test_a_full_disk_is_found_before_the_work(tace_al, argon, tmp_path, monkeypatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("tace_al.core.atomic_write.shutil.disk_usage", lambda _: usage)
    out = tmp_path / "out.xyz"
    outcome = tace_al("label", argon, "--labeller", "fake", "--out", out)
    assert outcome.code == 2 and "free some space" in outcome.err and not out.exists()


def test_what_a_calculator_raises_is_one_sentence_and_a_log(tace_al, argon, tmp_path) -> None:
    """The rest is written, the traceback lies beside it."""
    module = (
        "from ase.calculators.lj import LennardJones\n"
        "class Picky(LennardJones):\n"
        "    def calculate(self, atoms, *others):\n"
        "        super().calculate(atoms, *others)\n"
        "        if atoms.get_distance(0, 1) > 3.9:\n"
        "            raise KeyError('stretched')\n"
    )
    (tmp_path / "picky_calculator.py").write_text(module)
    sys.path.insert(0, str(tmp_path))
    try:
        out = tmp_path / "out.xyz"
        outcome = tace_al("label", argon, "--labeller", "picky_calculator:Picky", "--out", out)
    finally:
        sys.path.remove(str(tmp_path))
    assert outcome.code == 2 and "structure 2 (crash)" in outcome.err
    assert "KeyError: 'stretched'" in outcome.err and len(read_labelled(out)) == 2
    log = (tmp_path / "out.xyz.log").read_text()
    assert str(tmp_path / "out.xyz.log") in outcome.err and "raise KeyError" in log


def test_labels_are_saved_on_the_way(tace_al, argon, tmp_path, monkeypatch) -> None:
    """What a killed process had is on the disk."""
    monkeypatch.setattr("tace_al.cli.label.SAVE_SECONDS", 0.0)
    saved = []
    write = tace_al_extxyz.write_structures

    def counted(path, frames) -> None:
        saved.append(len(frames))
        write(path, frames)

    monkeypatch.setattr(tace_al_extxyz, "write_structures", counted)
    arguments = ("--option", "depth=2.0", "--option", "depth=1.0")
    out = tmp_path / "out.xyz"
    assert tace_al("label", argon, "--labeller", "fake", "--out", out, *arguments).code == 0
    assert saved == [1, 2, 3, 3]
    energies = [atoms.info["REF_energy"] for atoms in read_labelled(out)]
    assert energies[0] > -1.0, "of an option given twice the last counts: a well of 1 eV, not 2"
