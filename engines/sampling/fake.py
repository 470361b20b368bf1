"""A sampler that needs no potential and ships with the package: rattled copies, told uncertain.

For tests of everything around a sampler: the loop, the queue, resuming.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
from ase import Atoms

from tace_al.core.random_generators import random_generator
from tace_al.data.frames import bare_copy, fixed_mask
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.sampler import Chunk, Outcome, Sampler, Thresholds


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class FakeSampler(Sampler):
    """Random displacements of the start, each given an uncertainty that grows with its index.

    Parameters
    ----------
    num_frames
        Frames a chunk.
    displacement
        Standard deviation of every coordinate in A.
    outcome
        What each chunk ends as; frames are "known" for "known", else "uncertain".
    seed
        Of the displacements.
    """

    num_frames: int = 3
    displacement: float = 0.05
    outcome: Outcome = "uncertain"
    seed: int = 0

    def run(self, atoms: Atoms) -> Chunk:
        """Return rattled copies of `atoms`; fixed atoms stay."""
        rng = random_generator(self.seed, "fake sampler")
        movable = ~fixed_mask(atoms)[:, None]
        frames = []
        for index in range(self.num_frames):
            frame = bare_copy(atoms)
            push = self.displacement * rng.standard_normal((len(atoms), 3)) * movable
            frame.set_positions(frame.positions + push, apply_constraint=False)
            frame.info["energy"] = 0.0
            frame.info["energy_spread"] = 0.1
            frame.info["uncertainty"] = 0.1 * (index + 1)
            frame.info["step"] = index
            frame.info["time_fs"] = float(index)
            frame.info["temperature"] = 300.0
            frame.info["verdict"] = "known" if self.outcome == "known" else "uncertain"
            frame.set_array("forces", np.zeros((len(atoms), 3)))
            frame.set_array("force_spread", np.full(len(atoms), 0.1 * (index + 1)))
            frames.append(frame)
        return Chunk(
            frames=tuple(frames),
            outcome=self.outcome,
            reason="fake chunk done",
            steps=self.num_frames,
            final=bare_copy(frames[-1] if frames else atoms),
            max_uncertainty=0.1 * self.num_frames,
        )


def fake_sampler(
    potential: Potential,
    thresholds: Thresholds,
    *,
    num_frames: int = 3,
    displacement: float = 0.05,
    seed: int = 0,
) -> Sampler:
    """Return a `FakeSampler` as the catalogue makes samplers: rattled copies, asked of nobody."""
    del potential, thresholds
    return FakeSampler(num_frames=num_frames, displacement=displacement, seed=seed)
