import subprocess
import sys
from pathlib import Path

import pytest
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from parsl.launchers import SimpleLauncher, SrunLauncher
from parsl.providers import SlurmProvider

from tace_al.dispatch.executors import parsl_config
from tace_al.dispatch.machine import machine_from_name

SLURM = {
    "partition": "gpu",
    "account": "chem",
    "cores_per_node": 32,
    "workers_per_node": 8,
    "gpus_per_node": 4,
    "max_blocks": 3,
    "walltime": "02:00:00",
    "address": "10.0.0.1",
    "scheduler_options": "#SBATCH --mail-type=NONE",
}


def slurm_executor(tmp_path: Path, **changes: object) -> HighThroughputExecutor:
    machine = machine_from_name("slurm", worker_init="module load cuda", slurm=SLURM | changes)
    executor = parsl_config(machine, tmp_path, None).executors[0]
    assert isinstance(executor, HighThroughputExecutor)
    return executor


def test_parsl_keeps_no_record_of_its_own(tmp_path: Path) -> None:
    config = parsl_config(machine_from_name("local"), tmp_path, None)
    assert (config.retries, config.usage_tracking, config.initialize_logging) == (0, 0, False)
    assert config.memoizer is None


def test_threads(tmp_path: Path) -> None:
    executor = parsl_config(machine_from_name("threads", workers=3), tmp_path, None).executors[0]
    assert isinstance(executor, ThreadPoolExecutor)
    assert executor.max_threads == 3


def test_local_pool_pins_threads_and_notices_deaths_soon(tmp_path: Path) -> None:
    machine = machine_from_name("local", workers=7, threads_per_worker=2)
    executor = parsl_config(machine, tmp_path, None).executors[0]
    assert isinstance(executor, HighThroughputExecutor)
    assert executor.encrypted
    assert executor.all_addresses == {"127.0.0.1"}
    assert executor.max_workers_per_node == 7
    assert executor.heartbeat_period <= 5 < executor.heartbeat_threshold <= 30
    script = executor.provider.worker_init
    assert "export OMP_NUM_THREADS=2" in script
    assert "export OMP_WAIT_POLICY=passive" in script


def test_slurm_blocks_drain_before_their_end(tmp_path: Path) -> None:
    executor = slurm_executor(tmp_path, start_up_s=100, longest_task_s=1100)
    assert executor.drain_period == 7200 - 100 - 1100
    assert executor.encrypted
    assert executor.all_addresses == {"10.0.0.1"}
    assert executor.block_error_handler.keywords == {"threshold": 5}  # type: ignore[attr-defined]


def test_slurm_gpus_are_shared_evenly(tmp_path: Path) -> None:
    executor = slurm_executor(tmp_path)
    # Parsl maps worker w to GPU w // (workers / GPUs) when every worker has a name.
    assert executor.available_accelerators == [str(i) for i in range(8)]
    assert executor.workers_per_node == 8
    assert slurm_executor(tmp_path, gpus_per_node=0).available_accelerators == []


def test_slurm_launches_one_pool_on_every_node(tmp_path: Path) -> None:
    assert isinstance(slurm_executor(tmp_path).provider.launcher, SimpleLauncher)
    many = slurm_executor(tmp_path, nodes_per_block=2)
    assert isinstance(many.provider.launcher, SrunLauncher)


def test_slurm_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = slurm_executor(tmp_path).provider
    assert isinstance(provider, SlurmProvider)
    provider.script_dir = str(tmp_path)
    answer = (0, "Submitted batch job 17\n", "")
    monkeypatch.setattr(provider, "execute_wait", lambda command: answer)
    assert provider.submit("the command", 1, "block") == "17"
    script = next(tmp_path.glob("block*")).read_text()
    for line in (
        "#SBATCH --no-requeue",
        "#SBATCH --exclusive",
        "#SBATCH --partition=gpu",
        "#SBATCH --account=chem",
        "#SBATCH --gpus-per-node=4",
        "#SBATCH --cpus-per-task=32",
        "#SBATCH --time=120",
        "#SBATCH --mail-type=NONE",
        "export OMP_NUM_THREADS=1",
        "module load cuda",
        "the command",
    ):
        assert line in script.splitlines(), line


def test_what_the_interchange_complains_of_goes_to_a_file(tmp_path: Path) -> None:
    (executor,) = parsl_config(machine_from_name("local"), tmp_path, None).executors
    assert isinstance(executor, HighThroughputExecutor)
    command = list(executor.interchange_launch_cmd)
    program = command.index(sys.executable)
    assert command[-1].endswith("interchange")
    complaining = [*command[:program], sys.executable, "-c", "raise SystemExit('no space left')"]
    done = subprocess.run(complaining, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert (tmp_path / "interchange.err").read_text() == "no space left\n"


def test_a_node_that_does_not_see_the_folder_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "campaign"
    script = slurm_executor(folder, worker_init="").provider.worker_init.replace("module", ":")
    lost = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert lost.returncode == 1 and f"does not see {folder}" in lost.stderr
    folder.mkdir()
    assert subprocess.run(["sh", "-c", script], check=False).returncode == 0
