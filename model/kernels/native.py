"""Calls of the compiled kernels with tensors."""

import ctypes
from collections.abc import Mapping, Sequence
from enum import IntEnum
from functools import cache

import torch
from torch import Tensor

from tace_al.model.kernels.layout import EdgeList, SumLayout
from tace_al.model.kernels.library import compiled

_ENTRIES = {torch.float32: "tace_edge_sums_float", torch.float64: "tace_edge_sums_double"}
_SIZES = ("batch", "atoms", "sources", "edges", "channels")
_LAYOUT = ("dim_in", "dim_edge", "paths", "rows", "num_pairs", "pairs")
_EDGES = ("sender", "first", "last")
_INPUTS = ("features", "weights", "harmonics", "cotangent")
_TANGENTS = ("dfeatures", "dweights", "dharmonics")
_TABLE = ("table", "distances")
_OUTPUTS = ("out_sums", "out_features", "out_weights", "out_harmonics", "out_distances")


class Operation(IntEnum):
    """What the kernels compute."""

    SUMS = 0
    GRADIENTS = 1
    SECOND = 2


def _with_steps(names: Sequence[str]) -> list[tuple[str, type]]:
    """Return the fields of arrays: their addresses, then how far members of a batch lie apart."""
    addresses: list[tuple[str, type]] = [(name, ctypes.c_void_p) for name in names]
    return addresses + [(f"{name}_step", ctypes.c_int64) for name in names]


class _Problem(ctypes.Structure):
    """The struct of the same name in edge_sums.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in (*_SIZES, *_LAYOUT[:-1])),
        ("pairs", ctypes.c_void_p),
        *((name, ctypes.c_void_p) for name in _EDGES),
        *_with_steps(_INPUTS),
        *_with_steps(_TANGENTS),
        *_with_steps(_TABLE),
        ("pieces", ctypes.c_int64),
        ("spacing", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in _OUTPUTS),
    )


@cache
def _layout_fields(layout: SumLayout) -> tuple[Mapping[str, int], ctypes.Array[ctypes.c_int64]]:
    """Return what the struct says of a layout, and the array that it points to."""
    numbers, path, row = [], 0, 0
    for l1, l2, count in layout.pairs:
        numbers += [l1, l2, count, path, row]
        path, row = path + count, row + count * (2 * l1 + 1) * (2 * l2 + 1)
    array = (ctypes.c_int64 * len(numbers))(*numbers)
    fields = {
        "dim_in": layout.dim_in,
        "dim_edge": layout.dim_edge,
        "paths": path,
        "rows": row,
        "num_pairs": len(layout.pairs),
        "pairs": ctypes.addressof(array),
    }
    return fields, array


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
    library = compiled()
    assert library is not None
    features = inputs["features"]
    assert features is not None
    problem, keep = _Problem(pieces=pieces, spacing=spacing), []
    layout_fields, _ = _layout_fields(layout)
    for name, value in layout_fields.items():
        setattr(problem, name, value)
    for name, tensor in zip(_EDGES, (edges.sender, edges.first, edges.last), strict=True):
        assert tensor.dtype == torch.int64
        keep.append(tensor.contiguous())
        setattr(problem, name, keep[-1].data_ptr())
    for name, given in inputs.items():
        if given is not None:
            assert given.dtype == features.dtype
            keep.append(given.contiguous())
            setattr(problem, name, keep[-1].data_ptr())
            step = keep[-1].stride(0) if given.shape[0] > 1 else 0
            setattr(problem, f"{name}_step", step)
    for name, tensor in outputs.items():
        setattr(problem, name, tensor.data_ptr())
        problem.batch = tensor.shape[0]
    problem.atoms, problem.edges = len(edges.first), len(edges.sender)
    problem.sources, problem.channels = features.shape[1], features.shape[3]
    if getattr(library, _ENTRIES[features.dtype])(int(operation), ctypes.byref(problem)):
        raise IndexError(
            "the edges do not fit: `sender` names rows that the features do not have, or the "
            "blocks first .. last overlap, descend or reach beyond the edges"
        )
