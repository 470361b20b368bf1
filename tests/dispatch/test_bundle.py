"""A failed label leaves a folder from which it can be repeated."""

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import molecule

from tace_al.core.errors import LabelFailed
from tace_al.data.extxyz import read_structures
from tace_al.data.frames import CHARGE, structure_key
from tace_al.dispatch.bundle import bundle_folder, rerun_script
from tace_al.dispatch.label_file import LabelFailure, read_label, write_label
from tace_al.dispatch.tasks.label import stored_label
from tace_al.engines.labelling.catalogue import labeller_from_name


def failed_water(directory: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Atoms, LabelFailure]:
    """Label a charged water molecule with a labeller whose ladder fails too."""
    labeller = labeller_from_name("hf", {"basis": "sto-3g", "max_cycle": 1})
    monkeypatch.setattr(type(labeller), "retries", lambda self, kind: (labeller,))
    atoms = molecule("H2O")
    atoms.info[CHARGE] = 2
    outcome = stored_label(labeller, atoms, labels_dir=directory / "labels", force_ceiling=50.0)
    assert isinstance(outcome, LabelFailure)
    return atoms, outcome


def test_the_bundle_holds_structure_labeller_and_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Charge, options and every attempt are there, and the label file tells the same."""
    atoms, outcome = failed_water(tmp_path, monkeypatch)
    folder = bundle_folder(tmp_path, outcome.key)
    (kept,) = read_structures(folder / "structure.xyz")
    assert structure_key(kept) == structure_key(atoms)
    told = json.loads((folder / "failure.json").read_text())
    assert (told["kind"], told["attempts"]) == ("convergence", 2)
    spec = json.loads((folder / "labeller.json").read_text())
    assert spec["labeller"] == "hf"
    assert spec["options"] == {"basis": "sto-3g", "max_cycle": 1}
    rebuilt = labeller_from_name(spec["labeller"], spec["options"])
    assert rebuilt.fidelity.key == outcome.fidelity_key
    log = (folder / "log.txt").read_text()
    assert "Traceback" in log and "orbital gradient" in log and "attempt 2" in log
    assert read_label(tmp_path / "labels" / f"{outcome.key}.npz") == outcome


def test_the_script_repeats_the_failure_and_takes_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sh rerun.sh` is the campaign's command; with the true ladder it gets a label."""
    _, outcome = failed_water(tmp_path, monkeypatch)
    folder = bundle_folder(tmp_path, outcome.key)
    # a shell that knows no tace-al, and an option that the campaign set already
    environment = {**os.environ, "PATH": "/usr/bin:/bin"}
    command = ["sh", str(folder / "rerun.sh"), "--option", "max_cycle=60"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    (labelled,) = read_structures(folder / "labelled.xyz")
    assert "REF_energy" in labelled.info


def test_names_are_quoted_for_the_shell() -> None:
    """No option can become a command."""
    failure = LabelFailure(structure_key="s", fidelity_key="f", kind="crash", message="two\nlines")
    script = rerun_script(failure, labeller="x:Y", options={"a": "$(rm -r ~); 'b'", "c": True})
    command = script.splitlines()[-1].removeprefix("exec ")
    assert shlex.split(command)[4:9] == [
        "x:Y",
        "--option",
        "a=$(rm -r ~); 'b'",
        "--option",
        "c=true",
    ]
    assert sum("lines" in line for line in script.splitlines()) == 1


def test_old_label_files_of_failures_are_still_read(tmp_path: Path) -> None:
    """A failure without attempts and log, as earlier versions wrote it, has the defaults."""
    failure = LabelFailure(structure_key="s", fidelity_key="f", kind="parity", message="odd")
    write_label(tmp_path / "f.npz", failure)
    assert read_label(tmp_path / "f.npz") == failure
    assert LabelFailed("parity", "odd").attempts == failure.attempts == 1
