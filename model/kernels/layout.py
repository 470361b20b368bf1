"""Which rows a sum over neighbours has, and which edges it runs over."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Int
from torch import Tensor

MAX_EDGE_DEGREE = 6
"""Of harmonics; edge_sums.cpp knows no higher ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SumLayout:
    """The rows of the sums: for each pair of degrees its components m2, then paths, then m1.

    Parameters
    ----------
    pairs
        (l1, l2, number of paths) in the order of the rows: degree of the feature, degree of the
        harmonic, and how many radial weights couple them.

    >>> SumLayout(pairs=((0, 0, 1), (0, 1, 1), (1, 0, 1), (1, 1, 2))).num_rows
    25
    """

    pairs: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        if max(l2 for _, l2, _ in self.pairs) > MAX_EDGE_DEGREE:
            raise ValueError(
                f"{self.pairs} (l1, l2, count) has harmonics beyond degree {MAX_EDGE_DEGREE}; "
                "lower l_edge"
            )

    @classmethod
    def of_paths(cls, paths: Sequence[tuple[int, int, int]]) -> "SumLayout":
        """Return the layout of the paths (l1, l2, l3) of `tace_al.model.interaction`."""
        degrees = [path[:2] for path in paths]
        return cls(pairs=tuple((*pair, degrees.count(pair)) for pair in dict.fromkeys(degrees)))

    @property
    def dim_in(self) -> int:
        """Components of a feature."""
        return _sizes(self.pairs)[0]

    @property
    def dim_edge(self) -> int:
        """Harmonics of an edge."""
        return _sizes(self.pairs)[1]

    @property
    def num_paths(self) -> int:
        """Radial weights of an edge and channel."""
        return _sizes(self.pairs)[2]

    @property
    def num_rows(self) -> int:
        """Rows of the sums of an atom."""
        return _sizes(self.pairs)[3]

    @property
    def flat(self) -> list[int]:
        """The pairs one after another, as an operator's argument."""
        return [number for pair in self.pairs for number in pair]

    @staticmethod
    def from_flat(numbers: Sequence[int]) -> "SumLayout":
        """Return the layout of `flat`."""
        return _layout(tuple(numbers))


@cache
def _sizes(pairs: tuple[tuple[int, int, int], ...]) -> tuple[int, int, int, int]:
    """Return the components of a feature and an edge, and the numbers of paths and rows."""
    return (
        (max(l1 for l1, _, _ in pairs) + 1) ** 2,
        (max(l2 for _, l2, _ in pairs) + 1) ** 2,
        sum(count for _, _, count in pairs),
        sum(count * (2 * l1 + 1) * (2 * l2 + 1) for l1, l2, count in pairs),
    )


@cache
def _layout(numbers: tuple[int, ...]) -> SumLayout:
    """Return the layout of its pairs one after another; operators ask for it in every call."""
    triples = zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
    return SumLayout(pairs=tuple(triples))


@dataclass(frozen=True, kw_only=True, slots=True)
class EdgeList:
    """Edges in blocks, one a receiving atom, in the order of the atoms.

    Parameters
    ----------
    sender
        Row of the features that each edge reads, int64.
    first, last
        Edges first[i] .. last[i] - 1 end at atom i, int64, ascending. Edges between two blocks,
        such as the empty slots of a padded row, belong to no atom.
    """

    sender: Int[Tensor, " edges"]
    first: Int[Tensor, " atoms"]
    last: Int[Tensor, " atoms"]

    @classmethod
    def sorted_by_receiver(
        cls, sender: Int[Tensor, " edges"], receiver: Int[Tensor, " edges"], num_atoms: int
    ) -> "EdgeList":
        """Return the list of edges whose receivers ascend."""
        last = torch.cumsum(torch.bincount(receiver, minlength=num_atoms), dim=0)
        return cls(sender=sender, first=torch.nn.functional.pad(last[:-1], (1, 0)), last=last)

    @classmethod
    def of_slots(
        cls, sender: Int[Tensor, "atoms slots"], counts: Int[Tensor, " atoms"]
    ) -> "EdgeList":
        """Return the list of padded rows, of which the first `counts` slots hold edges."""
        num_atoms, num_slots = sender.shape
        first = torch.arange(num_atoms, device=sender.device) * num_slots
        return cls(sender=sender.reshape(-1), first=first, last=first + counts)
