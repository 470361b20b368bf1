"""A committee of TACE models behind the `Potential` interface."""

from collections.abc import Sequence
from typing import final

from ase import Atoms

from tace_al.core.thread_cache import cached_in_thread
from tace_al.data.graph import split_graph
from tace_al.data.neighbour_skin import NeighbourSkin
from tace_al.engines.sampling.potential import Potential
from tace_al.model.committee import Committee
from tace_al.model.ensemble import MAXIMUM_EDGES
from tace_al.model.head_committee import HeadCommittee
from tace_al.model.prediction import Prediction


@final
class CommitteePotential(Potential):
    """Predicts with every member at once.

    Parameters
    ----------
    committee
        The members: models trained apart, or heads of one model.
    stress
        Predict the mean stress of periodic structures too, at some extra cost.
    skin
        Angstrom of a Verlet skin that lets neighbour lists serve several calls, for samplers that
        ask again and again about the same `Atoms` objects as they move (batched dynamics); without
        it every call makes its own lists.
    """

    def __init__(
        self,
        committee: Committee | HeadCommittee,
        *,
        stress: bool = False,
        skin: float | None = None,
    ) -> None:
        self.committee = committee
        self.stress = stress
        self._skin: NeighbourSkin | None = None
        if skin is not None:
            model = committee.members[0]
            self._skin = NeighbourSkin(
                committee.cutoff,
                skin,
                conditions=model.config.conditions,
                device=model.embedding.device,
            )

    @property
    def num_neighbour_lists(self) -> int:
        """Number of neighbour lists made under the skin."""
        return 0 if self._skin is None else self._skin.num_lists

    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        """Return one prediction a frame."""
        if self._skin is None or not frames:
            return self.committee.predict(frames, stress=self.stress)
        keys = [id(atoms) for atoms in frames]  # an id used again is noticed by its atoms
        batches = split_graph(self._skin.graph(frames, keys=keys), MAXIMUM_EDGES)
        return [
            answer
            for batch in batches
            for answer in self.committee.predict_batch(batch, stress=self.stress)
        ]


@cached_in_thread(maxsize=4)
def load_committee(
    paths: tuple[str, ...], device: str = "cpu", head: str | None = None
) -> Committee:
    """Return the committee of some checkpoints, kept for the next task of this thread.

    Threads do not share one: it keeps what it made for its last batch.
    `head` is the level of theory that answers; the models' first by default.
    """
    return Committee.load(paths, device=device, head=head)
