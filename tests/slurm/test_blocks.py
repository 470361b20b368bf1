"""The dispatcher on a live Slurm: what it refuses, how blocks drain, and what it leaves behind."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tace_al.core.errors import ConfigError, DispatchError
from tace_al.dispatch.dispatcher import Dispatcher
from tace_al.dispatch.machine import Machine, machine_from_name
from tace_al.dispatch.request import Request
from tace_al.dispatch.slurm_commands import check_slurm

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.parsl]


@pytest.fixture
def machine(slurm: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Machine]:
    """Return what makes a machine of blocks on this Slurm, whose commands are on the PATH."""
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, slurm.environment[name])

    def build(**changes: object) -> Machine:
        settings = {
            "partition": "cpu",
            "cores_per_node": 4,
            "workers_per_node": 2,
            "address": "127.0.0.1",
            "walltime": "00:10:00",
            "longest_task_s": 60,
            "heartbeat_period_s": 1,
            "heartbeat_threshold_s": 8,
            "poll_period_s": 1,
        }
        return machine_from_name("slurm", slurm=settings | changes)

    return build


def probe(**payload: object) -> Request:
    return Request.build("probe", "tace_al.dispatch.tasks.probe:run", payload)


def test_what_slurm_would_never_run_is_refused(machine: Any, tmp_path: Path) -> None:
    check_slurm(machine())
    for change, message in (
        ({"partition": "cpus"}, r"no partition 'cpus'. Did you mean 'cpu'"),
        ({"constraint": "haswell"}, "Invalid feature"),
        ({"nodes_per_block": 3}, "node configuration"),
        ({"walltime": "02:00:00"}, "longer than partition 'cpu' allows"),
    ):
        folder = tmp_path / "run"
        with pytest.raises(ConfigError, match=message), Dispatcher(machine(**change), folder):
            pass
        assert not folder.exists()


def test_draining_blocks_lose_nothing_and_workers_have_a_gpu_each(
    machine: Any, slurm: Any, tmp_path: Path
) -> None:
    if not slurm.has_gpus:
        pytest.skip("device files for Slurm's GPUs can be made by root alone")
    drains_soon = machine(
        partition="gpu", gpus_per_node=2, start_up_s=0, longest_task_s=591, walltime="00:10:00"
    )
    before, events = len(slurm.completed()), []
    with Dispatcher(drains_soon, tmp_path, lambda name, fields: events.append(name)) as dispatcher:
        for number in range(30):
            dispatcher.submit(probe(action="sleep", seconds=1.0, value=number))
        results = []
        while dispatcher.in_flight:
            results += dispatcher.wait(60.0)
    assert len(results) == 30 and all(envelope.ok for envelope in results)
    assert events == []  # no task was cut off and tried again
    assert {envelope.result["gpus"] for envelope in results} == {"0", "1"}
    slurm.wait_until(lambda: not slurm.jobs(), 30.0)
    assert len(slurm.completed()) - before >= 2


def test_a_dead_interchange_ends_the_blocks_too(machine: Any, slurm: Any, tmp_path: Path) -> None:
    with Dispatcher(machine(nodes_per_block=2), tmp_path) as dispatcher:  # started by srun
        dispatcher.submit(probe(value=1))
        assert dispatcher.wait(90.0)[0].ok
        dispatcher.submit(probe(action="sleep", seconds=300.0))
        assert slurm.jobs()
        children = psutil.Process().children()
        for child in children:
            if "interchange" in " ".join(child.cmdline()):
                child.kill()
        with pytest.raises(DispatchError, match=r"interchange.*finished work is kept"):
            dispatcher.wait(60.0)
        slurm.wait_until(lambda: not slurm.jobs(), 30.0)  # before the dispatcher is closed
    with Dispatcher(machine(), tmp_path) as dispatcher:
        found = dispatcher.harvest(probe(value=1))
        assert found is not None and found.ok


def test_workers_that_do_not_start_are_one_sentence(
    machine: Any, slurm: Any, tmp_path: Path
) -> None:
    broken = machine(worker_init="echo module: no such module >&2; exit 1")
    with Dispatcher(broken, tmp_path) as dispatcher:
        dispatcher.submit(probe(value=1))
        with pytest.raises(DispatchError, match=r"5 blocks in a row failed.*no such module"):
            dispatcher.wait(90.0)
    slurm.wait_until(lambda: not slurm.jobs(), 30.0)


def test_the_doctor_finds_the_cluster_well(slurm: Any, tmp_path: Path) -> None:
    block = {"cores_per_node": 4, "workers_per_node": 1, "walltime": "00:50:00", "poll_period_s": 1}
    reached = {"address": "127.0.0.1", "heartbeat_period_s": 1, "heartbeat_threshold_s": 8}
    content = {
        "slurm": {**block, **reached, "partition": "cpu"},
        "models": {**block, "partition": "gpu"},
    }
    (tmp_path / "sandbox.yaml").write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "tace_al.cli.main", "doctor", "--machine", "sandbox.yaml"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**slurm.environment, "NO_COLOR": "1", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Slurm would take these blocks" in done.stdout
    assert "Everything a campaign needs works here" in done.stdout
    slurm.wait_until(lambda: not slurm.jobs(), 30.0)
