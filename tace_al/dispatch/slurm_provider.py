"""Parsl's provider of Slurm blocks, with what it gets wrong put right.

- It polls every 60 s; here as often as the machine's settings say.
- Without accounting it calls every job that has vanished completed, and a job that has failed
  completed from the second poll on; with accounting it calls a job completed that the database
  does not know yet. Here `squeue --states=all` alone is asked, of this user's jobs, so that no
  job number is ever unknown, and a final state stays.
- A job whose node died stays "completing" while Slurm waits for the node; it counts as ended, so
  that another takes its place.
- A command of Slurm that hangs or fails leaves the states as they were.
"""

import logging
import os
from collections.abc import Sequence
from typing import Any, final

from parsl.jobs.states import JobState, JobStatus
from parsl.providers import SlurmProvider

from tace_al.core.errors import DispatchError
from tace_al.dispatch.slurm_commands import ask_slurm

STATES = {
    "PENDING": JobState.PENDING,
    "CONFIGURING": JobState.PENDING,
    "REQUEUED": JobState.PENDING,
    "REQUEUE_HOLD": JobState.HELD,
    "RUNNING": JobState.RUNNING,
    "RESIZING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "STAGE_OUT": JobState.RUNNING,
    "SUSPENDED": JobState.HELD,
    "STOPPED": JobState.HELD,
    "COMPLETING": JobState.COMPLETED,
    "COMPLETED": JobState.COMPLETED,
    "CANCELLED": JobState.CANCELLED,
    "TIMEOUT": JobState.TIMEOUT,
    "DEADLINE": JobState.TIMEOUT,
    "PREEMPTED": JobState.TIMEOUT,
    "FAILED": JobState.FAILED,
    "NODE_FAIL": JobState.FAILED,
    "BOOT_FAIL": JobState.FAILED,
    "OUT_OF_MEMORY": JobState.FAILED,
    "REVOKED": JobState.FAILED,
    "SPECIAL_EXIT": JobState.FAILED,
}

logger = logging.getLogger(__name__)


@final
class SlurmBlocks(SlurmProvider):
    """Blocks of one kind.

    Parameters
    ----------
    name_prefix
        Begins the name of every job.
    poll_period_s
        Seconds between two looks at the states of jobs.
    **settings
        As `parsl.providers.SlurmProvider` takes them.
    """

    def __init__(self, *, name_prefix: str, poll_period_s: int, **settings: Any) -> None:
        super().__init__(**settings)
        self._name_prefix = name_prefix
        self._poll_period_s = poll_period_s
        self.waiting_for = ""
        """Slurm's reasons why blocks wait, as of the last look; "" while one runs or none waits."""

    @property
    def status_polling_interval(self) -> int:
        """Seconds between two looks at the states of jobs."""
        return self._poll_period_s

    def submit(self, command: str, tasks_per_node: int, job_name: str = "block") -> str:
        """Submit a block under a name that tells whose it is."""
        number: str = super().submit(command, tasks_per_node, self._name_prefix + job_name)
        return number

    def cancel(self, job_ids: Sequence[object]) -> list[bool]:
        """Cancel blocks; return for each whether Slurm took the order."""
        numbers = [str(number) for number in job_ids]
        if not numbers:
            return []
        try:
            ask_slurm(["scancel", *numbers], self.cmd_timeout)
        except DispatchError as error:
            logger.warning("blocks %s were not cancelled: %s", ", ".join(numbers), error)
            return [False] * len(numbers)
        for number in numbers:
            self._set(number, JobState.CANCELLED)
        return [True] * len(numbers)

    def _status(self) -> None:
        active = [str(n) for n, job in self.resources.items() if not job["status"].terminal]
        if not active:
            self.waiting_for = ""
            return
        command = ["squeue", "--noheader", "--states=all", f"--user={os.getuid()}"]
        try:
            text = ask_slurm([*command, "--format=%i|%T|%r"], self.cmd_timeout)
        except DispatchError as error:
            logger.warning("the states of blocks are not known: %s", error)
            return
        rows = {row[0]: row[1:] for row in (line.strip().split("|") for line in text.splitlines())}
        reasons = set()
        for number in active:
            # Slurm forgets a job some minutes after its end.
            state, *reason = rows.get(number, ["COMPLETED"])
            self._set(number, STATES.get(state, JobState.UNKNOWN))
            if self.resources[number]["status"].state in (JobState.PENDING, JobState.HELD):
                reasons.update(reason)
        runs = any(job["status"].state is JobState.RUNNING for job in self.resources.values())
        self.waiting_for = "" if runs else ", ".join(sorted(reasons))

    def _set(self, number: str, state: JobState) -> None:
        job = self.resources[number]
        job["status"] = JobStatus(
            state, stdout_path=job["job_stdout_path"], stderr_path=job["job_stderr_path"]
        )
