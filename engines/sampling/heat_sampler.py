"""Baths of two temperatures as a sampler of campaigns: what lies between hot and cold."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, final

from ase import Atoms

from tace_al.engines.sampling.batched_md import BatchedDynamics
from tace_al.engines.sampling.gathering import Gathering
from tace_al.engines.sampling.heat_flow import HeatFlow, ProfileWatch
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.sampler import Chunk, Sampler, Thresholds
from tace_al.engines.sampling.walkers import Walker


@final
@dataclass(frozen=True, slots=True)
class TwoTemperatureSampler(Sampler):
    """One chunk of dynamics between a hot and a cold slab.

    Parameters
    ----------
    potential, thresholds
        What drives the atoms, and which frames are worth a label.
    hot, cold, axis, slices, friction
        As `HeatFlow` takes them.
    timestep_fs, steps, settle
        fs; length of the chunk; steps before current and profile are measured.
    record_every, gap, max_uncertain
        As in `Gathering`.
    seed
        Of first momenta and noise.
    """

    potential: Potential
    thresholds: Thresholds
    _: KW_ONLY
    hot: float
    cold: float
    axis: int = 2
    slices: int = 8
    friction: float = 0.01
    timestep_fs: float = 1.0
    steps: int = 1000
    settle: int = 200
    record_every: int = 100
    gap: int = 10
    max_uncertain: int = 10
    seed: int = 0

    def run(self, atoms: Atoms) -> Chunk:
        """Return one chunk from `atoms`, going on with its momenta where it has any."""
        flow = HeatFlow(
            atoms,
            hot=self.hot,
            cold=self.cold,
            axis=self.axis,
            slices=self.slices,
            friction=self.friction,
        )
        gathering = Gathering(
            atoms,
            self.thresholds,
            record_every=self.record_every,
            gap=self.gap,
            max_uncertain=self.max_uncertain,
        )
        watch = ProfileWatch(flow, settle=self.settle, gathering=gathering)
        walker = Walker(
            atoms,
            steps=self.steps,
            temperature=0.5 * (self.hot + self.cold),
            seed=self.seed,
            stops=(watch,),
        )
        dynamics = BatchedDynamics(
            self.potential, [walker], flow.baths, timestep_fs=self.timestep_fs
        )
        dynamics.run(self.settle)
        settled = dynamics.state()["chain"][0, :, 0]
        (walk,) = dynamics.run()
        time_fs = (walk.steps - self.settle) * self.timestep_fs
        observed: dict[str, Any] = {}
        if time_fs > 0.0 and watch.count:
            given = dynamics.state()["chain"][0, :, 0] - settled
            observed = {
                "heat_current_w_per_m2": flow.current(given, time_fs),
                "temperature_profile_k": watch.profile.tolist(),
            }
        return gathering.chunk(walk, observables=observed)
