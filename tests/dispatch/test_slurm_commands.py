"""What Slurm answers, by small programs that stand in for its commands."""

import os
from pathlib import Path

import pytest

from tace_al.core.errors import ConfigError, DispatchError
from tace_al.dispatch.dispatcher import Dispatcher
from tace_al.dispatch.lifeline import Lifeline, folder_mark
from tace_al.dispatch.machine import Machine, machine_from_name
from tace_al.dispatch.slurm_commands import (
    ask_slurm,
    cancel_orphans,
    cancel_own,
    check_slurm,
    job_name_prefix,
    our_jobs,
)

SLURM = {
    "cores_per_node": 8,
    "workers_per_node": 8,
    "address": "localhost",
    "walltime": "01:00:00",
    "cancel_timeout_s": 5,
}
SINFO = "cpu|1-00:00:00|up\ngpu|30:00|up\nold|30:00|down\n"


class Commands:
    """Programs called sbatch, squeue, scancel and sinfo, alone on the PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for name in ("sbatch", "squeue", "scancel"):
            self.set(name, "exit 0")
        self.set("sinfo", f"printf '{SINFO}'")

    def set(self, name: str, line: str) -> None:
        script = f'#!/bin/sh\necho "$@" >> {self.folder}/{name}.calls\n{line}\n'
        (self.folder / name).write_text(script)
        (self.folder / name).chmod(0o755)

    def calls(self, name: str) -> list[str]:
        path = self.folder / f"{name}.calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Return the stand-ins; nothing else is on the PATH."""
    made = Commands(tmp_path / "bin")
    for tool in ("sh", "cat", "sleep", "rm"):
        (made.folder / tool).symlink_to(f"/bin/{tool}")
    monkeypatch.setenv("PATH", str(made.folder))
    return made


def cluster(**changes: object) -> Machine:
    return machine_from_name("slurm", slurm=SLURM | changes)


def test_a_block_is_asked_for_without_being_queued(commands: Commands) -> None:
    check_slurm(cluster(partition="cpu", account="chem", qos="long", gpus_per_node=2))
    (call,) = commands.calls("sbatch")
    for option in ("--test-only", "--partition=cpu", "--account=chem", "--qos=long", "--time=60"):
        assert option in call
    check_slurm(machine_from_name("threads"))  # asks nobody


def test_a_block_is_asked_for_with_options_of_ones_own(commands: Commands) -> None:
    lines = "#SBATCH --mem=900G\n# big nodes\n#SBATCH --exclude='n[1-3]' --nice"
    check_slurm(cluster(scheduler_options=lines))
    (call,) = commands.calls("sbatch")
    assert "--mem=900G --exclude=n[1-3] --nice" in call


def test_a_partition_that_is_down_is_mentioned(
    commands: Commands, caplog: pytest.LogCaptureFixture
) -> None:
    check_slurm(cluster(partition="old", walltime="00:30:00", longest_task_s=60))
    assert "partition 'old' is down" in caplog.text
    assert len(commands.calls("sbatch")) == 1


def test_a_partition_that_does_not_exist_names_the_nearest(commands: Commands) -> None:
    with pytest.raises(ConfigError, match=r"no partition 'cpus'\. Did you mean 'cpu'\?"):
        check_slurm(cluster(partition="cpus"))
    machine = machine_from_name("slurm", slurm=SLURM, models=SLURM | {"partition": "gpus"})
    with pytest.raises(ConfigError, match=r"blocks for models.*Did you mean 'gpu'"):
        check_slurm(machine)


def test_a_block_that_would_wait_for_ever_is_refused(commands: Commands) -> None:
    with pytest.raises(ConfigError, match=r"walltime 01:00:00 is longer than partition 'gpu'"):
        check_slurm(cluster(partition="gpu"))
    complaint = "sbatch: error: Batch job submission failed: Invalid account or account/partition"
    commands.set("sbatch", f"echo '{complaint}' >&2; exit 1")
    with pytest.raises(ConfigError, match=r"Invalid account.*--account=nobody"):
        check_slurm(cluster(account="nobody"))


def test_an_address_that_is_no_computers(commands: Commands) -> None:
    with pytest.raises(ConfigError, match=r"no computer is called 'login.invalid'"):
        check_slurm(cluster(address="login.invalid"))


def test_nodes_that_are_away_now_are_no_reason_to_stop(
    commands: Commands, caplog: pytest.LogCaptureFixture
) -> None:
    reason = "allocation failure: Required node not available (down, drained or reserved)"
    commands.set("sbatch", f"echo '{reason}' >&2; exit 1")
    check_slurm(cluster())
    assert "no node for such a block now" in caplog.text


def test_no_slurm_is_one_sentence_before_anything_starts(
    commands: Commands, tmp_path: Path
) -> None:
    (commands.folder / "sbatch").unlink()
    with (
        pytest.raises(DispatchError, match=r"has no sbatch, so no Slurm.*login node"),
        Dispatcher(cluster(), tmp_path / "run"),
    ):
        pass
    assert not (tmp_path / "run").exists()
    with pytest.raises(DispatchError, match="has no srun"):
        ask_slurm(["srun"], 1.0)


def test_a_controller_that_hangs_or_refuses(commands: Commands) -> None:
    commands.set("sinfo", "sleep 5")
    with pytest.raises(DispatchError, match="does not answer: sinfo took longer than 1 s"):
        check_slurm(cluster(cancel_timeout_s=1))
    text = "slurm_load_partitions: Unable to contact slurm controller (connect failure)"
    commands.set("sinfo", f"echo '{text}' >&2; exit 1")
    with pytest.raises(DispatchError, match="sinfo failed: Unable to contact slurm controller"):
        check_slurm(cluster())


def test_only_blocks_of_dead_drivers_are_cancelled(commands: Commands, tmp_path: Path) -> None:
    lifeline = Lifeline(tmp_path, tmp_path / "lock")
    own = lifeline.mark
    folder, host, pid, _ = own.split(":")
    marks = {
        "11": own,
        "12": f"{folder}:{host}:{pid}:1.00",  # a former process of this number
        "13": f"{folder}:elsewhere:4:2.50",
        "14": f"{folder_mark(tmp_path / 'other')}:{host}:{pid}:1.00",  # another campaign's
    }
    jobs = [f"{number}|{job_name_prefix(mark)}parsl.labels" for number, mark in marks.items()]
    queue = tmp_path / "queue"
    queue.write_text("\n".join([*jobs, "15|somebody.else"]) + "\n")
    commands.set("squeue", f"cat {queue}")
    commands.set("scancel", f"cat /dev/null > {queue}")
    try:
        assert our_jobs(tmp_path, 5.0) == {n: marks[n] for n in ("11", "12", "13")}
        assert cancel_orphans(tmp_path, 5.0) == 2
        assert commands.calls("scancel") == ["12 13"]
        queue.write_text(jobs[0] + "\n")
        assert cancel_own(tmp_path, own, 5.0) == 1
        assert cancel_own(tmp_path, own, 5.0) == 0
    finally:
        lifeline.release()
    assert all(f"--user={os.getuid()}" in call for call in commands.calls("squeue"))
