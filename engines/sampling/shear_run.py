"""Steady shear from block to block, as a run on disk that can be taken up again.

A block ends where a frame is due or the cell must be turned. The next one starts from its last
frame, so that a run that was stopped between blocks goes on with the same numbers.
"""

from collections.abc import Mapping, Sequence
from typing import final

import numpy as np
from ase import Atoms

from tace_al.data.frames import frames_from_bytes, frames_to_bytes
from tace_al.engines.sampling.bond_events import BondTracker
from tace_al.engines.sampling.recorded_run import Resumable
from tace_al.engines.sampling.shear import FlowWatch, Shear, check_flow
from tace_al.engines.sampling.walkers import Unphysical


@final
class ShearRun(Resumable):
    """One structure that flows.

    Parameters
    ----------
    flow
        What shears it.
    atoms
        Where it starts.
    steps
        How far it goes.
    record_every
        Steps from one kept frame to the next.
    scale
        Calibration of the committee: a frame's `uncertainty` becomes an error bar.

    Attributes
    ----------
    shear_pressure
        P_xy in eV/A^3, one entry a step.
    drift
        Change in eV of what should be conserved, over all blocks.
    reason
        Why it ended before its last step; empty while nothing is wrong.
    """

    def __init__(
        self, flow: Shear, atoms: Atoms, *, steps: int, record_every: int, scale: float = 1.0
    ) -> None:
        check_flow(atoms)
        self.flow, self.steps, self.record_every, self.scale = flow, steps, record_every, scale
        self.shear_pressure = np.zeros(0)
        self.drift, self.reason = 0.0, ""
        self._place = atoms
        self._bonds = BondTracker(atoms)

    @property
    def running(self) -> bool:
        """Whether there are steps left and nothing broke."""
        return not self.reason and len(self.shear_pressure) < self.steps

    def advance(self, num_steps: int) -> Sequence[Atoms]:
        """Go on for at most one block; return its frame if one is due."""
        done = len(self.shear_pressure)
        due = self.record_every - done % self.record_every
        block = min(num_steps, due, self.flow.steps_per_turn, self.steps - done)
        watch = FlowWatch(Unphysical())
        walk = self.flow.run(self._place, block, stops=(watch,), record_every=due)
        self.shear_pressure = np.concatenate([self.shear_pressure, watch.shear_pressure])
        self.drift += watch.drift
        self._place = walk.final
        if walk.outcome == "broken":
            self.reason = walk.reason
        return [self._told(frame) for frame in walk.frames]

    def state(self) -> dict[str, np.ndarray]:
        """Return the series, the last frame and its bonds."""
        place = np.frombuffer(frames_to_bytes([self._place]), dtype=np.uint8)
        return {
            "shear_pressure": self.shear_pressure,
            "drift": np.array(self.drift),
            "reason": np.array(self.reason),
            "place": place,
            "bonds": self._bonds.state(),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take up series, frame and bonds."""
        self.shear_pressure = state["shear_pressure"]
        self.drift, self.reason = float(state["drift"]), str(state["reason"])
        (self._place,) = frames_from_bytes(state["place"].tobytes())
        self._bonds.restore(state["bonds"])

    def _told(self, frame: Atoms) -> Atoms:
        """Return a frame with its place in the whole run."""
        frame.info["walker"] = 0
        frame.info["step"] = len(self.shear_pressure)
        frame.info["time_fs"] = len(self.shear_pressure) * self.flow.timestep_fs
        frame.info["uncertainty"] *= self.scale
        self._bonds.look(frame).store(frame)
        return frame
