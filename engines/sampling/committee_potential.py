"""A committee of TACE models behind the `Potential` interface."""

from collections.abc import Sequence
from functools import lru_cache
from typing import final

from ase import Atoms

from tace_al.engines.sampling.potential import Potential
from tace_al.model.committee import Committee
from tace_al.model.prediction import Prediction


@final
class CommitteePotential(Potential):
    """Predicts with every member at once."""

    def __init__(self, committee: Committee) -> None:
        self.committee = committee

    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        """Return one prediction a frame."""
        return self.committee.predict(frames)


@lru_cache(maxsize=4)
def load_committee(paths: tuple[str, ...], device: str = "cpu") -> Committee:
    """Return the committee of some checkpoints, kept for the next task of this process."""
    return Committee.load(paths, device=device)
