"""Steady shear as a sampler of campaigns: what a flowing liquid meets, and its viscosity.

A walker that goes on keeps flowing: its next chunk starts from the last frame, momenta and leaning
cell included.
"""

from dataclasses import KW_ONLY, dataclass, replace
from typing import final

import numpy as np
from ase import Atoms

from tace_al.engines.sampling.gathering import Gathering
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.sampler import Chunk, Sampler, Thresholds
from tace_al.engines.sampling.shear import FlowWatch, Shear, check_flow, viscosity_mpa_s
from tace_al.engines.sampling.walkers import Trajectory

NUM_BLOCKS = 5


@final
@dataclass(frozen=True, slots=True)
class ShearSampler(Sampler):
    """One chunk of steady shear.

    Parameters
    ----------
    potential, thresholds
        What drives the atoms (it must predict stresses), and which frames are worth a label.
    rate_per_ps, temperature, timestep_fs
        As `Shear` takes them.
    steps
        Length of the chunk.
    settle
        Steps before viscosity is measured.
    record_every, gap, max_uncertain
        As in `Gathering`.
    seed
        Of first momenta.
    """

    potential: Potential
    thresholds: Thresholds
    _: KW_ONLY
    rate_per_ps: float
    temperature: float
    timestep_fs: float = 1.0
    steps: int = 1000
    settle: int = 200
    record_every: int = 100
    gap: int = 10
    max_uncertain: int = 10
    seed: int = 0

    def run(self, atoms: Atoms) -> Chunk:
        """Return one chunk from `atoms`, going on with its momenta where it has any."""
        check_flow(atoms)
        shear = Shear(
            self.potential,
            rate_per_ps=self.rate_per_ps,
            temperature=self.temperature,
            timestep_fs=self.timestep_fs,
            seed=self.seed,
        )
        gathering = Gathering(
            atoms,
            self.thresholds,
            record_every=self.record_every,
            gap=self.gap,
            max_uncertain=self.max_uncertain,
        )
        watch, place, done = FlowWatch(gathering), atoms, 0
        walk: Trajectory | None = None
        while walk is None or (walk.outcome in ("running", "done") and done < self.steps):
            walk = shear.run(place, self.steps - done, stops=(watch,))
            done, place = done + walk.steps, walk.final
        series = viscosity_mpa_s(np.array(watch.shear_pressure[self.settle :]), self.rate_per_ps)
        chunk = gathering.chunk(walk, observables=_observed(series))
        reason = "all steps done" if walk.outcome == "running" else chunk.reason
        return replace(chunk, steps=done, reason=reason)


def _observed(series: np.ndarray) -> dict[str, float]:
    """Return the mean viscosity with its standard error from blocks, nothing if it is too short."""
    if len(series) < 2 * NUM_BLOCKS:
        return {}
    blocks = np.array([block.mean() for block in np.array_split(series, NUM_BLOCKS)])
    error = float(blocks.std(ddof=1) / np.sqrt(NUM_BLOCKS))
    return {"viscosity_mpa_s": float(series.mean()), "viscosity_mpa_s_error": error}
