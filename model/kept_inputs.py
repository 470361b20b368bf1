"""Network inputs that outlive a step.

Between two neighbour lists atoms move and pairs stay: what a network reads besides edge vectors is
the same (`tace_al.data.neighbour_skin` returns the very same tensors then).
"""

from collections.abc import Sequence
from typing import final

from torch import Tensor

from tace_al.data.graph import AtomicGraph
from tace_al.model.inputs import NetworkInputs
from tace_al.model.tace import Tace


@final
class InputsKeeper:
    """The inputs of the last batch, used again for a batch with the same pairs.

    Parameters
    ----------
    model
        The network.
    head
        As in `Tace.evaluate`.
    """

    def __init__(self, model: Tace, head: str | Sequence[str] | None = None) -> None:
        self._model, self._head = model, head
        self._kept: tuple[tuple[Tensor, ...], NetworkInputs] | None = None

    def of(self, graph: AtomicGraph) -> NetworkInputs | None:
        """Return the inputs of a batch; None for networks that read conditions or positions."""
        config = self._model.config
        if config.conditions or config.reads_positions:
            return None
        made_from = (graph.sender, graph.receiver, graph.numbers, graph.system_index)
        kept = self._kept  # read once: another thread may ask about another batch
        if kept is None or any(
            before is not now for before, now in zip(kept[0], made_from, strict=True)
        ):
            kept = self._kept = made_from, self._model.inputs(graph, head=self._head)
        return kept[1]
