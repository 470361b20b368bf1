"""Parsl's executor of pilot jobs, kept from cancelling blocks that are still to come.

Its strategy "htex_auto_scale" gives up idle blocks one by one, which a cluster's budget wants. But
a block that waits in the queue or is starting counts there as idle for ever, and an order to give
up no block at all gives up every idle one: whenever there were fewer tasks than workers, each block
was cancelled at the next look and asked for anew, and no task ever ran (Parsl 2026.10.26). Here
only a block that has reported, and has had nothing to do for long enough, is given up.

A block that Slurm refuses (a limit on submitted jobs, a controller that restarts) counts there as
one that has failed, and is asked for again at once: five refusals in seconds end the executor, with
its other blocks at work. Here the next one waits, twice as long after each refusal, and refusals
count only while no block waits or runs.
"""

import logging
import time
from collections.abc import Mapping
from typing import Any, final

from parsl.executors import HighThroughputExecutor
from parsl.jobs.error_handlers import windowed_error_handler
from parsl.jobs.states import JobState, JobStatus

from tace_al.core.errors import DispatchError

BLOCK_FAILURES = 5
"""An executor is bad only when so many blocks in a row have failed, not when the first one has."""
LONGEST_REFUSAL_WAIT_S = 300.0

logger = logging.getLogger(__name__)


def judge_blocks(
    executor: HighThroughputExecutor, statuses: Mapping[str, JobStatus], threshold: int
) -> None:
    """Give an executor up when `threshold` blocks in a row have failed; Parsl's error handler."""
    assert isinstance(executor, SlurmExecutor)
    if executor.refusals_alone >= threshold:
        executor.set_bad_state_and_fail_all(DispatchError("Slurm refuses every block"))
        return
    given = {
        block: status for block, status in statuses.items() if block in executor.blocks_to_job_id
    }
    windowed_error_handler(executor, given, threshold=threshold)


@final
class SlurmExecutor(HighThroughputExecutor):
    """An executor whose blocks have time to begin.

    Parameters
    ----------
    refusal_wait_s
        Seconds until the next block is asked for after Slurm has refused one.
    **settings
        As `HighThroughputExecutor` takes them.
    """

    def __init__(self, *, refusal_wait_s: float, **settings: Any) -> None:
        super().__init__(**settings)
        self._refusal_wait_s = refusal_wait_s
        self._refusals = 0
        self.refusals_alone = 0
        """Refusals in a row, counted while no block waits or runs."""
        self._ask_again = 0.0  # monotonic

    def scale_out_facade(self, n: int) -> list[str]:
        """Ask for up to `n` blocks, until Slurm refuses one; return the numbers of those asked."""
        asked: list[str] = []
        while len(asked) < n and time.monotonic() >= self._ask_again:
            given = super().scale_out_facade(1)
            if given:
                asked += given
                self._refusals = self.refusals_alone = 0
                continue
            alive = {JobState.PENDING, JobState.RUNNING}
            alone = not any(status.state in alive for status in self._status.values())
            self.refusals_alone = self.refusals_alone + 1 if alone else 0
            wait_s = min(LONGEST_REFUSAL_WAIT_S, self._refusal_wait_s * 2.0**self._refusals)
            self._refusals += 1
            self._ask_again = time.monotonic() + wait_s
            refused = self._status[max(self._status, key=int)]
            logger.log(
                logging.WARNING if self._refusals == 1 else logging.DEBUG,
                "Slurm refuses a block for %s (%s); asking again in %.0f s",
                self.label,
                last_line(refused.message),
                wait_s,
            )
        return asked

    def scale_in(self, blocks: int, max_idletime: float | None = None) -> list[str]:
        """Give up blocks; return the numbers of those that are.

        Parameters
        ----------
        blocks
            How many at most.
        max_idletime
            Only those that had nothing to do for so many seconds; None takes any.
        """
        if max_idletime is None:
            given_up: list[str] = super().scale_in(blocks)
            return given_up
        idle: dict[str, float] = {}
        for pool in self.connected_managers():
            if pool["active"]:
                block = pool["block_id"]
                seconds = 0.0 if pool["tasks"] else float(pool["idle_duration"])
                idle[block] = min(idle.get(block, seconds), seconds)
        longest_first = sorted(idle, key=lambda block: -idle[block])
        chosen = [block for block in longest_first if idle[block] > max_idletime][:blocks]
        for block in chosen:
            self._hold_block(block)
        numbers = [self.blocks_to_job_id[b] for b in chosen if b in self.blocks_to_job_id]
        if not numbers:
            return []
        assert self.provider is not None, "made with one"
        cancelled = self._filter_scale_in_ids(numbers, self.provider.cancel(numbers))
        return [self.job_ids_to_block[number] for number in cancelled]


def last_line(text: str | None) -> str:
    """Return the last line of a text that says something, "" without one."""
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
