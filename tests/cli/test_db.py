"""`tace-al db`: what it prints, how it ends, what it leaves."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule

from tace_al.core.labels import Fidelity, Label
from tace_al.dispatch.label_file import write_label
from tace_al.store.embedded.launch import stop_server
from tace_al.store.store import Store


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A campaign of three labels, one of which has no file."""
    monkeypatch.delenv("TACE_AL_MONGO_URI", raising=False)
    folder = tmp_path / "water"
    fidelity = Fidelity(name="gfn2", code="tblite 0.8.0")
    with Store.open(folder) as store:
        store.start_campaign("water", {}, seed=0, code_version="0.1.0")
        store.add_fidelity(fidelity)
        for number in range(3):
            atoms = molecule("H2O")
            atoms.rattle(0.05, seed=number)
            key = store.add_structure(atoms, channel="c", origin={"kind": "seed"})
            forces = np.full((3, 3), float(number))
            label = Label(structure_key=key, fidelity_key=fidelity.key, energy=-1.0, forces=forces)
            store.add_label(label, fidelity_name="gfn2", role="train", generation=0)
            if number:
                write_label(folder / "labels" / f"{label.key}.npz", label)
        yield folder
    stop_server(folder / "db")


def test_check_finds_mends_and_ends_well(tace_al, campaign: Path) -> None:
    outcome = tace_al("db", "check", campaign)
    assert outcome.code == 2
    assert "label file" in outcome.out and "write it from the record" in outcome.out
    assert outcome.err.startswith("error: 1 things") and "--repair` mends 1" in outcome.err
    content = json.loads(tace_al("db", "check", campaign, "--json").out)
    assert [finding["problem"] for finding in content["findings"]] == ["label file"]
    outcome = tace_al("db", "check", campaign, "--repair")
    assert outcome.code == 0, outcome.err
    assert "1 findings repaired" in outcome.out
    outcome = tace_al("db", "check", campaign)
    assert outcome.code == 0 and "3 structures, 3 labels and 0 models checked" in outcome.out


def test_a_running_campaign_is_checked_and_not_repaired(tace_al, campaign: Path) -> None:
    import fcntl

    with (campaign / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "while the campaign runs" in tace_al("db", "check", campaign).out
        outcome = tace_al("db", "check", campaign, "--repair")
        assert outcome.code == 2 and "stop it before a repair" in outcome.err


def test_a_backup_comes_back_with_its_label_files(tace_al, campaign: Path, tmp_path: Path) -> None:
    archive, again = tmp_path / "water.zip", tmp_path / "again"
    outcome = tace_al("db", "backup", campaign, archive)
    assert outcome.code == 0 and "water.zip" in outcome.out, outcome.err
    assert tace_al("db", "backup", campaign, archive).code == 2, "never over an old one"
    try:
        outcome = tace_al("db", "restore", archive, again)
        assert outcome.code == 0, outcome.err
        assert "3 label files" in outcome.out
        assert tace_al("db", "check", again).code == 0
        outcome = tace_al("db", "restore", archive, again)
        assert outcome.code == 2 and "is not empty" in outcome.err
        labels = sorted(path.name for path in (again / "labels").iterdir())
        assert len(labels) == 3
        for path in (campaign / "labels").iterdir():
            assert (again / "labels" / path.name).read_bytes() == path.read_bytes()
    finally:
        stop_server(again / "db")


@pytest.mark.parametrize("command", ["check", "backup"])
def test_a_folder_without_a_campaign(tace_al, tmp_path: Path, command: str) -> None:
    extra = [tmp_path / "out.zip"] if command == "backup" else []
    outcome = tace_al("db", command, tmp_path, *extra)
    assert outcome.code == 2 and "holds no campaign" in outcome.err
    assert not any(tmp_path.iterdir())


def test_a_backup_into_a_folder_is_refused(tace_al, campaign: Path) -> None:
    outcome = tace_al("db", "backup", campaign, campaign)
    assert outcome.code == 2 and "is a folder; name a file" in outcome.err
