import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from parsl.jobs.states import JobState, JobStatus

from tace_al.dispatch import slurm_executor
from tace_al.dispatch.executors import parsl_config
from tace_al.dispatch.machine import machine_from_name
from tace_al.dispatch.slurm_executor import BLOCK_FAILURES, SlurmExecutor

MakeExecutor = Callable[[list[dict[str, Any]]], SlurmExecutor]


@pytest.fixture
def executor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeExecutor:
    """Return what makes an executor with three blocks, of which some pools have reported."""

    def make(pools: list[dict[str, Any]]) -> SlurmExecutor:
        slurm = {"cores_per_node": 4, "workers_per_node": 4, "address": "a", "max_blocks": 3}
        machine = machine_from_name("slurm", slurm=slurm)
        made = parsl_config(machine, tmp_path, None).executors[0]
        assert isinstance(made, SlurmExecutor)
        monkeypatch.setattr(made, "connected_managers", lambda: pools)
        monkeypatch.setattr(made, "_hold_block", lambda block: None)
        monkeypatch.setattr(made.provider, "cancel", lambda numbers: [True] * len(numbers))
        made.blocks_to_job_id = {str(block): f"job{block}" for block in range(3)}
        made.job_ids_to_block = {job: block for block, job in made.blocks_to_job_id.items()}
        return made

    return make


def pool(block: int, *, tasks: int = 0, idle: float = 0.0) -> dict[str, Any]:
    return {"block_id": str(block), "active": True, "tasks": tasks, "idle_duration": idle}


def test_blocks_still_to_come_are_not_given_up(executor: MakeExecutor) -> None:
    assert executor([]).scale_in(0, max_idletime=1.0) == []
    assert executor([]).scale_in(2, max_idletime=1.0) == []
    assert executor([pool(0, idle=5.0)]).scale_in(0, max_idletime=1.0) == []


def test_the_longest_idle_block_goes_first(executor: MakeExecutor) -> None:
    pools = [pool(0, idle=20.0), pool(1, idle=50.0), pool(2, tasks=1)]
    assert executor(pools).scale_in(1, max_idletime=10.0) == ["1"]
    assert executor(pools).scale_in(3, max_idletime=10.0) == ["1", "0"]
    assert executor(pools).scale_in(3, max_idletime=30.0) == ["1"]


def test_a_block_is_as_idle_as_its_busiest_node(executor: MakeExecutor) -> None:
    pools = [pool(0, idle=50.0), pool(0, tasks=2), pool(1, idle=40.0), pool(1, idle=5.0)]
    assert executor(pools).scale_in(3, max_idletime=10.0) == []


def test_a_limit_on_submitted_jobs_does_not_end_the_blocks_that_run(
    executor: MakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, clock = executor([]), [100.0]
    monkeypatch.setattr(slurm_executor.time, "monotonic", lambda: clock[0])
    given_up: list[Exception] = []
    monkeypatch.setattr(made, "set_bad_state_and_fail_all", given_up.append)
    monkeypatch.setattr(made, "send_monitoring_info", lambda status: None)
    tried: list[float] = []

    def launch(block: str) -> str:
        if not made.blocks_to_job_id:
            return "job0"
        tried.append(clock[0])
        raise OSError("sbatch: error: QOSMaxSubmitJobPerUserLimit")

    monkeypatch.setattr(made, "_launch_block", launch)
    made.blocks_to_job_id.clear()
    made.job_ids_to_block.clear()
    assert made.scale_out_facade(3) == ["0"]
    made._status["0"] = JobStatus(JobState.RUNNING)
    for _ in range(1500):
        clock[0] += 1.0
        assert made.scale_out_facade(2) == []
        made.handle_errors(made._status)
    assert [b - a for a, b in itertools.pairwise(tried)] == [30, 60, 120, 240, 300, 300, 300]
    made._status["0"] = JobStatus(JobState.COMPLETED)
    made.handle_errors(made._status)
    assert given_up == []  # what was refused before says nothing of now
    while not given_up and clock[0] < 1e4:
        clock[0] += 10.0
        made.scale_out_facade(2)
        made.handle_errors(made._status)
    assert made.refusals_alone == BLOCK_FAILURES
    assert "refuses every block" in str(given_up[0])
