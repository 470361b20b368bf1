"""Frames of a crystal near its minimum: strained cells with rattled atoms.

Phonons are second derivatives at one geometry, so what a committee must know is a small, full
neighbourhood of it: every strain of the cell and every displacement of the atoms, not the few
directions a short trajectory follows. Each frame has a random symmetric strain with components up
to `strain` and Gaussian displacements whose standard deviation is drawn up to `displacement`.
All frames of a chunk are predicted in one call.
"""

from dataclasses import KW_ONLY, dataclass
from typing import final

import numpy as np
from ase import Atoms

from tace_al.core.errors import ConfigError
from tace_al.core.random_generators import random_generator
from tace_al.data.frames import bare_copy, fixed_mask
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.sampler import Chunk, Outcome, Sampler, Thresholds, predicted_frame


@final
@dataclass(frozen=True, slots=True)
class StrainedSampler(Sampler):
    """Random strains and displacements of a crystal, those the committee is unsure of flagged.

    Parameters
    ----------
    potential, thresholds
        What predicts, and which frames are worth a label.
    frames
        Frames a chunk.
    strain
        Largest component of the strain.
    displacement
        Largest standard deviation of a coordinate in A.
    seed
        Of the random numbers.
    """

    potential: Potential
    thresholds: Thresholds
    _: KW_ONLY
    frames: int = 8
    strain: float = 0.02
    displacement: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a range that is empty."""
        if self.frames < 1 or self.strain < 0.0 or self.displacement <= 0.0:
            raise ConfigError(
                f"sampler strained has frames = {self.frames}, strain = {self.strain}, "
                f"displacement = {self.displacement}; give at least one frame and positive sizes"
            )

    def run(self, atoms: Atoms) -> Chunk:
        """Return a chunk of frames around `atoms`; the next chunk starts from there again."""
        made = strained_copies(
            atoms,
            self.frames,
            strain=self.strain,
            displacement=self.displacement,
            seed=self.seed,
        )
        kept = []
        largest, broken = 0.0, False
        for step, (frame, prediction) in enumerate(
            zip(made, self.potential.predict(made), strict=True)
        ):
            told = predicted_frame(frame, prediction, self.thresholds)
            uncertainty = float(told.info["uncertainty"])
            verdict = self.thresholds.outcome(uncertainty)
            largest = max(largest, uncertainty)
            if verdict == "broken":
                broken = True
                continue
            told.info.update(step=step, time_fs=float(step), temperature=0.0, verdict=verdict)
            kept.append(told)
        uncertain = any(frame.info["verdict"] == "uncertain" for frame in kept)
        outcome: Outcome = "broken" if broken else "uncertain" if uncertain else "known"
        return Chunk(
            frames=tuple(kept),
            outcome=outcome,
            reason="a frame is far outside the training data" if broken else "all frames made",
            steps=len(kept),
            final=bare_copy(atoms),
            max_uncertainty=largest,
        )


def strained_copies(
    atoms: Atoms, number: int, *, strain: float, displacement: float, seed: int
) -> list[Atoms]:
    """Return strained and rattled copies of a crystal; fixed atoms follow the strain alone.

    >>> from ase.build import bulk
    >>> copies = strained_copies(bulk("Cu"), 3, strain=0.02, displacement=0.1, seed=1)
    >>> [round(float(copy.get_volume() / bulk("Cu").get_volume()), 3) for copy in copies]
    [0.984, 1.01, 0.989]
    """
    rng = random_generator(seed, "strained copies")
    movable = ~fixed_mask(atoms)[:, None]
    copies = []
    for _ in range(number):
        tensor = rng.uniform(-strain, strain, (3, 3))
        copy = bare_copy(atoms)
        deformation = np.eye(3) + 0.5 * (tensor + tensor.T)
        copy.set_cell(copy.cell.array @ deformation, scale_atoms=True)
        size = rng.uniform(0.1, 1.0) * displacement
        push = size * rng.standard_normal((len(atoms), 3)) * movable
        copy.set_positions(copy.positions + push, apply_constraint=False)
        copies.append(copy)
    return copies
