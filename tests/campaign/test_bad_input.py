"""Bad input through the command line: one clear sentence, a non-zero exit, nothing lost."""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write

from tace_al.store.store import Store
from tace_al.workflows.reactions import ammonia_inversion


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)


def check_sentence(outcome: Any, *words: str) -> None:
    """Check that a command ended with one line on what is wrong."""
    assert outcome.code == 2, outcome
    *before, last = outcome.err.splitlines()
    assert last.startswith("error: ")
    assert all(line.startswith("WARNING ") for line in before), outcome.err
    for word in words:
        assert word in last, last


def end_states(initial: Atoms, final: Atoms | None = None, suffix: str = "xyz") -> list[str]:
    """Write two end states; return the settings that name them."""
    settings = []
    for name, atoms in (("initial", initial), ("final", final or initial)):
        write(f"{name}.{suffix}", atoms)
        settings += ["--set", f"{name}={name}.{suffix}"]
    return settings


def periodic_without_a_cell() -> list[str]:
    settings = end_states(molecule("NH3"))
    text = Path("initial.xyz").read_text().replace('pbc="F F F"', 'pbc="T T T"')
    for name in ("initial", "final"):
        Path(f"{name}.xyz").write_text(text)
    return settings


def flat_cell() -> list[str]:
    slab = bulk("Pt", cubic=True)
    slab.cell[2] = slab.cell[1]
    return end_states(slab)


def overlapping() -> list[str]:
    atoms = molecule("NH3")
    atoms.positions[1] = atoms.positions[2] + 0.1
    return end_states(atoms)


def odd_electrons() -> list[str]:
    return [*end_states(molecule("OH")), "--set", "multiplicity=1"]


def other_atoms() -> list[str]:
    return end_states(molecule("NH3"), molecule("H2O"))


def missing_file() -> list[str]:
    return ["--set", "initial=nowhere.xyz", "--set", "final=nowhere.xyz"]


def one_end_only() -> list[str]:
    return end_states(molecule("NH3"))[:2]


def atom_that_is_not_there() -> list[str]:
    return [*end_states(molecule("NH3")), "--set", "fixed=9"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (periodic_without_a_cell, ("periodic", "give it a cell")),
        (flat_cell, ("periodic", "give it a cell")),
        (overlapping, ("overlap", "move them apart")),
        (odd_electrons, ("cannot have multiplicity 1", "use one of 2")),
        (other_atoms, ("differ in atoms",)),
        (missing_file, ("nowhere.xyz",)),
        (one_end_only, ("give both end states",)),
        (atom_that_is_not_there, ("fixed names atom 9", "numbered 0 to 3")),
    ],
)
def test_end_states_that_cannot_be_used(
    tace_al: Callable[..., Any], settings: Callable[[], list[str]], words: tuple[str, ...]
) -> None:
    outcome = tace_al("run", "catalysis", "--dir", "run", "--machine", "threads", *settings())
    check_sentence(outcome, *words)
    assert not Path("run/labels").exists() and not Path("run/results").exists()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("max_label=5", "Did you mean 'max_labels'?"),
        ("stopping.max_label=5", "Did you mean 'max_labels'?"),
        ("reaction=carbonic_acd", "Did you mean 'carbonic_acid'?"),
        ("labeller=gfn3", "Did you mean 'gfn"),
        ("labeller.options.acuracy=1", "Did you mean 'accuracy'?"),
        ("max_labels=many", "integer"),
        ("machine=locl", "Did you mean 'local'?"),
        ("machine=slurm", "slurm"),
    ],
)
def test_options_that_cannot_be_used(tace_al: Callable[..., Any], setting: str, words: str) -> None:
    check_sentence(tace_al("run", "catalysis", "--set", setting), words)


@pytest.mark.slow
def test_a_database_that_does_not_answer(tace_al: Callable[..., Any]) -> None:
    uri = "mongodb://ann:s3cret@127.0.0.1:9/campaigns?serverSelectionTimeoutMS=200"
    outcome = tace_al("run", "catalysis", "--dir", "run", "--db", uri)
    check_sentence(outcome, "no database answers", "mongodb://ann:***@127.0.0.1:9", "--db")
    assert "s3cret" not in outcome.out + outcome.err
    assert not Path("run/labels").exists()


@pytest.fixture
def campaign_file(tiny_campaign: Any) -> Callable[..., Path]:
    """Return a function that writes a tiny campaign to a file."""

    def write_campaign(**parts: Any) -> Path:
        fast = {"model": {"first_epochs": 5, "epochs": 3}, "stopping": {"max_generations": 1}}
        path = Path("campaign.yaml")
        path.write_text(tiny_campaign(**{**fast, **parts}).to_yaml())
        return path

    return write_campaign


@pytest.mark.slow
def test_an_ase_calculator_that_is_not_installed(
    tace_al: Callable[..., Any], campaign_file: Callable[..., Path]
) -> None:
    path = campaign_file(labeller={"name": "no_such_code.ase:Calculator"})
    check_sentence(
        tace_al("run", path, "--dir", "run"), "no_such_code", "cannot be imported", "install"
    )


def test_xtb_without_tblite(
    tace_al: Callable[..., Any],
    campaign_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = campaign_file()
    for name in list(sys.modules):
        if name.partition(".")[0] == "tblite":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tblite", None)
    monkeypatch.setitem(sys.modules, "tblite.interface", None)
    check_sentence(tace_al("run", path, "--dir", "run"), "tblite", "install it")


@pytest.mark.slow
@pytest.mark.campaign
def test_a_full_disk_loses_nothing(
    tace_al: Callable[..., Any],
    campaign_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The disk fills while labels, then while models are written; room is made each time."""
    path = campaign_file()
    known: dict[str, int] = {}
    for part in ("labels", "train"):
        sync = os.fsync

        def full(handle: int, part: str = part, sync: Callable[[int], None] = sync) -> None:
            name = str(Path(f"/proc/self/fd/{handle}").readlink())
            if f"/{part}/" in name and len(list(Path("run/labels").glob("*.npz"))) >= 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            sync(handle)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            outcome = tace_al("run", path, "--dir", "run")
        check_sentence(outcome, "no room left", "free some space", "nothing was lost")
        with Store.open(Path("run"), create=False) as store:
            assert store.campaign().state == "failed"
        now = {p.name: p.stat().st_mtime_ns for p in Path("run/labels").glob("*.npz")}
        assert len(now) >= 3 and known.items() <= now.items()
        known = now
    outcome = tace_al("run", path, "--dir", "run")
    assert outcome.code == 0, outcome.err
    now = {p.name: p.stat().st_mtime_ns for p in Path("run/labels").glob("*.npz")}
    assert known.items() <= now.items()


def test_a_disk_that_is_full_from_the_start(
    tace_al: Callable[..., Any],
    campaign_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = campaign_file()
    monkeypatch.setattr(
        "tace_al.core.atomic_write.shutil.disk_usage", lambda place: type("Usage", (), {"free": 9})
    )
    check_sentence(tace_al("run", path, "--dir", "run"), "MB free", "free some space")


def test_a_folder_that_cannot_be_written(
    tace_al: Callable[..., Any], campaign_file: Callable[..., Path]
) -> None:
    path = campaign_file()
    Path("run").write_text("a file, not a folder")
    check_sentence(tace_al("run", path, "--dir", "run"), "run")


def test_initial_and_final_state_read_from_files_run(tace_al: Callable[..., Any]) -> None:
    initial, final = ammonia_inversion()
    settings = end_states(initial, final)
    outcome = tace_al("run", "catalysis", *settings, "--set", "labeller=none_such")
    check_sentence(outcome, "no labeller is called 'none_such'")
