"""Slurm's own commands: is it there, does it take such blocks, which are ours, end them.

Blocks are named `tace-al-<folder>:<host>:<pid>:<start time>.<block>` after the driver that asked
for them (see `lifeline.py`), so that blocks whose driver was killed are found and cancelled at the
next start, before their tasks are given out again.
"""

import logging
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tace_al.core.errors import ConfigError, DispatchError, nearest_names
from tace_al.dispatch.lifeline import driver_may_live, folder_mark, on_this_computer
from tace_al.dispatch.machine import Machine, SlurmSettings

JOB_PREFIX = "tace-al-"
_COMMANDS = ("sbatch", "squeue", "scancel", "sinfo")
_JOB_NAME = re.compile(rf"^{JOB_PREFIX}([0-9a-f]{{16}}:[^:]+:\d+:\d+\.\d+)\.")
# Nodes that are away now may be back when the block's turn comes.
_PASSING = ("down, drained or reserved", "busy", "Nodes required for job are")

logger = logging.getLogger(__name__)


def ask_slurm(command: Sequence[str], timeout_s: float) -> str:
    """Return what a command of Slurm prints.

    Raises
    ------
    DispatchError
        It is not installed, refuses, or does not answer in time.
    """
    try:
        done = subprocess.run(
            list(command),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise _no_slurm([command[0]]) from error
    except subprocess.TimeoutExpired as error:
        raise DispatchError(
            f"Slurm does not answer: {command[0]} took longer than {timeout_s:g} s; try again "
            "later, or raise cancel_timeout_s of the machine"
        ) from error
    if done.returncode != 0:
        raise DispatchError(f"{command[0]} failed: {_complaint(done.stderr + done.stdout)}")
    return done.stdout


def _no_slurm(missing: Sequence[str]) -> DispatchError:
    return DispatchError(
        f"this computer has no {', '.join(missing)}, so no Slurm to send work to; run on a login "
        "node of the cluster, or use --machine local"
    )


def _complaint(text: str) -> str:
    """Return Slurm's last complaint without the names of commands before it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(r"^(\w+: )?(error: |fatal: )?", "", lines[-1]) if lines else "no reason given"


def check_slurm(machine: Machine) -> None:
    """Make sure that Slurm is there and would take every kind of block; starts nothing.

    Raises
    ------
    DispatchError
        Slurm's commands are missing or its controller does not answer.
    ConfigError
        It would never run such a block: no such partition or account, too many nodes or cores, a
        wall time beyond the partition's; or no block would find this computer.
    """
    if machine.slurm is None:
        return
    missing = [name for name in _COMMANDS if shutil.which(name) is None]
    if missing:
        raise _no_slurm(missing)
    text = ask_slurm(["sinfo", "--noheader", "--format=%R|%l|%a"], machine.slurm.cancel_timeout_s)
    rows = [line.strip().split("|") for line in text.splitlines() if "|" in line]
    partitions = {name: (limit, *rest) for name, limit, *rest in rows}
    for name, settings in machine.blocks.items():
        where = f"machine {machine.name!r}, blocks for {name}"
        _check_address(where, settings)
        _check_partition(where, settings, partitions)
        _check_block(where, settings)


def _check_address(where: str, settings: SlurmSettings) -> None:
    """Refuse a name that is no computer's, which blocks would look for in vain."""
    try:
        socket.getaddrinfo(settings.address, None)
    except OSError as error:
        raise ConfigError(
            f"{where}: no computer is called {settings.address!r} ({error.strerror}); give the "
            f"name or number by which compute nodes reach this one, such as {socket.getfqdn()}"
        ) from error


def _check_partition(
    where: str, settings: SlurmSettings, partitions: Mapping[str, tuple[str, ...]]
) -> None:
    """Refuse a partition that does not exist or ends blocks before their time.

    `partitions` has time limit and, if told, state ("up", "down", "drain", "inact") by name.
    """
    for partition in (settings.partition or "").split(","):
        if not partition:
            continue
        if partition not in partitions:
            raise ConfigError(
                f"{where}: this Slurm has no partition {partition!r}."
                f"{nearest_names(partition, partitions)} `sinfo -s` lists them"
            )
        longest, *states = partitions[partition]
        limit = _seconds(longest)
        if limit is not None and settings.walltime_s > limit:
            raise ConfigError(
                f"{where}: walltime {settings.walltime} is longer than partition {partition!r} "
                f"allows ({longest}), such a block would wait for ever; ask for less"
            )
        for state in set(states) - {"up"}:
            # It may be up again when the block's turn comes.
            logger.warning(
                "%s: partition %r is %s, its blocks wait until it is up", where, partition, state
            )


def _seconds(limit: str) -> int | None:
    """Return the seconds of Slurm's "days-hours:minutes:seconds", None for no limit.

    >>> _seconds("1-02:00:00"), _seconds("30:00"), _seconds("infinite")
    (93600, 1800, None)
    """
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return 86400 * days + 3600 * hours + 60 * minutes + seconds


def _check_block(where: str, settings: SlurmSettings) -> None:
    """Ask Slurm whether it would take a block, without giving it one."""
    wanted = {
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
        "gpus-per-node": settings.gpus_per_node or None,
        "nodes": settings.nodes_per_block,
        "ntasks-per-node": 1,
        "cpus-per-task": settings.cores_per_node,
        "time": settings.walltime_s // 60,
    }
    options = [f"--{name}={value}" for name, value in wanted.items() if value is not None]
    options += settings.further_options
    command = ["sbatch", "--test-only", "--exclusive", *options, "--wrap=true"]
    try:
        ask_slurm(command, settings.cancel_timeout_s)
    except DispatchError as error:
        if any(reason in str(error) for reason in _PASSING):
            logger.warning("%s: Slurm has no node for such a block now (%s)", where, error)
            return
        raise ConfigError(
            f"{where}: Slurm would not take such a block ({error}); it was asked for "
            f"{' '.join(options)}"
        ) from error


def job_name_prefix(mark: str) -> str:
    """Return how the names of a driver's blocks begin; `mark` is its lifeline's."""
    return f"{JOB_PREFIX}{mark}."


def our_jobs(folder: Path, timeout_s: float) -> dict[str, str]:
    """Return the waiting and running blocks of a campaign's folder: job number to driver's mark."""
    text = ask_slurm(["squeue", "--noheader", f"--user={os.getuid()}", "--format=%i|%j"], timeout_s)
    mark = folder_mark(folder)
    found = {}
    for line in text.splitlines():
        number, _, name = line.strip().partition("|")
        match = _JOB_NAME.match(name)
        if match is not None and match[1].startswith(f"{mark}:"):
            found[number] = match[1]
    return found


def cancel_orphans(folder: Path, timeout_s: float) -> int:
    """Cancel the blocks that a killed driver of this folder left, and wait until they are gone.

    A driver that lives on this computer keeps its blocks. One of another computer is taken for
    dead: whoever starts a dispatcher has the folder to itself.
    """
    orphans = [
        number
        for number, mark in our_jobs(folder, timeout_s).items()
        if not (on_this_computer(mark) and driver_may_live(mark))
    ]
    return cancel_jobs(folder, orphans, timeout_s)


def cancel_own(folder: Path, mark: str, timeout_s: float) -> int:
    """Cancel every block of the driver with this mark, also those Parsl has lost track of."""
    own = [number for number, found in our_jobs(folder, timeout_s).items() if found == mark]
    return cancel_jobs(folder, own, timeout_s)


def cancel_jobs(folder: Path, numbers: Sequence[str], timeout_s: float) -> int:
    """Cancel jobs and wait until Slurm shows them no more; return how many there were."""
    if not numbers:
        return 0
    ask_slurm(["scancel", *numbers], timeout_s)
    give_up = time.monotonic() + timeout_s
    while set(our_jobs(folder, timeout_s)) & set(numbers):
        if time.monotonic() > give_up:
            logger.warning("blocks %s are still ending", ", ".join(numbers))
            break
        time.sleep(0.2)
    return len(numbers)
