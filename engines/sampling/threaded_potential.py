"""One committee on several threads: the frames of a call are shared out among copies of it.

While a server waits for the forces of its beads its own core is idle, so a driver may use two.
Compiled networks do that by themselves (`Committee(threads=...)`); this is for all others. Each
thread has a copy of the potential with caches and neighbour lists of its own, and always the same
part of the frames, so a Verlet skin goes on serving. Threads that wait cost nothing here, unlike
those inside an operator, which spin at every barrier and lose tenfold on a busy machine.
"""

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import final

from ase import Atoms

from tace_al.core.errors import ConfigError
from tace_al.engines.sampling.committee_potential import CommitteePotential
from tace_al.engines.sampling.potential import Potential
from tace_al.model.prediction import Prediction


@final
class ThreadedPotential(Potential):
    """A committee that answers several frames on several threads.

    Parameters
    ----------
    potential
        The committee; copied for each further thread.
    threads
        At least 2.
    """

    def __init__(self, potential: CommitteePotential, threads: int) -> None:
        if threads < 2:
            raise ConfigError(f"`threads` is {threads}; two or more share the work")
        self._copies = [potential, *(copy.deepcopy(potential) for _ in range(threads - 1))]
        self._pool = ThreadPoolExecutor(threads - 1, thread_name_prefix="potential")

    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        """Return one prediction a frame, in order."""
        count = min(len(self._copies), len(frames))
        if count < 2:
            return self._copies[0].predict(frames)
        bounds = [len(frames) * part // count for part in range(count + 1)]
        parts = [frames[first:last] for first, last in pairwise(bounds)]
        others = [
            self._pool.submit(potential.predict, part)
            for potential, part in zip(self._copies[1:], parts[1:], strict=False)
        ]
        try:
            found = list(self._copies[0].predict(parts[0]))
        finally:  # no thread may still read frames that the caller moves on
            for other in others:
                other.exception()
        for other in others:
            found += other.result()
        return found
