"""Parsl's executor of pilot jobs, kept from cancelling blocks that are still to come.

Its strategy "htex_auto_scale" gives up idle blocks one by one, which a cluster's budget wants. But
a block that waits in the queue or is starting counts there as idle for ever, and an order to give
up no block at all gives up every idle one: whenever there were fewer tasks than workers, each block
was cancelled at the next look and asked for anew, and no task ever ran (Parsl 2026.10.26). Here
only a block that has reported, and has had nothing to do for long enough, is given up.
"""

from typing import final

from parsl.executors import HighThroughputExecutor


@final
class SlurmExecutor(HighThroughputExecutor):
    """An executor whose blocks have time to begin."""

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
