"""Langevin dynamics on a committee: explore at a temperature, gather what it does not know.

m dv = F dt - m gamma v dt + sqrt(2 m gamma kT) dW, integrated as equation 23 of Vanden-Eijnden and
Ciccotti, 10.1016/j.cplett.2006.07.086 (in ASE), one prediction a step. All degrees of freedom are
thermostatted, centre of mass and rotation included: that is the canonical ensemble, and the energy
does not see them; a free molecule is moved back to where it started at the end of a chunk.
"""

from dataclasses import KW_ONLY, dataclass
from typing import final

from ase import Atoms, units
from ase.md.langevin import Langevin

from tace_al.core.errors import ConfigError
from tace_al.core.random_generators import random_generator
from tace_al.engines.sampling.gathering import Gathering
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.potential_calculator import PotentialCalculator
from tace_al.engines.sampling.sampler import Chunk, Sampler, Thresholds
from tace_al.engines.sampling.walkers import (
    Snapshot,
    Stop,
    Trajectory,
    Walker,
    moving_copy,
    starting_momenta,
)
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
    record_every, gap, max_uncertain, max_separation
        As in `Gathering`.
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
        gathering = Gathering(
            atoms,
            self.thresholds,
            record_every=self.record_every,
            gap=self.gap,
            max_uncertain=self.max_uncertain,
            max_separation=self.max_separation,
        )
        start = Walker(atoms, steps=self.steps, temperature=self.temperature)
        walker = moving_copy(atoms, momenta=starting_momenta(start, rng, still=False))
        calculator = PotentialCalculator(self.potential)
        walker.calc = calculator
        forces = walker.get_forces(md=True)
        dynamics = Langevin(
            walker,
            self.timestep_fs * units.fs,
            temperature_K=self.temperature,
            friction=self.friction / units.fs,
            fixcm=False,
            rng=rng,
        )
        good, steps, stop = moving_copy(walker), 0, None
        for step in range(self.steps + 1):
            if step > 0:
                if self.temperature_end is not None:
                    dynamics.set_temperature(temperature_K=self.temperature_at(step))
                forces = dynamics.step(forces)
            stop = gathering(self._snapshot(walker, calculator.prediction, step))
            if stop is None or not stop.broken:
                good, steps = moving_copy(walker), step
            if stop is not None:
                break
        return gathering.chunk(_walked(good, steps, stop))

    def temperature_at(self, step: int) -> float:
        """Return the thermostat's temperature in K at a step."""
        if self.temperature_end is None:
            return self.temperature
        return self.temperature + (self.temperature_end - self.temperature) * step / self.steps

    def _snapshot(self, walker: Atoms, prediction: Prediction | None, step: int) -> Snapshot:
        """Return what a step has come to."""
        assert prediction is not None
        return Snapshot(
            atoms=walker,
            prediction=prediction,
            step=step,
            time_fs=step * self.timestep_fs,
            temperature=float(walker.get_temperature()),
            bath_temperature=self.temperature_at(step),
            uncertainty=float(prediction.force_spread.max(initial=0.0)),
            conserved=float("nan"),
        )


def _walked(good: Atoms, steps: int, stop: Stop | None) -> Trajectory:
    """Return how a walker has ended, from its last good frame."""
    broken = stop is not None and stop.broken
    ended = "all steps done" if stop is None else stop.reason
    return Trajectory(
        frames=(),
        trigger=None,
        outcome="broken" if broken else "done" if stop is None else "stopped",
        reason=f"{ended} after {steps} steps" if broken else ended,
        steps=steps,
        final=good,
        max_uncertainty=float("nan"),
    )
