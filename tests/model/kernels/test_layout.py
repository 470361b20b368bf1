"""Rows of the sums and blocks of edges."""

import pytest
import torch

from tace_al.model.interaction import message_couplings, message_paths
from tace_al.model.kernels import EdgeList, SumLayout


@pytest.mark.parametrize("degrees", [(0, 1), (1, 2), (2, 3)])
def test_rows_are_as_many_as_are_coupled(degrees: tuple[int, int]) -> None:
    l_feature, l_edge = degrees
    paths = message_paths(l_feature, l_edge, l_edge)
    layout = SumLayout.of_paths(paths)
    assert layout.num_rows == message_couplings(paths, l_edge).shape[1]
    assert layout.num_paths == len(paths)
    assert layout.dim_in == (l_feature + 1) ** 2
    assert layout.dim_edge == (l_edge + 1) ** 2
    assert SumLayout.from_flat(layout.flat) == layout


def test_degrees_beyond_the_kernels_are_refused() -> None:
    with pytest.raises(ValueError, match="lower l_edge"):
        SumLayout(pairs=((0, 7, 1),))


def test_blocks_of_sorted_edges() -> None:
    edges = EdgeList.sorted_by_receiver(torch.arange(4), torch.tensor([1, 1, 3, 3]), 5)
    assert edges.first.tolist() == [0, 0, 2, 2, 4]
    assert edges.last.tolist() == [0, 2, 2, 4, 4]


def test_blocks_of_slots() -> None:
    edges = EdgeList.of_slots(torch.tensor([[4, 5, 0], [6, 0, 0]]), torch.tensor([2, 1]))
    assert edges.sender.tolist() == [4, 5, 0, 6, 0, 0]
    assert edges.first.tolist() == [0, 3]
    assert edges.last.tolist() == [2, 4]
