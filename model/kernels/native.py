"""Calls of the compiled kernels with tensors."""

import ctypes
import struct
from collections.abc import Mapping
from enum import IntEnum
from functools import cache

import torch
from torch import Tensor

from tace_al.model.kernels.layout import EdgeList, SumLayout
from tace_al.model.kernels.library import compiled

_ENTRIES = {torch.float32: "tace_edge_sums_float", torch.float64: "tace_edge_sums_double"}
# groups of arrays in the struct Problem: addresses, then how far members of a batch lie apart
_INPUTS = (
    ("features", "weights", "harmonics", "cotangent"),
    ("dfeatures", "dweights", "dharmonics"),
    ("table", "distances"),
)
_OUTPUTS = ("out_sums", "out_features", "out_weights", "out_harmonics", "out_distances")
_PROBLEM = struct.Struct("=5q6q3q8q6q4qqd5q")  # packed anew in every call: quicker than ctypes


class Operation(IntEnum):
    """What the kernels compute."""

    SUMS = 0
    GRADIENTS = 1
    SECOND = 2


@cache
def layout_fields(layout: SumLayout) -> tuple[tuple[int, ...], ctypes.Array[ctypes.c_int64]]:
    """Return what the struct says of a layout, and the array that it points to."""
    numbers, path, row = [], 0, 0
    for l1, l2, count in layout.pairs:
        numbers += [l1, l2, count, path, row]
        path, row = path + count, row + count * (2 * l1 + 1) * (2 * l2 + 1)
    array = (ctypes.c_int64 * len(numbers))(*numbers)
    sizes = (layout.dim_in, layout.dim_edge, path, row, len(layout.pairs))
    return (*sizes, ctypes.addressof(array)), array


def takes(tensor: Tensor) -> bool:
    """Return whether the compiled kernels are there and take such tensors."""
    return tensor.device.type == "cpu" and tensor.dtype in _ENTRIES and compiled() is not None


def run(
    operation: Operation,
    edges: EdgeList,
    layout: SumLayout,
    *,
    inputs: Mapping[str, Tensor | None],
    outputs: Mapping[str, Tensor],
    pieces: int = 0,
    spacing: float = 1.0,
) -> None:
    """Fill `outputs` from `inputs`.

    Parameters
    ----------
    operation
        What to compute; see edge_sums.cpp.
    edges, layout
        Edges and rows of the sums.
    inputs
        Arrays by the names of the struct, each with a leading batch axis, of length 1 where it is
        shared. None stands for zero, which only tangents may be.
    outputs
        Contiguous arrays by the names of the struct, each with the whole batch axis.
    pieces, spacing
        Pieces of the table and their length in Angstrom, if there is one.

    Raises
    ------
    IndexError
        The edges name senders that are not there, or their blocks overlap.
    """
    library, features = compiled(), inputs["features"]
    assert library is not None
    assert features is not None
    around = [tensor.contiguous() for tensor in (edges.sender, edges.first, edges.last)]
    assert all(tensor.dtype == torch.int64 for tensor in around)
    arrays, keep = _array_fields(inputs, features.dtype)
    rooms = [outputs[name].data_ptr() if name in outputs else 0 for name in _OUTPUTS]
    batch = next(iter(outputs.values())).shape[0]
    sizes = (batch, edges.first.shape[0], features.shape[1], edges.sender.shape[0])
    fields, _ = layout_fields(layout)
    problem = _PROBLEM.pack(
        *sizes,
        features.shape[3],
        *fields,
        *(tensor.data_ptr() for tensor in around),
        *arrays,
        pieces,
        spacing,
        *rooms,
    )
    if getattr(library, _ENTRIES[features.dtype])(int(operation), problem):
        raise IndexError(
            "the edges do not fit: `sender` names rows that the features do not have, or the "
            "blocks first .. last overlap, descend or reach beyond the edges"
        )
    del keep  # until here, so that copies of strided arrays live


def _array_fields(
    inputs: Mapping[str, Tensor | None], dtype: torch.dtype
) -> tuple[list[int], list[Tensor]]:
    """Return addresses and steps of the arrays, and the arrays, which must outlive the call."""
    fields: list[int] = []
    keep = []
    for names in _INPUTS:
        steps = []
        for name in names:
            given = inputs.get(name)
            if given is None:
                fields.append(0)
                steps.append(0)
                continue
            assert given.dtype == dtype
            array = given.contiguous()
            keep.append(array)
            fields.append(array.data_ptr())
            steps.append(array.stride(0) if array.shape[0] > 1 else 0)
        fields += steps
    return fields, keep
