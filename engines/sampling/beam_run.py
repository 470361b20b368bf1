"""The trajectories of a beam, many at once, each watched until its verdict is clear.

A batch brings some copies of the slab to their temperature, takes snapshots of them, launches a
projectile at each and runs all in one batch of dynamics. Numbers of a trajectory hang on the
seed, the size of a batch and its index alone, so that a run that was stopped goes on with the
batches it has not done.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
from ase import Atoms

from tace_al.core.random_generators import random_generator, random_seed
from tace_al.engines.sampling.batched_md import BatchedDynamics
from tace_al.engines.sampling.bath import AtomBaths
from tace_al.engines.sampling.beam import (
    BeamSettings,
    Impact,
    Slab,
    Verdict,
    centre_energy,
    launched,
    prepare_slab,
    projectile_atoms,
)
from tace_al.engines.sampling.bond_events import BondTracker
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.sampler import Thresholds, predicted_frame
from tace_al.engines.sampling.walkers import Snapshot, Stop, Trajectory, Walker, carry_on

CONTACT = 3.5
"""Angstrom above the surface's highest atom, below which a projectile is in contact."""
LAYER_BELOW = 1.0
"""Angstrom below the lowest layer, from where a projectile counts as through."""
MOST_SURFACES = 8
SPACING = 40
"""Steps between two snapshots of one copy of the slab."""
EQUILIBRATION_FRICTION = 0.02
"""1/fs"""
LEAST_DRIFT = 0.3
"""eV, and a tenth of the beam's energy: a larger change of the conserved energy breaks it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Keeping:
    """Which frames of a trajectory are kept.

    Parameters
    ----------
    every
        One frame so often whatever it is; 0 keeps none but uncertain ones.
    thresholds
        Of a committee: uncertain frames are kept, at least `gap` steps apart and `most` of them; a
        broken one ends the trajectory. Without them nothing is uncertain.
    """

    every: int = 0
    thresholds: Thresholds | None = None
    gap: int = 10
    most: int = 5


def run_beam(
    potential: Potential,
    surface: Atoms,
    settings: BeamSettings,
    *,
    number: int,
    seed: int,
    keeping: Keeping | None = None,
    batch: int = 32,
    first: int = 0,
) -> Iterator[list[Impact]]:
    """Yield what became of `number` projectiles, batch by batch.

    Parameters
    ----------
    surface
        Slab with its normal along z; atoms it holds stay, else its lowest layer does.
    batch
        Trajectories that run at once.
    first
        Batches from this one on: how many were done before.
    """
    slab = prepare_slab(surface, clearance=settings.clearance)
    keeping = Keeping() if keeping is None else keeping
    for index, start in enumerate(range(0, number, batch)):
        if index < first:
            continue
        count = min(batch, number - start)
        snapshots = _snapshots(potential, slab, settings, count, random_seed(seed, "slab", index))
        walkers, watches = [], []
        for place, snapshot in enumerate(snapshots):
            rng = random_generator(seed, "launch", start + place)
            atoms = launched(slab, snapshot, settings, rng)
            watch = _Watch(atoms, slab, settings, keeping)
            watches.append(watch)
            walkers.append(
                Walker(
                    atoms,
                    steps=settings.steps,
                    temperature=settings.temperature,
                    seed=random_seed(seed, "bath", start + place),
                    stops=(watch,),
                )
            )
        frictions = np.where(slab.bathed, settings.friction, 0.0).tolist()
        baths = AtomBaths(frictions=(*frictions, *[0.0] * watches[0].number))
        dynamics = BatchedDynamics(potential, walkers, baths, timestep_fs=settings.timestep_fs)
        walks = dynamics.run()
        yield [watch.impact(walk) for watch, walk in zip(watches, walks, strict=True)]


def _snapshots(
    potential: Potential, slab: Slab, settings: BeamSettings, count: int, seed: int
) -> list[Atoms]:
    """Return thermal snapshots of a slab with their momenta."""
    copies = min(count, MOST_SURFACES)
    rounds = -(-count // copies)
    steps = settings.equilibration + SPACING * (rounds - 1)
    if steps == 0:
        return [slab.atoms] * count
    free = tuple(np.full(len(slab.atoms), EQUILIBRATION_FRICTION).tolist())
    walkers = [
        Walker(
            slab.atoms,
            steps=steps,
            temperature=settings.temperature,
            seed=random_seed(seed, copy),
        )
        for copy in range(copies)
    ]
    dynamics = BatchedDynamics(
        potential, walkers, AtomBaths(frictions=free), timestep_fs=settings.timestep_fs
    )
    snapshots: list[Atoms] = []
    for turn in range(rounds):
        walks = dynamics.run(settings.equilibration if turn == 0 else SPACING)
        snapshots += [walk.final for walk in walks]
    return snapshots[:count]


@final
class _Watch:
    """Looks at a trajectory step by step, keeps frames, and stops it when its verdict is clear."""

    def __init__(self, start: Atoms, slab: Slab, settings: BeamSettings, keeping: Keeping) -> None:
        self.slab, self.settings, self.keeping = slab, settings, keeping
        self.number = len(projectile_atoms(settings.projectile))
        self.bonds = BondTracker(start)
        self.verdict: Verdict = "undecided"
        self.frames: list[Atoms] = []
        self.max_uncertainty = 0.0
        self.drift = 0.0
        self._conserved: float | None = None
        self._contact_fs: float | None = None
        self._last_kept = -(10**9)
        self._num_uncertain = 0

    def __call__(self, snapshot: Snapshot) -> Stop | None:
        """Judge a step."""
        if self._conserved is None:
            self._conserved = snapshot.conserved
        self.drift = snapshot.conserved - self._conserved
        limit = max(LEAST_DRIFT, 0.1 * self.settings.energy_ev)
        if abs(self.drift) > limit:
            reason = f"the conserved energy has changed by {self.drift:.2f} eV"
            return Stop(reason=f"{reason}; a shorter time step may help", broken=True)
        stop = self._look_for_uncertainty(snapshot)
        if stop is not None:
            return stop
        verdict = self._verdict(snapshot)
        if verdict is None:
            return None
        self.verdict = verdict
        return Stop(reason=verdict)

    def impact(self, walk: Trajectory) -> Impact:
        """Return what became of it."""
        self.bonds.look(walk.final).store(walk.final)
        return Impact(
            verdict="broken" if walk.outcome == "broken" else self.verdict,
            reason=walk.reason,
            time_fs=walk.steps * self.settings.timestep_fs,
            energy_ev=centre_energy(walk.final, self.number),
            conserved_drift_ev=self.drift,
            max_uncertainty=self.max_uncertainty,
            final=walk.final,
            frames=tuple(self.frames),
        )

    def _verdict(self, snapshot: Snapshot) -> Verdict | None:
        """Return what became of the projectile, or None while that is open."""
        heights = snapshot.atoms.positions[:, 2]
        rising = snapshot.atoms.get_momenta()[:, 2] > 0.0
        away = (heights > self.slab.top + self.settings.clearance) & rising
        shot = slice(-self.number, None)
        lowest = float(heights[shot].min())
        if self._contact_fs is None and lowest < self.slab.top + CONTACT:
            self._contact_fs = snapshot.time_fs
        if lowest < self.slab.bottom - LAYER_BELOW:
            return "penetrated"
        if away[: -self.number].any():
            return "sputtered"
        if away[shot].all():
            return "reflected"
        touched = self._contact_fs
        if touched is not None and snapshot.time_fs - touched >= self.settings.stick_fs:
            near = heights[shot] < self.slab.top + CONTACT
            return "stuck" if near.any() else None
        return None

    def _look_for_uncertainty(self, snapshot: Snapshot) -> Stop | None:
        """Keep the frame if it is due or uncertain; return why to stop."""
        keeping = self.keeping
        step, verdict = snapshot.step, "known"
        if keeping.thresholds is not None:
            uncertainty = keeping.thresholds.uncertainty(snapshot.prediction)
            self.max_uncertainty = float(np.fmax(self.max_uncertainty, uncertainty))
            verdict = keeping.thresholds.outcome(uncertainty)
            if verdict == "broken":
                reason = f"the force error bar of {uncertainty:.2f} eV/A is above the reject level"
                return Stop(reason=reason, broken=True)
        due = keeping.every > 0 and step % keeping.every == 0
        if verdict == "uncertain":
            due = step - self._last_kept >= keeping.gap and self._num_uncertain < keeping.most
        if due:
            self._keep(snapshot, verdict)
        return None

    def _keep(self, snapshot: Snapshot, verdict: str) -> None:
        """Keep a frame."""
        frame = predicted_frame(snapshot.atoms, snapshot.prediction, self.keeping.thresholds)
        carry_on(snapshot.atoms, frame)
        frame.info["step"] = snapshot.step
        frame.info["time_fs"] = snapshot.time_fs
        frame.info["temperature"] = snapshot.temperature
        frame.info["verdict"] = verdict
        self.bonds.look(frame).store(frame)
        self.frames.append(frame)
        if verdict == "uncertain":
            self._last_kept = snapshot.step
            self._num_uncertain += 1
