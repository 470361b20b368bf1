"""Which losses are the machine's fault, and how often a task may be part of one.

A task whose worker process dies is the first suspect (a crash, too much memory), so three such
deaths condemn it. A task on a block that vanished (wall time, scancel, a dead node) is most often
innocent, so a lost block counts a third. Between attempts the wait doubles:
w_n = min(w_1 2^(n-1), w_max).
"""

from dataclasses import dataclass

from parsl.executors.high_throughput.errors import ManagerLost, WorkerLost


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """How infrastructure errors are priced.

    Parameters
    ----------
    budget
        A task is given up when its losses have cost this much.
    worker_cost, block_cost
        Price of a dead worker process and of a lost block.
    first_wait_s, longest_wait_s
        Seconds before the second attempt, and the most before any.
    """

    budget: float = 3.0
    worker_cost: float = 1.0
    block_cost: float = 1 / 3
    first_wait_s: float = 0.5
    longest_wait_s: float = 60.0

    def cost(self, error: BaseException) -> float | None:
        """Return what an error costs, or None when it is not the machine's fault."""
        if isinstance(error, WorkerLost):
            return self.worker_cost
        if isinstance(error, ManagerLost):
            return self.block_cost
        return None

    def wait_s(self, num_losses: int) -> float:
        """Return the seconds to wait after the `num_losses`-th loss (from 1).

        >>> [RetryPolicy().wait_s(n) for n in (1, 2, 3, 20)]
        [0.5, 1.0, 2.0, 60.0]
        """
        return float(min(self.longest_wait_s, self.first_wait_s * 2.0 ** (num_losses - 1)))

    def condemned(self, spent: float) -> bool:
        """Return True when a task has used up its budget."""
        return spent >= self.budget - 1e-9
