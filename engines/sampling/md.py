"""Molecular dynamics in any ensemble as a sampler: constant energy, temperature or pressure, ramps.

One walker of `batched_md.py`, watched by a `Gathering`. `integrator_for` names the integrators.
"""

from dataclasses import KW_ONLY, dataclass
from typing import Literal, final

from ase import Atoms

from tace_al.core.errors import ConfigError
from tace_al.core.units import GPA
from tace_al.engines.sampling.barostat import LangevinPiston
from tace_al.engines.sampling.batched_md import BatchedDynamics
from tace_al.engines.sampling.committee_potential import CommitteePotential
from tace_al.engines.sampling.gathering import Gathering
from tace_al.engines.sampling.integrators import (
    ConstantEnergy,
    Integrator,
    Langevin,
    NoseHooverChain,
)
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.sampler import Chunk, Sampler, Thresholds
from tace_al.engines.sampling.walkers import Walker

Ensemble = Literal["nve", "nvt", "npt"]
Thermostat = Literal["langevin", "nose-hoover"]
CellShape = Literal["isotropic", "axes"]
SKIN = 0.5
"""Angstrom, of the neighbour lists of dynamics."""


def integrator_for(
    ensemble: Ensemble,
    *,
    thermostat: Thermostat = "langevin",
    friction: float = 0.01,
    period_fs: float = 50.0,
    pressure_period_fs: float = 500.0,
    shape: CellShape = "isotropic",
) -> Integrator:
    """Return the integrator of an ensemble.

    Parameters
    ----------
    thermostat
        Of "nvt"; "npt" is a Langevin piston.
    friction
        1/fs, of Langevin dynamics and of the piston's atoms.
    period_fs, pressure_period_fs
        Answer times of the Nose-Hoover chain and of the piston.
    shape
        What the cell may do at constant pressure.
    """
    if ensemble == "nve":
        return ConstantEnergy()
    if ensemble == "npt":
        if thermostat != "langevin":
            raise ConfigError("constant pressure comes with Langevin friction alone; leave it")
        return LangevinPiston(friction=friction, period_fs=pressure_period_fs, shape=shape)
    if thermostat == "nose-hoover":
        return NoseHooverChain(period_fs=period_fs)
    return Langevin(friction=friction)


def for_dynamics(potential: Potential, *, stress: bool) -> Potential:
    """Return a potential that serves dynamics: a committee with a skin, and stress if needed."""
    if not isinstance(potential, CommitteePotential):
        return potential
    return CommitteePotential(potential.committee, stress=stress, skin=SKIN)


@final
@dataclass(frozen=True, slots=True)
class DynamicsSampler(Sampler):
    """One chunk of molecular dynamics in any ensemble, at constant or changing conditions.

    Parameters
    ----------
    potential, thresholds
        What drives the atoms, and which of its frames are worth a label.
    ensemble, thermostat, friction, pressure_period_fs, shape
        As `integrator_for` takes them.
    temperature, temperature_end
        Of the thermostat (and of first velocities) in K at the first and last step; constant
        without the second.
    pressure_gpa, pressure_end_gpa
        Of the barostat, in the same way.
    timestep_fs, steps
        Time step in fs and length of the chunk.
    record_every, gap, max_uncertain, max_separation
        As in `Gathering`.
    seed
        Of first velocities and noise; give each chunk of a walker its own.
    """

    potential: Potential
    thresholds: Thresholds
    _: KW_ONLY
    ensemble: Ensemble = "nvt"
    thermostat: Thermostat = "langevin"
    friction: float = 0.01
    pressure_period_fs: float = 500.0
    shape: CellShape = "isotropic"
    temperature: float = 300.0
    temperature_end: float | None = None
    pressure_gpa: float = 0.0
    pressure_end_gpa: float | None = None
    timestep_fs: float = 0.5
    steps: int = 1000
    record_every: int = 100
    gap: int = 10
    max_uncertain: int = 10
    max_separation: float = 8.0
    seed: int = 0

    def run(self, atoms: Atoms) -> Chunk:
        """Return one chunk from `atoms`, going on with its momenta where it has any."""
        gathering = Gathering(
            atoms,
            self.thresholds,
            record_every=self.record_every,
            gap=self.gap,
            max_uncertain=self.max_uncertain,
            max_separation=self.max_separation,
        )
        end = self.pressure_end_gpa
        walker = Walker(
            atoms,
            steps=self.steps,
            temperature=self.temperature,
            temperature_end=self.temperature_end,
            pressure=self.pressure_gpa * GPA,
            pressure_end=None if end is None else end * GPA,
            seed=self.seed,
            stops=(gathering,),
        )
        integrator = integrator_for(
            self.ensemble,
            thermostat=self.thermostat,
            friction=self.friction,
            pressure_period_fs=self.pressure_period_fs,
            shape=self.shape,
        )
        potential = for_dynamics(self.potential, stress=integrator.moves_cell)
        dynamics = BatchedDynamics(potential, [walker], integrator, timestep_fs=self.timestep_fs)
        (walk,) = dynamics.run()
        return gathering.chunk(walk)
