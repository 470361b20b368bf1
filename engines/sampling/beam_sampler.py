"""A beam as a sampler of campaigns: each chunk shoots some projectiles at the start structure.

Frames hold slab and projectile; the walker itself stays the clean slab it started from, so that
every chunk begins with a fresh surface.
"""

from dataclasses import KW_ONLY, dataclass
from typing import final

from ase import Atoms

from tace_al.data.frames import bare_copy
from tace_al.engines.sampling.beam import BeamSettings, sticking
from tace_al.engines.sampling.beam_run import Keeping, run_beam
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.sampler import Chunk, Outcome, Sampler, Thresholds


@final
@dataclass(frozen=True, slots=True)
class BeamSampler(Sampler):
    """Shoots `number` projectiles a chunk.

    Parameters
    ----------
    potential, thresholds
        What drives the atoms, and which frames are worth a label.
    projectile, energy_ev, angle, azimuth, temperature, steps, timestep_fs, stick_fs, equilibration
        As `BeamSettings` takes them.
    number
        Trajectories a chunk, run as one batch.
    record_every
        Keep one frame of each trajectory this often whatever it is, for audits.
    seed
        Of everything random.
    """

    potential: Potential
    thresholds: Thresholds
    _: KW_ONLY
    projectile: str
    energy_ev: float
    angle: float = 0.0
    azimuth: float | None = None
    temperature: float = 300.0
    steps: int = 2000
    timestep_fs: float = 2.0
    stick_fs: float = 1000.0
    equilibration: int = 300
    number: int = 8
    record_every: int = 100
    seed: int = 0

    @property
    def settings(self) -> BeamSettings:
        """The beam."""
        return BeamSettings(
            projectile=self.projectile,
            energy_ev=self.energy_ev,
            angle=self.angle,
            azimuth=self.azimuth,
            temperature=self.temperature,
            steps=self.steps,
            timestep_fs=self.timestep_fs,
            stick_fs=self.stick_fs,
            equilibration=self.equilibration,
        )

    def run(self, atoms: Atoms) -> Chunk:
        """Return one chunk: broken when at least half of its trajectories are."""
        keeping = Keeping(every=self.record_every, thresholds=self.thresholds)
        (impacts,) = run_beam(
            self.potential,
            atoms,
            self.settings,
            number=self.number,
            seed=self.seed,
            keeping=keeping,
            batch=self.number,
        )
        frames = [frame for impact in impacts for frame in impact.frames]
        num_broken = sum(impact.verdict == "broken" for impact in impacts)
        uncertain = any(frame.info["verdict"] == "uncertain" for frame in frames)
        outcome: Outcome = "uncertain" if uncertain else "known"
        return Chunk(
            frames=tuple(frames),
            outcome="broken" if 2 * num_broken >= self.number else outcome,
            reason=f"{num_broken} of {self.number} trajectories broke",
            steps=int(sum(impact.time_fs for impact in impacts) / self.timestep_fs),
            final=bare_copy(atoms),
            max_uncertainty=max(impact.max_uncertainty for impact in impacts),
            observables=sticking(impacts),
        )
