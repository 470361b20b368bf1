"""Molecular dynamics of many walkers in one call of a potential a step.

Walkers may differ in everything: atoms, cell, temperature, length. The potential sees all of them
as one batch, a committee with every member, so that the uncertainty of each step costs nothing
more. A walker that is done, stopped or broken leaves the batch, and those that stay do not notice.
Integrators are in `integrators.py`, starts, stop conditions and results in `walkers.py`.

A frame breaks a walker whatever its conditions say when an atom moved more than `LARGEST_MOVE`, or
a cell was strained by more than `LARGEST_STRAIN`, in one step, when the potential refuses it
(coinciding atoms), or when it predicts what is not finite.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, final

import numpy as np
from ase import Atoms, units

from tace_al.core.errors import ConfigError, SamplerError, StructureError
from tace_al.core.random_generators import random_generator
from tace_al.data.frames import fixed_mask, frames_from_bytes, frames_to_bytes
from tace_al.engines.sampling.integrators import Integrator, Langevin, Phase, join_phases
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.sampler import predicted_frame
from tace_al.engines.sampling.walkers import (
    Snapshot,
    Stop,
    Trajectory,
    Walker,
    carry_on,
    degrees_of_freedom,
    moving_copy,
    starting_momenta,
    without_overall_motion,
)
from tace_al.model.prediction import Prediction

LARGEST_MOVE = 1.0
"""Angstrom in one step; hydrogen at 10 000 K goes 0.16 in a femtosecond."""

LARGEST_STRAIN = 0.05
"""Of a cell's length in one step."""

Outcome = Literal["running", "done", "stopped", "broken"]


@final
class BatchedDynamics:
    """Walkers in flight.

    Parameters
    ----------
    potential
        What drives them, asked once a step about all that still move.
    walkers
        Their starts; left as they are.
    integrator
        `ConstantEnergy()`, `Langevin()`, `NoseHooverChain()`, or `LangevinPiston()` of
        `barostat.py`.
    timestep_fs
        fs.
    record_every
        Keep one frame this often; 0 keeps none.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from tace_al.engines.sampling.potential import CalculatorPotential
    >>> from ase.calculators.emt import EMT
    >>> walkers = [Walker(molecule(name), steps=20, seed=7) for name in ("H2O", "CH4")]
    >>> dynamics = BatchedDynamics(CalculatorPotential(EMT()), walkers, record_every=10)
    >>> [(walk.outcome, walk.steps, len(walk.frames)) for walk in dynamics.run()]
    [('done', 20, 2), ('done', 20, 2)]
    """

    def __init__(
        self,
        potential: Potential,
        walkers: Sequence[Walker],
        integrator: Integrator | None = None,
        *,
        timestep_fs: float = 0.5,
        record_every: int = 0,
    ) -> None:
        if not walkers:
            raise SamplerError("there are no walkers; give at least one")
        if not timestep_fs > 0.0:
            raise ConfigError(f"`timestep_fs` is {timestep_fs}; give a positive number")
        self.potential = potential
        self.walkers = tuple(walkers)
        self.integrator = Langevin() if integrator is None else integrator
        if self.integrator.moves_cell and not all(w.atoms.pbc.all() for w in walkers):
            raise SamplerError(
                "the cell of a structure that is not periodic in three directions cannot change; "
                "give it a periodic cell, or hold its volume"
            )
        self.timestep_fs = timestep_fs
        self.record_every = record_every
        self._progress = [_Progress.of(walker, self.integrator) for walker in self.walkers]
        self._moving = np.arange(len(self.walkers))
        self._phase = join_phases([progress.phase for progress in self._progress])
        self._evaluated = False

    @property
    def num_moving(self) -> int:
        """Number of walkers still in the batch."""
        return len(self._moving)

    def run(self, num_steps: int | None = None) -> tuple[Trajectory, ...]:
        """Go on until every walker has ended, or for some steps; return what there is.

        Parameters
        ----------
        num_steps
            At most so many steps of the batch in this call.
        """
        if not self._evaluated:
            self._evaluated = True
            self._arrive(self._phase, self._phase, start=True)
        done = 0
        while self.num_moving and (num_steps is None or done < num_steps):
            self._step()
            done += 1
        return self.trajectories()

    def take_frames(self) -> list[tuple[int, Atoms]]:
        """Return the frames recorded since the last call with their walkers, and forget them.

        In order of steps, walkers of one step in order. For long runs, whose frames go to disk.
        """
        taken = [(i, frame) for i, item in enumerate(self._progress) for frame in item.frames]
        for progress in self._progress:
            progress.frames = []
        return sorted(taken, key=lambda entry: (entry[1].info["step"], entry[0]))

    def trajectories(self) -> tuple[Trajectory, ...]:
        """Return what each walker has gathered so far, in order."""
        self._settle()
        return tuple(progress.trajectory() for progress in self._progress)

    def state(self) -> dict[str, np.ndarray]:
        """Return everything that a run needs to go on as if it had not been interrupted.

        Plain arrays, for `numpy.savez`; `restore` takes them. Frames gathered so far are included.
        """
        self._settle()
        whole = join_phases([progress.phase for progress in self._progress])
        recorded = [(i, frame) for i, item in enumerate(self._progress) for frame in item.frames]
        triggers = [
            (i, item.trigger) for i, item in enumerate(self._progress) if item.trigger is not None
        ]
        frames = frames_to_bytes([frame for _, frame in (*recorded, *triggers)])
        streams = [json.dumps(item.rng.bit_generator.state) for item in self._progress]
        return {
            "settings": np.array(self._settings()),
            "evaluated": np.array(self._evaluated),
            "numbers": self._numbers(),
            **{name: getattr(whole, name) for name in _SAVED},
            "max_uncertainty": np.array([item.max_uncertainty for item in self._progress]),
            "outcome": np.array([item.outcome for item in self._progress]),
            "reason": np.array([item.reason for item in self._progress]),
            "random_streams": np.array(streams),
            "recorded_walkers": np.array([i for i, _ in recorded], dtype=np.int64),
            "trigger_walkers": np.array([i for i, _ in triggers], dtype=np.int64),
            "frames": np.frombuffer(frames, dtype=np.uint8),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take up a state of the same walkers, integrator and time step.

        Raises
        ------
        SamplerError
            The state is of something else.
        """
        if str(state["settings"]) != self._settings() or not np.array_equal(
            state["numbers"], self._numbers()
        ):
            raise SamplerError(
                f"the state is of other walkers or of {state['settings']}, here is "
                f"{self._settings()}; restore it into the dynamics it came from"
            )
        whole = join_phases([progress.phase for progress in self._progress])
        whole = replace(whole, **{name: state[name] for name in _SAVED})
        for index, (progress, phase) in enumerate(zip(self._progress, whole.split(), strict=True)):
            progress.phase = phase
            progress.max_uncertainty = float(state["max_uncertainty"][index])
            progress.outcome = state["outcome"][index].item()
            if progress.outcome == "done" and int(phase.steps[0]) < progress.walker.steps:
                progress.outcome = "running"  # the same walker, sent further
            progress.reason = state["reason"][index].item()
            progress.rng.bit_generator.state = json.loads(str(state["random_streams"][index]))
            progress.frames, progress.trigger = [], None
        frames = iter(frames_from_bytes(state["frames"].tobytes()))
        for index in state["recorded_walkers"].tolist():
            self._progress[index].frames.append(next(frames))
        for index in state["trigger_walkers"].tolist():
            self._progress[index].trigger = next(frames)
        self._evaluated = bool(state["evaluated"])
        running = np.array([progress.outcome == "running" for progress in self._progress])
        self._moving = np.flatnonzero(running)
        self._phase = whole.only(running)

    def _settings(self) -> str:
        """Return what a state must agree with."""
        return f"{self.integrator!r} at {self.timestep_fs} fs"

    def _numbers(self) -> np.ndarray:
        """Return the elements of every walker end to end, with a zero after each."""
        return np.concatenate([[*walker.atoms.numbers, 0] for walker in self.walkers])

    def _settle(self) -> None:
        """Write the phases of moving walkers to their places."""
        for index, phase in zip(self._moving.tolist(), self._phase.split(), strict=True):
            self._progress[index].phase = phase

    def _step(self) -> None:
        """Take every moving walker one step further."""
        before = self._phase
        noise = None
        timestep = self.timestep_fs * units.fs
        trial = replace(before, steps=before.steps + 1)
        if self.integrator.stochastic:
            counts = np.bincount(before.walker_index).tolist()
            streams = [self._progress[index].rng for index in self._moving.tolist()]
            noise = np.concatenate(
                [rng.standard_normal((n, 3)) for rng, n in zip(streams, counts, strict=True)]
            )
            if self.integrator.moves_cell:
                strain_noise = np.stack([rng.standard_normal(3) for rng in streams])
                trial = replace(trial, strain_noise=strain_noise)
        if self.integrator.moves_cell:
            trial = replace(trial, pressure=self._pressure(trial))
        trial = self.integrator.before_forces(trial, timestep, self._kT(trial), noise)
        self._arrive(trial, before)

    def _kT(self, phase: Phase) -> np.ndarray:
        """Return (walkers,) kT of the bath in eV at the walkers' steps."""
        walkers = [self.walkers[index] for index in self._moving.tolist()]
        temperatures = [
            walker.temperature_at(step)
            for walker, step in zip(walkers, phase.steps.tolist(), strict=True)
        ]
        return units.kB * np.array(temperatures)

    def _pressure(self, phase: Phase) -> np.ndarray:
        """Return (walkers,) pressures of the barostat in eV/A^3 at the walkers' steps."""
        pairs = zip(self._moving.tolist(), phase.steps.tolist(), strict=True)
        return np.array([self.walkers[index].pressure_at(step) for index, step in pairs])

    def _arrive(self, trial: Phase, before: Phase, *, start: bool = False) -> None:
        """Evaluate the positions of a step, finish it, and part with walkers that end there."""
        answers = self._answers(trial, before)
        refused = [answer if isinstance(answer, Stop) else None for answer in answers]
        if any(refused):
            good = self._leave(refused, before, trial)
            trial, before = trial.only(good), before.only(good)
        predictions = [answer for answer in answers if isinstance(answer, Prediction)]
        self._phase = trial
        if not predictions:
            return
        forces = np.concatenate([prediction.member_forces for prediction in predictions], axis=1)
        mean = forces.mean(axis=0)
        phase = replace(trial, forces=mean * trial.free)
        if self.integrator.moves_cell:
            phase = replace(phase, stress=_stresses(predictions))
        if not start:
            phase = self.integrator.after_forces(
                phase, self.timestep_fs * units.fs, self._kT(phase)
            )
        spread = np.sqrt(((forces - mean) ** 2).sum(axis=2).mean(axis=0))
        uncertainty = np.zeros(phase.num_walkers)
        np.maximum.at(uncertainty, phase.walker_index, spread)
        stops = self._judge(phase, predictions, uncertainty)
        self._phase = phase.only(self._leave(stops, before, phase))

    def _answers(self, trial: Phase, before: Phase) -> list[Prediction | Stop]:
        """Return what the potential says about each moving walker, or why it cannot be asked."""
        moved = np.zeros(trial.num_walkers)
        came_from = before.positions
        strained = np.zeros(trial.num_walkers)
        if self.integrator.moves_cell:  # what only went along with its cell has not moved
            strain = np.linalg.solve(before.cells, trial.cells)
            came_from = np.einsum("ax,axy->ay", came_from, strain[trial.walker_index])
            strained = np.nan_to_num(np.abs(strain - np.eye(3)).max(axis=(1, 2)), nan=np.inf)
        lengths = np.linalg.norm(trial.positions - came_from, axis=1)
        np.maximum.at(moved, trial.walker_index, np.nan_to_num(lengths, nan=np.inf))
        frames: list[Atoms] = []
        for index, atoms in zip(self._moving.tolist(), trial.slices(), strict=True):
            frame = self._progress[index].atoms
            frame.arrays["positions"][:] = trial.positions[atoms]
            if self.integrator.moves_cell:
                frame.set_cell(trial.cells[len(frames)])
            frames.append(frame)
        near = ((moved <= LARGEST_MOVE) & (strained <= LARGEST_STRAIN)).tolist()
        asked = iter(self._predict([frame for frame, ok in zip(frames, near, strict=True) if ok]))
        return [
            next(asked) if ok else Stop(reason=_runaway(length, strain), broken=True)
            for ok, length, strain in zip(near, moved.tolist(), strained.tolist(), strict=True)
        ]

    def _predict(self, frames: list[Atoms]) -> list[Prediction | Stop]:
        """Return one prediction a frame, or why there is none."""
        if not frames:
            return []
        try:
            return [_checked(prediction) for prediction in self.potential.predict(frames)]
        except StructureError as error:  # of one frame: find it, and let the others go on
            if len(frames) == 1:
                return [Stop(reason=str(error).partition(";")[0], broken=True)]
            return [self._predict([frame])[0] for frame in frames]

    def _judge(
        self, phase: Phase, predictions: Sequence[Prediction], uncertainty: np.ndarray
    ) -> list[Stop | None]:
        """Keep what is due and return why walkers end, one entry each."""
        temperature, kT = phase.temperature(), self._kT(phase)
        energies = np.array([prediction.energy for prediction in predictions])
        conserved = energies + phase.kinetic_energy() + self.integrator.bath_energy(phase, kT)
        stops: list[Stop | None] = []
        for place, atoms in enumerate(phase.slices()):
            progress = self._progress[self._moving[place]]
            step = int(phase.steps[place])
            worst = float(uncertainty[place])
            progress.max_uncertainty = max(progress.max_uncertainty, worst)
            due = step > 0 and self.record_every > 0 and step % self.record_every == 0
            stop = _ALL_STEPS if step >= progress.walker.steps else None
            if due or progress.walker.stops:
                progress.atoms.arrays["momenta"][:] = phase.momenta[atoms]
                snapshot = Snapshot(
                    atoms=progress.atoms,
                    prediction=predictions[place],
                    step=step,
                    time_fs=step * self.timestep_fs,
                    temperature=float(temperature[place]),
                    bath_temperature=float(kT[place]) / units.kB,
                    uncertainty=worst,
                    conserved=float(conserved[place]),
                )
                stop = progress.look(snapshot, due=due) or stop
            stops.append(stop)
        return stops

    def _leave(self, stops: Sequence[Stop | None], before: Phase, phase: Phase) -> np.ndarray:
        """End the walkers that have a reason to; return the mask of the others."""
        staying = np.array([stop is None for stop in stops])
        if staying.all():
            return staying
        previous, current = before.split(), phase.split()
        for place, stop in enumerate(stops):
            if stop is not None:
                progress = self._progress[self._moving[place]]
                progress.phase = (previous if stop.broken else current)[place]
                progress.reason = stop.reason
                progress.outcome = "done" if stop is _ALL_STEPS else "stopped"
                if stop.broken:
                    progress.outcome = "broken"
                    progress.reason = f"{stop.reason} at step {phase.steps[place]}"
        self._moving = self._moving[staying]
        return staying


_SAVED = (
    *("positions", "momenta", "forces", "steps", "heat", "chain"),
    *("cells", "stress", "pressure", "strain_momenta"),
)
_ALL_STEPS = Stop(reason="all steps done")


def _checked(prediction: Prediction) -> Prediction | Stop:
    """Return a prediction, or a stop where it is not finite."""
    numbers = (prediction.member_energies, prediction.member_forces)
    if all(np.isfinite(values).all() for values in numbers):
        return prediction
    return Stop(reason="the potential predicts something that is not finite", broken=True)


def _runaway(length: float, strain: float) -> str:
    """Return what went too far in one step."""
    if strain > LARGEST_STRAIN:
        return f"the cell changed by {100.0 * strain:.0f}% in one step"
    return f"an atom moved {length:.1f} A in one step"


def _stresses(predictions: Sequence[Prediction]) -> np.ndarray:
    """Return the (walkers, 3, 3) stresses that a barostat needs."""
    found = [prediction.stress for prediction in predictions if prediction.stress is not None]
    if len(found) < len(predictions):
        raise SamplerError(
            "a cell that changes needs stresses, which this potential does not predict; take one "
            "that does, or hold the volume"
        )
    return np.stack(found)


@final
@dataclass(kw_only=True, slots=True)
class _Progress:
    """One walker: its frame in the batch, its random stream, and what it has gathered.

    `phase` is current only while the walker is not moving, and after `_settle`.
    """

    walker: Walker
    atoms: Atoms
    rng: np.random.Generator
    phase: Phase
    frames: list[Atoms] = field(default_factory=list)
    trigger: Atoms | None = None
    outcome: Outcome = "running"
    reason: str = ""
    max_uncertainty: float = 0.0

    @classmethod
    def of(cls, walker: Walker, integrator: Integrator) -> "_Progress":
        """Put a walker at its start."""
        rng = random_generator(walker.seed, "batched dynamics")
        start, still = walker.atoms, not integrator.stochastic
        momenta = starting_momenta(walker, rng, still=still)
        if integrator.links:
            momenta = without_overall_motion(start, momenta)
        phase = Phase(
            positions=start.positions.copy(),
            momenta=momenta,
            forces=np.zeros((len(start), 3)),
            masses=start.get_masses()[:, None],
            free=(~fixed_mask(start)).astype(np.float64)[:, None],
            walker_index=np.zeros(len(start), dtype=np.int64),
            steps=np.zeros(1, dtype=np.int64),
            degrees_of_freedom=np.array([degrees_of_freedom(start, still=still)]),
            heat=np.zeros(1),
            chain=np.zeros((1, 2, integrator.links)),
            cells=start.cell.array[None].copy(),
            stress=np.zeros((1, 3, 3)),
            pressure=np.array([walker.pressure]),
            strain_momenta=np.zeros((1, 3)),
            strain_noise=np.zeros((1, 3)),
        )
        return cls(walker=walker, atoms=moving_copy(start, momenta=momenta), rng=rng, phase=phase)

    def look(self, snapshot: Snapshot, *, due: bool) -> Stop | None:
        """Ask the conditions, keep the frame if it is due or the last; return why to stop."""
        stop = None
        for condition in self.walker.stops:
            stop = stop or condition(snapshot)
        if stop is not None and not stop.broken:
            self.trigger = _recorded(snapshot)
            self.trigger.info["reason"] = stop.reason
        elif stop is None and due:
            self.frames.append(_recorded(snapshot))
        return stop

    def trajectory(self) -> Trajectory:
        """Return what has been gathered."""
        return Trajectory(
            frames=tuple(self.frames),
            trigger=self.trigger,
            outcome=self.outcome,
            reason=self.reason,
            steps=int(self.phase.steps[0]),
            final=moving_copy(
                self.walker.atoms,
                self.phase.positions,
                self.phase.momenta,
                cell=self.phase.cells[0],
            ),
            max_uncertainty=self.max_uncertainty,
        )


def _recorded(snapshot: Snapshot) -> Atoms:
    """Return the frame to keep of a step."""
    frame = predicted_frame(snapshot.atoms, snapshot.prediction)
    carry_on(snapshot.atoms, frame)
    frame.set_momenta(snapshot.atoms.get_momenta(), apply_constraint=False)
    frame.info["step"] = snapshot.step
    frame.info["time_fs"] = snapshot.time_fs
    frame.info["temperature"] = snapshot.temperature
    frame.info["conserved"] = snapshot.conserved
    stress = snapshot.prediction.stress
    if stress is not None:
        volume, kinetic = frame.get_volume(), snapshot.atoms.get_kinetic_energy()
        frame.info["volume"] = volume
        frame.info["pressure"] = 2.0 * kinetic / (3.0 * volume) - float(np.trace(stress)) / 3.0
    return frame
