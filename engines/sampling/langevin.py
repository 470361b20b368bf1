"""Langevin dynamics on a committee: explore at a temperature, gather what it does not know.

m dv = F dt - m gamma v dt + sqrt(2 m gamma kT) dW, integrated as equation 23 of Vanden-Eijnden and
Ciccotti, 10.1016/j.cplett.2006.07.086 (in ASE), one prediction a step. All degrees of freedom are
thermostatted, centre of mass and rotation included: that is the canonical ensemble, and the energy
does not see them; a free molecule is moved back to where it started at the end of a chunk.
"""

from dataclasses import KW_ONLY, dataclass, field
from typing import final

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin

from tace_al.core.errors import ConfigError
from tace_al.core.random_generators import random_generator
from tace_al.data.frames import bare_copy, fixed_mask
from tace_al.engines.sampling.band_path import is_free_molecule
from tace_al.engines.sampling.physical_checks import broken_reason
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.potential_calculator import PotentialCalculator
from tace_al.engines.sampling.sampler import Chunk, Outcome, Sampler, Thresholds, predicted_frame
from tace_al.model.prediction import Prediction


@final
@dataclass(frozen=True, slots=True)
class LangevinSampler(Sampler):
    """One chunk of Langevin dynamics, at constant or rising temperature.

    Parameters
    ----------
    potential, thresholds
        What drives the atoms, and which of its frames are worth a label.
    temperature, temperature_end
        In K at the first and last step, linear between; constant without the second.
    timestep_fs, friction
        In fs and 1/fs.
    steps
        Length of the chunk.
    record_every
        Keep one known frame this often, for audits; 0 keeps none.
    gap
        Least number of steps between two uncertain frames.
    max_uncertain
        The chunk ends when it has gathered this many.
    max_separation
        A fragment further than this from the rest, in A, breaks the frame.
    seed
        Of initial velocities and thermostat; give each chunk of a walker its own.
    """

    potential: Potential
    thresholds: Thresholds
    _: KW_ONLY
    temperature: float
    temperature_end: float | None = None
    timestep_fs: float = 0.5
    friction: float = 0.02
    steps: int = 1000
    record_every: int = 100
    gap: int = 10
    max_uncertain: int = 10
    max_separation: float = 8.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        positive = ("temperature", "timestep_fs", "friction", "steps", "gap", "max_uncertain")
        for name in positive:
            if not getattr(self, name) > 0:
                raise ConfigError(f"`{name}` is {getattr(self, name)}; give a positive number")
        if self.temperature_end is not None and not self.temperature_end > 0:
            raise ConfigError(f"`temperature_end` is {self.temperature_end} K; give more than 0")

    def run(self, atoms: Atoms) -> Chunk:
        """Return one chunk from `atoms`, going on with its momenta where it has any."""
        rng = random_generator(self.seed, "langevin")
        walker = bare_copy(atoms)
        walker.set_momenta(self._momenta(atoms, rng), apply_constraint=False)
        calculator = PotentialCalculator(self.potential)
        walker.calc = calculator
        gathered = _Gathered(sampler=self, centre=walker.get_center_of_mass())
        forces = walker.get_forces(md=True)
        assert calculator.prediction is not None
        reason = gathered.take(walker, calculator.prediction, step=0)
        dynamics = Langevin(
            walker,
            self.timestep_fs * units.fs,
            temperature_K=self.temperature,
            friction=self.friction / units.fs,
            fixcm=False,
            rng=rng,
        )
        for step in range(1, self.steps + 1):
            if reason is not None:
                break
            if self.temperature_end is not None:
                dynamics.set_temperature(temperature_K=self.temperature_at(step))
            forces = dynamics.step(forces)
            reason = gathered.take(walker, calculator.prediction, step=step)
        return gathered.chunk(walker, reason or "all steps done")

    def temperature_at(self, step: int) -> float:
        """Return the thermostat's temperature in K at a step."""
        if self.temperature_end is None:
            return self.temperature
        return self.temperature + (self.temperature_end - self.temperature) * step / self.steps

    def _momenta(self, atoms: Atoms, rng: np.random.Generator) -> np.ndarray:
        """Return the structure's own momenta, or Maxwell-Boltzmann ones where it has none."""
        momenta = np.array(atoms.get_momenta())
        if not momenta.any():
            widths = np.sqrt(atoms.get_masses() * units.kB * self.temperature)
            momenta = widths[:, None] * rng.standard_normal((len(atoms), 3))
        momenta[fixed_mask(atoms)] = 0.0
        return momenta


@final
@dataclass(kw_only=True, slots=True)
class _Gathered:
    """What a chunk has gathered so far."""

    sampler: LangevinSampler
    centre: np.ndarray
    frames: list[Atoms] = field(default_factory=list)
    good: Atoms | None = None
    spare: Atoms | None = None  # the last uncertain frame too close to another to be kept
    last_uncertain: int | None = None
    num_uncertain: int = 0
    good_steps: int = 0
    max_uncertainty: float = 0.0
    broken: bool = False

    def take(self, walker: Atoms, prediction: Prediction | None, *, step: int) -> str | None:
        """Judge the frame of a step, keep it if it is worth it; return why to stop, or None."""
        assert prediction is not None
        sampler = self.sampler
        uncertainty = sampler.thresholds.uncertainty(prediction)
        self.max_uncertainty = float(np.fmax(self.max_uncertainty, uncertainty))
        verdict = sampler.thresholds.outcome(uncertainty)
        reason = broken_reason(
            walker,
            prediction,
            temperature=sampler.temperature_at(step),
            max_separation=sampler.max_separation,
        )
        if reason is None and verdict == "broken":
            reason = f"the force error bar of {uncertainty:.2f} eV/A is above the reject level"
        if reason is not None:
            self.broken = True
            return f"{reason} at step {step}"
        self.good, self.good_steps = self._resting_copy(walker), step
        if verdict == "uncertain":
            return self._take_uncertain(walker, prediction, step)
        if sampler.record_every > 0 and step > 0 and step % sampler.record_every == 0:
            self.frames.append(self._frame(walker, prediction, step=step, verdict=verdict))
        return None

    def chunk(self, walker: Atoms, reason: str) -> Chunk:
        """Return the finished chunk."""
        if self.broken and self.spare is not None:
            # the last look before the fall is the most instructive frame
            self.frames.append(self.spare)
            self.num_uncertain += 1
        outcome: Outcome = "uncertain" if self.num_uncertain else "known"
        final_frame = self.good if self.good is not None else self._resting_copy(walker)
        if is_free_molecule(final_frame):
            final_frame.positions += self.centre - final_frame.get_center_of_mass()
        return Chunk(
            frames=tuple(self.frames),
            outcome="broken" if self.broken else outcome,
            reason=reason,
            steps=self.good_steps,
            final=final_frame,
            max_uncertainty=self.max_uncertainty,
        )

    def _take_uncertain(self, walker: Atoms, prediction: Prediction, step: int) -> str | None:
        """Keep an uncertain frame unless one was kept a moment ago."""
        frame = self._frame(walker, prediction, step=step, verdict="uncertain")
        if self.last_uncertain is not None and step - self.last_uncertain < self.sampler.gap:
            self.spare = frame
            return None
        self.frames.append(frame)
        self.spare, self.last_uncertain = None, step
        self.num_uncertain += 1
        if self.num_uncertain >= self.sampler.max_uncertain:
            return f"{self.num_uncertain} uncertain frames gathered"
        return None

    def _frame(
        self, walker: Atoms, prediction: Prediction, *, step: int, verdict: Outcome
    ) -> Atoms:
        """Return the frame to keep."""
        frame = predicted_frame(walker, prediction, self.sampler.thresholds)
        frame.info["step"] = step
        frame.info["time_fs"] = step * self.sampler.timestep_fs
        frame.info["temperature"] = float(walker.get_temperature())
        frame.info["verdict"] = verdict
        return frame

    def _resting_copy(self, walker: Atoms) -> Atoms:
        """Return the structure with its momenta and nothing else."""
        copy = bare_copy(walker)
        copy.set_momenta(walker.get_momenta(), apply_constraint=False)
        return copy
