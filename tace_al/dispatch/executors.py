"""Parsl's configuration for a machine: an executor for each kind of block, tuned by measurement.

No retries, memoization, checkpoints or usage messages of Parsl's: results on disk are the record
and `retry.py` decides. Heartbeats are short on one computer (a killed worker is noticed within
their period) and longer on a cluster.
"""

import shlex
import sys
from functools import partial
from pathlib import Path

from parsl.config import Config
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from parsl.jobs.error_handlers import windowed_error_handler
from parsl.launchers import SimpleLauncher, SrunLauncher
from parsl.providers import LocalProvider

from tace_al.dispatch.apps import thread_environment
from tace_al.dispatch.lifeline import Lifeline
from tace_al.dispatch.machine import BlockName, Machine, SlurmSettings
from tace_al.dispatch.slurm_commands import job_name_prefix
from tace_al.dispatch.slurm_executor import BLOCK_FAILURES, SlurmExecutor, judge_blocks
from tace_al.dispatch.slurm_provider import SlurmBlocks

FIRST: BlockName = "labels"
"""Name of the only executor where there is one, and of that for labels where there are two."""
LOCAL_HEARTBEAT_S = 2
LOCAL_HEARTBEAT_THRESHOLD_S = 15

# The programs are run as modules of this interpreter: its bin folder need not be on PATH, and -P
# keeps the working directory (with whatever files a user has there) off the import path.
_PYTHON = (sys.executable, "-P", "-m")
_INTERCHANGE = (*_PYTHON, "parsl.executors.high_throughput.interchange")
_POOL = (
    " ".join(map(shlex.quote, (*_PYTHON, "parsl.executors.high_throughput.process_worker_pool")))
    + " {debug} {max_workers_per_node} -a {addresses} -p {prefetch_capacity}"
    " -c {cores_per_worker} -m {mem_per_worker} --poll {poll_period} --port={worker_port}"
    " --cert_dir {cert_dir} --logdir={logdir} --logconf={logconf} --block_id={{block_id}}"
    " --hb_period={heartbeat_period} {address_probe_timeout_string}"
    " --hb_threshold={heartbeat_threshold} --drain_period={drain_period}"
    " --cpu-affinity {cpu_affinity} {enable_mpi_mode} --mpi-launcher={mpi_launcher}"
    " --available-accelerators {accelerators}"
)
# The folder's name needs no quotes: `ParslSession` refuses others.
_FOLDER_CHECK = (
    '[ -w {0} ] || {{ echo "$(hostname) does not see {0}, or may not write there; put the campaign'
    ' where this computer and the compute nodes both write" >&2; exit 1; }}'
)


def parsl_config(machine: Machine, run_dir: Path, lifeline: Lifeline | None) -> Config:
    """Return Parsl's configuration for a machine.

    Parameters
    ----------
    machine
        Where work runs.
    run_dir
        Folder for Parsl's logs and scripts.
    lifeline
        What binds processes to this one; None for threads, or to look at a configuration.
    """
    executors: list[ThreadPoolExecutor | HighThroughputExecutor]
    if machine.executor == "threads":
        executors = [ThreadPoolExecutor(label=FIRST, max_threads=machine.workers)]
    elif machine.slurm is None:
        executors = [_local_executor(machine, run_dir, lifeline)]
    else:
        executors = [_slurm_executor(machine, name, run_dir, lifeline) for name in machine.blocks]
    slurm = machine.slurm
    return Config(
        executors=executors,
        run_dir=str(run_dir),
        # The first look starts the first block, so a short period is a short start.
        strategy="simple" if slurm is None else "htex_auto_scale",
        strategy_period=0.5 if slurm is None else min(5, slurm.poll_period_s),
        max_idletime=120.0 if slurm is None else float(slurm.max_idle_s),
        retries=0,
        usage_tracking=0,
        initialize_logging=False,
    )


def _local_executor(
    machine: Machine, run_dir: Path, lifeline: Lifeline | None
) -> HighThroughputExecutor:
    lines = lifeline.shell_lines() if lifeline is not None else ""
    return HighThroughputExecutor(
        label=FIRST,
        address="127.0.0.1",
        provider=LocalProvider(
            init_blocks=1,
            min_blocks=1,
            max_blocks=1,
            launcher=SimpleLauncher(),
            worker_init=lines + _worker_init(machine),
        ),
        launch_cmd=_POOL,
        interchange_launch_cmd=_interchange(run_dir, lifeline),
        max_workers_per_node=machine.workers,
        # The number of workers is ours; Parsl would cut it to the number of cores.
        cores_per_worker=1e-4,
        heartbeat_period=LOCAL_HEARTBEAT_S,
        heartbeat_threshold=LOCAL_HEARTBEAT_THRESHOLD_S,
        block_error_handler=partial(windowed_error_handler, threshold=BLOCK_FAILURES),
        encrypted=True,
    )


def _slurm_executor(
    machine: Machine, name: BlockName, run_dir: Path, lifeline: Lifeline | None
) -> HighThroughputExecutor:
    slurm = machine.blocks[name]
    # One name a worker: Parsl then shares the GPUs of a whole node out evenly.
    accelerators = [str(i) for i in range(slurm.workers_per_node)] if slurm.gpus_per_node else []
    return SlurmExecutor(
        refusal_wait_s=float(slurm.poll_period_s),
        label=name,
        address=slurm.address,
        provider=_slurm_blocks(machine, slurm, run_dir, lifeline),
        launch_cmd=_POOL,
        interchange_launch_cmd=_interchange(run_dir, lifeline),
        max_workers_per_node=slurm.workers_per_node,
        cores_per_worker=slurm.cores_per_node / slurm.workers_per_node,
        available_accelerators=accelerators,
        heartbeat_period=slurm.heartbeat_period_s,
        heartbeat_threshold=slurm.heartbeat_threshold_s,
        drain_period=slurm.drain_period_s,
        block_error_handler=partial(judge_blocks, threshold=BLOCK_FAILURES),
        encrypted=True,
    )


def _slurm_blocks(
    machine: Machine, slurm: SlurmSettings, folder: Path, lifeline: Lifeline | None
) -> SlurmBlocks:
    # A pilot job that Slurm requeues by itself stays pending and blocks its own replacement.
    options = ["#SBATCH --no-requeue"]
    if slurm.scheduler_options:
        options.append(slurm.scheduler_options)
    lines = [
        _worker_init(machine),
        slurm.worker_init,
        _FOLDER_CHECK.format(folder),
    ]
    if slurm.nodes_per_block > 1:
        # Since Slurm 22.05 a step no longer inherits the job's cores; its pool would have one.
        lines.append('export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"')
    return SlurmBlocks(
        name_prefix="" if lifeline is None else job_name_prefix(lifeline.mark),
        poll_period_s=slurm.poll_period_s,
        partition=slurm.partition,
        account=slurm.account,
        qos=slurm.qos,
        constraint=slurm.constraint,
        nodes_per_block=slurm.nodes_per_block,
        cores_per_node=slurm.cores_per_node,
        gpus_per_node=slurm.gpus_per_node or None,
        init_blocks=slurm.min_blocks,
        min_blocks=slurm.min_blocks,
        max_blocks=slurm.max_blocks,
        walltime=slurm.walltime,
        scheduler_options="\n".join(options),
        worker_init="\n".join(line for line in lines if line),
        # Two blocks on one node would count its GPUs from nought each, and share the first.
        exclusive=True,
        cmd_timeout=slurm.cancel_timeout_s,
        launcher=SrunLauncher() if slurm.nodes_per_block > 1 else SimpleLauncher(),
    )


def _interchange(run_dir: Path, lifeline: Lifeline | None) -> list[str]:
    """Return the interchange's command; its complaints go to a file, not to the terminal."""
    complaints = str(run_dir / "interchange.err")
    command = ["sh", "-c", 'exec "$@" 2>>"$0"', complaints, *_INTERCHANGE]
    return command if lifeline is None else lifeline.command(command)


def _worker_init(machine: Machine) -> str:
    """Return the shell lines that pin threads and then prepare the workers' environment."""
    environment = thread_environment(machine.threads_per_worker)
    lines = [f"export {name}={value}" for name, value in environment.items()]
    return "\n".join([*lines, machine.worker_init])
