"""`tace-al failures` and `tace-al retry` on a small Store whose labeller failed for some frames."""

import fcntl
import json
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import molecule

from tace_al.dispatch.bundle import bundle_folder, write_bundle
from tace_al.dispatch.label_file import LabelFailure, label_path, read_label, write_label
from tace_al.engines.labelling.catalogue import labeller_from_name
from tace_al.store.store import Store

LABELLER, OPTIONS = "hf", {"basis": "sto-3g"}


def frames() -> list[Atoms]:
    """Return three water molecules."""
    found = []
    for seed in (1, 2, 3):
        atoms = molecule("H2O")
        atoms.rattle(0.05, seed=seed)
        found.append(atoms)
    return found


@pytest.fixture
def failed_campaign(tmp_path: Path) -> Path:
    """Return the folder of a campaign with two failures to converge and a crash."""
    fidelity = labeller_from_name(LABELLER, OPTIONS).fidelity
    choice = {"name": LABELLER, "options": OPTIONS, "force_ceiling": 50.0}
    with Store.open(tmp_path / "run") as store:
        store.start_campaign("water", {"labeller": choice}, seed=0, code_version="0")
        for atoms, kind in zip(frames(), ("convergence", "convergence", "crash"), strict=True):
            key = store.add_structure(atoms, channel="stretch", origin={"kind": "md"})
            store.add_candidate(key, kind="uncertain", channel="stretch", generation=1)
            store.move_candidate(key, source="flagged", target="failed", reason=kind)
            failure = LabelFailure(
                structure_key=key,
                fidelity_key=fidelity.key,
                kind=kind,
                message=f"it came to a {kind}; look",
                attempts=3,
                log="last lines",
            )
            folder = bundle_folder(store.directory, failure.key)
            write_bundle(
                folder, atoms, failure, labeller=LABELLER, options=OPTIONS, fidelity=fidelity
            )
            write_label(label_path(store.directory / "labels", failure.key), failure)
            store.add_failure(
                key,
                fidelity,
                kind=kind,
                message=failure.message,
                bundle=str(folder.relative_to(store.directory)),
                generation=1,
                attempts=3,
            )
    return tmp_path / "run"


def test_failures_are_listed_with_kind_reason_and_bundle(tace_al, failed_campaign: Path) -> None:
    """The table names all; the JSON is whole and its bundles exist."""
    outcome = tace_al("failures", failed_campaign)
    assert outcome.code == 0, outcome.err
    assert "by kind: convergence 2, crash 1" in outcome.out
    assert "H2O" in outcome.out and "rerun.sh" in outcome.out
    rows = json.loads(tace_al("failures", failed_campaign, "--json").out)
    assert len(rows) == 3
    assert {row["attempts"] for row in rows} == {3}
    for row in rows:
        assert (Path(row["bundle"]) / "rerun.sh").is_file()
        assert row["message"] == f"it came to a {row['kind']}; look"
    rows = json.loads(tace_al("failures", failed_campaign, "--kind", "crash", "--json").out)
    assert [row["kind"] for row in rows] == ["crash"]


def test_a_kind_that_no_label_failed_with(tace_al, failed_campaign: Path) -> None:
    """The nearest kind is named."""
    outcome = tace_al("retry", failed_campaign, "--kind", "convergense")
    assert outcome.code == 2 and "Did you mean 'convergence'" in outcome.err


def test_a_retry_puts_candidates_back_once(tace_al, failed_campaign: Path) -> None:
    """Queued ones stay queued, others wait, and the way to try them is remembered."""
    arguments = ("--kind", "convergence", "--labeller-option", "newton=true")
    outcome = tace_al("retry", failed_campaign, *arguments)
    assert outcome.code == 0 and "2 structures wait for a label" in outcome.out
    with Store.open(failed_campaign, create=False) as store:
        assert len(store.candidates(state="queued")) == 2
        assert len(store.candidates(state="failed")) == 1
        events = store.events(kind="retry")
        assert [event.data["options"] for event in events] == [{"newton": True}] * 2
        left = list((failed_campaign / "labels").glob("*.npz"))
        assert [read_label(path).kind for path in left] == ["crash"]  # type: ignore[union-attr]
    assert "nothing to try again" in tace_al("retry", failed_campaign, *arguments).out
    states = {
        row["state"] for row in json.loads(tace_al("failures", failed_campaign, "--json").out)
    }
    assert states == {"queued", "failed"}


def test_another_level_of_theory_is_no_retry(tace_al, failed_campaign: Path) -> None:
    """A basis changes the number; an unknown option is named; both leave everything as it was."""
    for option, said in (("basis=6-31g", "another level of theory"), ("newtn=1", "newton")):
        outcome = tace_al("retry", failed_campaign, "--labeller-option", option)
        assert outcome.code == 2 and said in outcome.err, outcome
    with Store.open(failed_campaign, create=False) as store:
        assert len(store.candidates(state="failed")) == 3 and not store.events(kind="retry")


def test_labels_at_once_lie_where_the_next_run_finds_them(tace_al, failed_campaign: Path) -> None:
    """`--now` writes label files that a worker takes for its own."""
    outcome = tace_al("retry", failed_campaign, "--now")
    assert outcome.code == 0 and "3 of 3 labelled" in outcome.out, outcome
    files = sorted((failed_campaign / "labels").glob("*.npz"))
    labels = [read_label(path) for path in files]
    assert len(labels) == 3 and not any(isinstance(label, LabelFailure) for label in labels)
    with Store.open(failed_campaign, create=False) as store:
        assert len(store.candidates(state="queued")) == 3


def test_nothing_is_labelled_beside_a_run(tace_al, failed_campaign: Path) -> None:
    """A running campaign labels what is queued itself."""
    with (failed_campaign / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        outcome = tace_al("retry", failed_campaign, "--now")
        assert outcome.code == 2 and "leave --now out" in outcome.err
        assert tace_al("retry", failed_campaign).code == 0


def test_a_campaign_without_failures(tace_al, tmp_path: Path) -> None:
    """Both commands say that there is nothing."""
    with Store.open(tmp_path) as store:
        store.start_campaign("water", {}, seed=0, code_version="0")
    assert "no label has failed" in tace_al("failures", tmp_path).out
    assert "nothing to try again" in tace_al("retry", tmp_path).out
