from pathlib import Path

import pytest
from parsl.jobs.states import JobState, JobStatus
from parsl.launchers import SimpleLauncher

from tace_al.core.errors import DispatchError
from tace_al.dispatch import slurm_provider
from tace_al.dispatch.slurm_provider import SlurmBlocks


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SlurmBlocks:
    """Return a provider that was given five blocks."""
    made = SlurmBlocks(name_prefix="tace-al-x.", poll_period_s=7, launcher=SimpleLauncher())
    for number in "12345":
        made.resources[number] = {
            "status": JobStatus(JobState.PENDING),
            "job_stdout_path": None,
            "job_stderr_path": None,
        }
    return made


def answer(monkeypatch: pytest.MonkeyPatch, text: str | Exception) -> list[list[str]]:
    asked = []

    def ask(command: list[str], timeout_s: float) -> str:
        asked.append(list(command))
        if isinstance(text, Exception):
            raise text
        return text

    monkeypatch.setattr(slurm_provider, "ask_slurm", ask)
    return asked


def states(blocks: SlurmBlocks) -> list[JobState]:
    return [status.state for status in blocks.status(list(blocks.resources))]


def test_final_states_stay_and_vanished_jobs_have_ended(
    blocks: SlurmBlocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, "1|RUNNING\n2|NODE_FAIL\n3|COMPLETING\n4|PENDING\n99|RUNNING\n")
    first = [
        JobState.RUNNING,
        JobState.FAILED,
        JobState.COMPLETED,
        JobState.PENDING,
        JobState.COMPLETED,
    ]
    assert states(blocks) == first
    answer(monkeypatch, "4|TIMEOUT\n")  # Slurm has forgotten the others
    assert states(blocks) == [JobState.COMPLETED, *first[1:3], JobState.TIMEOUT, first[4]]
    assert blocks.status_polling_interval == 7


def test_it_knows_why_blocks_wait(blocks: SlurmBlocks, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "1|PENDING|Priority\n2|PENDING|QOSMaxJobsPerUserLimit\n3|FAILED|None\n")
    states(blocks)
    assert blocks.waiting_for == "Priority, QOSMaxJobsPerUserLimit"
    answer(monkeypatch, "1|RUNNING|None\n2|PENDING|QOSMaxJobsPerUserLimit\n")
    states(blocks)
    assert blocks.waiting_for == ""


def test_a_silent_slurm_changes_nothing(
    blocks: SlurmBlocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, DispatchError("no answer"))
    assert states(blocks) == [JobState.PENDING] * 5
    assert blocks.cancel(["1", "2"]) == [False, False]


def test_cancelled_blocks_are_cancelled_by_number(
    blocks: SlurmBlocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answer(monkeypatch, "")
    assert blocks.cancel(["1", "3"]) == [True, True]
    assert asked == [["scancel", "1", "3"]]
    assert blocks.resources["3"]["status"].state == JobState.CANCELLED
    assert blocks.cancel([]) == []
