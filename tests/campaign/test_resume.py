"""Kill a campaign wherever it hurts, run the same command again, and look for what was lost."""

import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tace_al.campaign.config import Campaign
from tace_al.dispatch.machine import machine_from_name
from tace_al.store.store import Store
from tace_al.workflows.reactions import REFERENCE_BARRIERS

pytestmark = [pytest.mark.campaign, pytest.mark.slow, pytest.mark.parsl]

# An ASE calculator that notes every calculation before it starts; slow enough to be caught at it.
COUNTED = """
import hashlib, time
from pathlib import Path
from tblite.ase import TBLite

class Counted(TBLite):
    def __init__(self, log, charge=None, multiplicity=None):
        super().__init__(
            method="GFN2-xTB", verbosity=0, charge=charge, multiplicity=multiplicity
        )
        self.log = log

    def calculate(self, atoms=None, properties=None, system_changes=None):
        if system_changes:
            text = repr((atoms.numbers.tolist(), atoms.positions.tolist()))
            with Path(self.log).open("a") as log:
                log.write(hashlib.sha256(text.encode()).hexdigest() + "\\n")
            time.sleep(0.1)
        super().calculate(atoms, properties or ["energy"], system_changes or [])
"""


@pytest.fixture
def counted_campaign(tmp_path: Path, tiny_campaign: Any) -> Campaign:
    """Return a campaign on two processes whose calculations are counted in a file."""
    (tmp_path / "counted_labels.py").write_text(COUNTED)
    return tiny_campaign(
        machine=machine_from_name("local", workers=2),
        model={"first_epochs": 15, "epochs": 5},
        labeller={
            "name": "counted_labels:Counted",
            "options": {
                "log": str(tmp_path / "calculations"),
                "charge_option": "charge",
                "multiplicity_option": "multiplicity",
            },
        },
    )


def calculations(tmp_path: Path) -> Counter[str]:
    return Counter((tmp_path / "calculations").read_text().split())


def check_labels(directory: Path) -> int:
    """Check that no label is there twice; return how many there are."""
    with Store.open(directory, create=False) as store:
        labels = store.labels(state=None)
        assert len({label.key for label in labels}) == len(labels)
        assert {path.stem for path in directory.glob("labels/*.npz")} >= {
            label.key for label in labels
        }
        return len(labels)


def test_killed_three_times_it_finishes_and_repeats_nothing(
    tmp_path: Path, counted_campaign: Campaign, program: Callable[[Campaign], Any]
) -> None:
    runs = program(counted_campaign)
    kills = 0
    for moment in (
        "labels/*.npz",  # while the end states are being relaxed
        "results/train/*/.scratch-*",  # during training
        "results/langevin/*/.scratch-*",  # during exploration
    ):
        runs.start_and_wait_for(moment)
        known = {path: path.stat().st_mtime_ns for path in runs.directory.glob("labels/*.npz")}
        runs.kill()
        kills += 1
        assert all(path.stat().st_mtime_ns == time for path, time in known.items())
    runs.start()
    code, out, err = runs.finish()
    assert code == 0, out + err
    assert "barrier" in out and "report" in out

    number = check_labels(runs.directory)
    assert number <= counted_campaign.stopping.max_labels
    counts = calculations(tmp_path)
    # at most the one calculation of each worker that a kill cut off is made again
    assert sum(counts.values()) - len(counts) <= 2 * kills
    with Store.open(runs.directory, create=False) as store:
        assert store.campaign().state == "finished"
        assert not store.candidates(state="running")
        assert store.generations()[-1].state in ("serving", "rejected")
        barrier = store.campaign().result["barriers"]["inversion"]
    assert abs(barrier["barrier"] - REFERENCE_BARRIERS["ammonia_inversion"]) < 0.25
    runs.wait_for_workers()
    # the database's server leaves by itself a while after the last client
    assert all("tace_al.store.embedded.server" in line for line in runs.leftovers())


def test_a_folder_that_was_moved_goes_on(
    run: Any, tmp_path: Path, tiny_campaign: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = tiny_campaign(
        model={"first_epochs": 15, "epochs": 5},
        exploration={"walkers": 2, "steps": 5, "band_steps": 5},
    )
    before, after = tmp_path / "before", tmp_path / "after"

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tace_al.campaign.loop.Exploration.receive", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(campaign, before)
    trained = {path.name for path in before.glob("results/train/*/*")}
    known = {path.name: path.stat().st_mtime_ns for path in before.glob("labels/*.npz")}
    before.rename(after)
    result, _ = run(campaign, after)
    assert "generation budget" in result.reason
    now = {path.name: path.stat().st_mtime_ns for path in after.glob("labels/*.npz")}
    assert {name: now[name] for name in known} == known
    with Store.open(after, create=False) as store:
        assert {chunk.state for chunk in store.chunks(kind="md")} <= {
            "known",
            "uncertain",
            "broken",
        }
        models = store.models()
        assert trained <= {model.key for model in models}
        assert len(models) == 4 and all((after / model.path).is_file() for model in models)


def test_ctrl_c_keeps_everything_and_the_same_command_goes_on(
    tmp_path: Path, counted_campaign: Campaign, program: Callable[[Campaign], Any]
) -> None:
    runs = program(counted_campaign)
    runs.start_and_wait_for("results/train/*/.scratch-*")
    code, out, err = runs.interrupt()
    assert code == 130, out + err
    assert "the same command goes on" in out and "Traceback" not in err
    runs.wait_for_workers()
    with Store.open(runs.directory, create=False) as store:
        assert store.campaign().state == "stopped"
        before = len(store.labels(state=None))
    assert before > 0

    runs.start()
    code, out, err = runs.finish()
    assert code == 0, out + err
    assert check_labels(runs.directory) >= before
    assert max(calculations(tmp_path).values()) == 1  # Ctrl-C in training cuts no label off


def test_a_campaign_that_runs_is_nobody_elses_to_run(
    counted_campaign: Campaign, program: Callable[[Campaign], Any]
) -> None:
    runs, second = program(counted_campaign), program(counted_campaign)
    runs.start_and_wait_for("labels/*.npz")
    second.start()
    code, _, err = second.finish(60.0)
    assert code == 2 and "another process is running the campaign" in err
    assert "Traceback" not in err
    runs.kill()


def test_sigterm_is_as_clean_as_ctrl_c(
    counted_campaign: Campaign, program: Callable[[Campaign], Any]
) -> None:
    runs = program(counted_campaign)
    process = runs.start_and_wait_for("labels/*.npz")
    process.send_signal(signal.SIGTERM)
    code, out, err = runs.finish(30.0)
    assert code == 130, out + err
    assert "Traceback" not in err
    runs.wait_for_workers()
    with Store.open(runs.directory, create=False) as store:
        assert store.campaign().state == "stopped"
