"""Heat between two baths, block by block, as a run on disk that can be taken up again."""

from collections.abc import Mapping, Sequence
from typing import final

import numpy as np
from ase import Atoms

from tace_al.engines.sampling.batched_md import BatchedDynamics
from tace_al.engines.sampling.heat_flow import HeatFlow, ProfileWatch
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.recorded_run import Resumable, WalkerRun
from tace_al.engines.sampling.walkers import Trajectory, Unphysical, Walker

BLOCK = 20
"""Steps between two entries of what the baths have given."""


@final
class HeatRun(Resumable):
    """A structure between its baths.

    Parameters
    ----------
    flow
        Structure, slices and baths.
    potential
        What drives the atoms.
    steps
        How far it goes, in whole blocks.
    timestep_fs, record_every, seed
        fs; steps from one kept frame to the next; of first momenta and noise.
    scale
        Calibration of the committee: a frame's `uncertainty` becomes an error bar.

    Attributes
    ----------
    given
        (blocks, 2) energies in eV that the hot and the cold bath have given by the end of a block.
    profiles
        (blocks, slices) mean temperatures in K.
    """

    def __init__(
        self,
        flow: HeatFlow,
        potential: Potential,
        *,
        steps: int,
        timestep_fs: float,
        record_every: int,
        seed: int = 0,
        scale: float = 1.0,
    ) -> None:
        self._watch = ProfileWatch(flow)
        walker = Walker(
            flow.atoms,
            steps=-(-steps // BLOCK) * BLOCK,
            temperature=0.5 * (flow.hot + flow.cold),
            seed=seed,
            stops=(Unphysical(every=BLOCK), self._watch),
        )
        dynamics = BatchedDynamics(
            potential, [walker], flow.baths, timestep_fs=timestep_fs, record_every=record_every
        )
        self._run = WalkerRun(dynamics, scale=scale)
        self.given = np.zeros((0, 2))
        self.profiles = np.zeros((0, flow.slices))

    @property
    def running(self) -> bool:
        """Whether there are steps left and nothing broke."""
        return self._run.running

    @property
    def trajectory(self) -> Trajectory:
        """How the structure stands."""
        return self._run.trajectories()[0]

    def advance(self, num_steps: int) -> Sequence[Atoms]:
        """Go on for whole blocks, at least one; return the frames kept."""
        frames: list[Atoms] = []
        for _ in range(0, num_steps, BLOCK):
            self._watch.clear()
            frames.extend(self._run.advance(BLOCK))
            if self._watch.count < BLOCK:  # broken, or no step was left
                break
            chain = self._run.dynamics.state()["chain"]
            self.given = np.vstack([self.given, chain[:1, :, 0]])
            self.profiles = np.vstack([self.profiles, self._watch.profile])
        return frames

    def state(self) -> dict[str, np.ndarray]:
        """Return dynamics, bonds, energies and profiles."""
        return {**self._run.state(), "given": self.given, "profiles": self.profiles}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take up dynamics, bonds, energies and profiles."""
        self._run.restore(state)
        self.given, self.profiles = state["given"], state["profiles"]
