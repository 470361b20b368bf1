"""What a chunk of batched dynamics brings home: the frames that its committee does not know.

A `Gathering` is a stop condition that remembers. It looks at every step, keeps uncertain frames at
least `gap` steps apart and some known ones for audits, and stops the walker with enough of them or
when something breaks. Any integrator serves. See `sampler.py` for the thresholds.
"""

from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np
from ase import Atoms

from tace_al.engines.sampling.band_path import is_free_molecule
from tace_al.engines.sampling.bond_events import BondTracker
from tace_al.engines.sampling.physical_checks import broken_reason
from tace_al.engines.sampling.sampler import Chunk, Outcome, Thresholds, predicted_frame
from tace_al.engines.sampling.walkers import Snapshot, Stop, Trajectory, carry_on


@final
class Gathering:
    """Uncertain frames of one walker.

    Parameters
    ----------
    start
        Where the walker starts; bonds are compared with it.
    thresholds
        Which frames are worth a label.
    record_every
        Keep one known frame this often, for audits; 0 keeps none.
    gap
        Least number of steps between two uncertain frames.
    max_uncertain
        The walker stops when so many are gathered.
    max_separation
        A fragment further than this from the rest, in A, breaks the frame.
    finish
        Called with every kept frame before anything else is asked of it, to take a bias off.
    """

    def __init__(
        self,
        start: Atoms,
        thresholds: Thresholds,
        *,
        record_every: int = 100,
        gap: int = 10,
        max_uncertain: int = 10,
        max_separation: float = 8.0,
        finish: Callable[[Atoms], None] | None = None,
    ) -> None:
        self.start = start
        self.thresholds = thresholds
        self.record_every = record_every
        self.gap = gap
        self.max_uncertain = max_uncertain
        self.max_separation = max_separation
        self.finish = finish
        self.bonds = BondTracker(start)
        self.max_uncertainty = 0.0
        self._frames: list[Atoms] = []
        self._spare: Atoms | None = None  # the last uncertain frame too close to another
        self._last_uncertain: int | None = None
        self._num_uncertain = 0

    def __call__(self, snapshot: Snapshot) -> Stop | None:
        """Judge a step, keep its frame if it is worth it, and say why to stop."""
        uncertainty = self.thresholds.uncertainty(snapshot.prediction)
        self.max_uncertainty = max(self.max_uncertainty, uncertainty)
        reason = broken_reason(
            snapshot.atoms,
            snapshot.prediction,
            temperature=snapshot.bath_temperature,
            max_separation=self.max_separation,
        )
        verdict = self.thresholds.outcome(uncertainty)
        if reason is None and verdict == "broken":
            reason = f"the force error bar of {uncertainty:.2f} eV/A is above the reject level"
        if reason is not None:
            return Stop(reason=reason, broken=True)
        if verdict == "uncertain":
            return self._take_uncertain(snapshot)
        step = snapshot.step
        if self.record_every > 0 and step > 0 and step % self.record_every == 0:
            self._frames.append(self._frame(snapshot, "known"))
        return None

    def chunk(
        self,
        walk: Trajectory,
        *,
        observables: Mapping[str, Any] | None = None,
        state: Mapping[str, np.ndarray] | None = None,
    ) -> Chunk:
        """Return the chunk of the walker that this looked at, with what a sampler adds to it."""
        broken = walk.outcome == "broken"
        if broken and self._spare is not None:
            # the last look before the fall is the most instructive frame
            self._frames.append(self._spare)
            self._num_uncertain += 1
        known: Outcome = "uncertain" if self._num_uncertain else "known"
        last = walk.final
        if is_free_molecule(last):
            last.positions += self.start.get_center_of_mass() - last.get_center_of_mass()
        return Chunk(
            frames=tuple(self._frames),
            outcome="broken" if broken else known,
            reason=walk.reason,
            steps=walk.steps,
            final=last,
            max_uncertainty=self.max_uncertainty,
            observables=observables or {},
            state=state or {},
        )

    def _take_uncertain(self, snapshot: Snapshot) -> Stop | None:
        """Keep an uncertain frame unless one was kept a moment ago."""
        frame = self._frame(snapshot, "uncertain")
        if self._last_uncertain is not None and snapshot.step - self._last_uncertain < self.gap:
            self._spare = frame
            return None
        self._frames.append(frame)
        self._spare, self._last_uncertain = None, snapshot.step
        self._num_uncertain += 1
        if self._num_uncertain >= self.max_uncertain:
            return Stop(reason=f"{self._num_uncertain} uncertain frames gathered")
        return None

    def _frame(self, snapshot: Snapshot, verdict: Outcome) -> Atoms:
        """Return the frame to keep."""
        frame = predicted_frame(snapshot.atoms, snapshot.prediction, self.thresholds)
        carry_on(snapshot.atoms, frame)
        if self.finish is not None:
            self.finish(frame)
        frame.info["step"] = snapshot.step
        frame.info["time_fs"] = snapshot.time_fs
        frame.info["temperature"] = snapshot.temperature
        frame.info["verdict"] = verdict
        self.bonds.look(frame).store(frame)
        return frame
