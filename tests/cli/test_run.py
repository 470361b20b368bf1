import os
import signal
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

WORKFLOW = """
from tace_al.campaign.config import Campaign

END = {"symbols": ("H", "H"), "positions": ((0.0, 0.0, 0.0), (0.0, 0.0, 0.74))}

def campaign(*, seed: int = 0, budget: int = 10) -> Campaign:
    return Campaign.build(
        name="hydrogen",
        seed=seed,
        reactions=({"name": "stretch", "initial": END, "final": END},),
        stopping={"max_labels": budget},
    )
"""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[SimpleNamespace]:
    """Stand in for the loop, and note how it is called, from an empty working folder."""
    seen: list[SimpleNamespace] = []

    def run_campaign(campaign, *, directory, uri, console):
        seen.append(SimpleNamespace(campaign=campaign, directory=directory, uri=uri))
        if campaign.seed == 99:
            raise KeyboardInterrupt
        if campaign.seed == 15:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5.0)
        return SimpleNamespace(summary=lambda: "barrier 0.985 ± 0.012 eV")

    loop = ModuleType("tace_al.campaign.loop")
    loop.run_campaign = run_campaign  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tace_al.campaign.loop", loop)
    monkeypatch.delenv("TACE_AL_MONGO_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("hydrogen.py").write_text(WORKFLOW)
    return seen


def test_the_same_command_starts_and_resumes_in_one_folder(tace_al, calls) -> None:
    for _ in range(2):
        outcome = tace_al("run", "hydrogen.py", "--set", "seed=3", "--set", "budget=20")
        assert outcome.code == 0, outcome.err
        assert "barrier 0.985 ± 0.012 eV" in outcome.out
    first, second = calls
    assert first.campaign == second.campaign and first.campaign.seed == 3
    assert first.directory == second.directory == Path("runs/hydrogen")
    assert first.uri is None


def test_folder_database_and_machine(tace_al, calls) -> None:
    uri = "mongodb://ann:secret@host/db"
    arguments = ("run", "hydrogen.py", "--dir", "here", "--db", uri, "--machine", "threads")
    outcome = tace_al(*arguments)
    assert outcome.code == 0, outcome.err
    assert calls[0].directory == Path("here") and calls[0].uri == uri
    assert calls[0].campaign.machine.executor == "threads"
    assert "secret" not in outcome.out + outcome.err


@pytest.mark.parametrize("seed", [99, 15], ids=["ctrl-c", "sigterm"])
def test_an_interrupted_run_says_that_nothing_is_lost(tace_al, calls, seed: int) -> None:
    outcome = tace_al("run", "hydrogen.py", "--set", f"seed={seed}")
    assert outcome.code == 130 and "the same command goes on" in outcome.out


def test_unknown_options_and_machines(tace_al, calls) -> None:
    outcome = tace_al("run", "hydrogen.py", "--set", "buget=20")
    assert outcome.code == 2 and "Did you mean 'budget'?" in outcome.err
    outcome = tace_al("run", "hydrogen.py", "--machine", "thread")
    assert outcome.code == 2 and "threads" in outcome.err
    outcome = tace_al("run", "nothing.py")
    assert outcome.code == 2 and "there is no file nothing.py" in outcome.err
    assert not calls and not Path("runs").exists()


def test_a_campaign_file_runs_as_it_stands(tace_al, calls) -> None:
    assert tace_al("run", "hydrogen.py", "--set", "seed=5").code == 0
    Path("campaign.yaml").write_text(calls[0].campaign.to_yaml())
    outcome = tace_al("run", "campaign.yaml")
    assert outcome.code == 0, outcome.err
    assert calls[1].campaign == calls[0].campaign
    outcome = tace_al("run", "campaign.yaml", "--set", "stopping.max_labels=7")
    assert outcome.code == 0 and calls[2].campaign.stopping.max_labels == 7
    outcome = tace_al("run", "campaign.yaml", "--set", "budget=1")
    assert outcome.code == 2 and "by its path" in outcome.err


def test_options_are_listed(tace_al, calls) -> None:
    outcome = tace_al("run", "hydrogen.py", "--options")
    assert outcome.code == 0 and "budget" in outcome.out and "10" in outcome.out
    assert not calls
