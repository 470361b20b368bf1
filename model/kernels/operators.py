"""The sums and their derivatives as PyTorch operators, without autograd.

Each takes tensors with or without a leading batch axis; those without one are shared, and if any
has one, so have all results. That is how `torch.func.vmap` is served: no copies, one call.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tace_al.model.kernels import native, reference
from tace_al.model.kernels.batching import batch_size, call_mapped
from tace_al.model.kernels.layout import EdgeList, SumLayout
from tace_al.model.kernels.native import Operation
from tace_al.model.kernels.pieces import piecewise

_RANKS = {  # without a batch axis
    "cotangent": 3,
    "features": 3,
    "weights": 3,
    "harmonics": 2,
    "dfeatures": 3,
    "dweights": 3,
    "dharmonics": 2,
    "table": 4,
    "distances": 1,
}
_TANGENTS = ("dfeatures", "dweights", "dharmonics")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Call:
    """One call: tensors with a batch axis each, and what they are summed over."""

    tensors: Mapping[str, Tensor | None]
    edges: EdgeList
    layout: SumLayout
    batch: int
    spacing: float

    def tensor(self, name: str) -> Tensor:
        """Return a tensor that must be there."""
        tensor = self.tensors[name]
        assert tensor is not None
        return tensor

    def room(self, result: str) -> Tensor:
        """Return room for a result of the struct's name."""
        features = self.tensor("features")
        if result == "out_sums":
            rows = (self.edges.first.shape[0], self.layout.num_rows, features.shape[-1])
            return features.new_empty((self.batch, *rows))
        like = self.tensor(result.removeprefix("out_"))
        return like.new_empty((self.batch, *like.shape[1:]))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Operator:
    """An operator: its name, what it takes and gives by the names of the struct, how it is done."""

    name: str
    tensors: tuple[str, ...]
    results: tuple[str, ...]
    operation: Operation
    reference: Callable[[_Call], tuple[Tensor, ...]]

    @property
    def schema(self) -> str:
        """The operator's schema."""
        tensors = ", ".join(
            f"Tensor{'?' if name in _TANGENTS else ''} {name}" for name in self.tensors
        )
        edges = "Tensor sender, Tensor first, Tensor last, int[] pairs, float spacing"
        returned = ", ".join("Tensor" for _ in self.results)
        return f"{self.name}({tensors}, {edges}) -> ({returned})"

    def call(self, arguments: Sequence[Any]) -> tuple[_Call, bool]:
        """Return the arguments in order, and whether any tensor had a batch axis."""
        given = dict(zip(self.tensors, arguments, strict=False))
        sender, first, last, pairs, spacing = arguments[len(self.tensors) :]
        size = batch_size(list(given.values()), [_RANKS[name] for name in self.tensors])
        call = _Call(
            tensors={
                name: tensor
                if tensor is None or tensor.ndim > _RANKS[name]
                else tensor.unsqueeze(0)
                for name, tensor in given.items()
            },
            edges=EdgeList(sender=sender, first=first, last=last),
            layout=SumLayout.from_flat(pairs),
            batch=1 if size is None else size,
            spacing=spacing,
        )
        return call, size is not None

    def run(self, *arguments: Any) -> Tensor | list[Tensor]:
        """Compute, compiled where that is possible."""
        call, batched = self.call(arguments)
        results: Sequence[Tensor]
        if native.takes(call.tensor("features")):
            results = [call.room(name) for name in self.results]
            table = call.tensors.get("table")
            native.run(
                self.operation,
                call.edges,
                call.layout,
                inputs=call.tensors,
                outputs=dict(zip(self.results, results, strict=True)),
                pieces=0 if table is None else table.shape[1],
                spacing=call.spacing,
            )
        else:
            results = self.reference(call)
        return _returned(results, batched)

    def shapes(self, *arguments: Any) -> Tensor | list[Tensor]:
        """Return empty results, for tracing."""
        call, batched = self.call(arguments)
        return _returned([call.room(name) for name in self.results], batched)

    def vmap(self, info: Any, in_dims: Any, *arguments: Any) -> Any:
        """Join the mapped axis with the batch axis and call once."""
        around = in_dims[len(self.tensors) : len(self.tensors) + 3]  # sender, first, last
        if any(dim is not None for dim in around):
            raise TypeError(
                "edges cannot be mapped over by vmap: join the structures into one list of edges"
            )
        ranks = [_RANKS[name] for name in self.tensors]
        return call_mapped(self.operator, ranks, info, in_dims, arguments)

    @property
    def operator(self) -> Callable[..., Any]:
        """The registered operator."""
        operator: Callable[..., Any] = getattr(torch.ops.tace_al, self.name)
        return operator


def _returned(results: Sequence[Tensor], batched: bool) -> Tensor | list[Tensor]:
    """Return results as the dispatcher wants them, without the batch axis if nothing had one."""
    results = [result if batched else result[0] for result in results]
    return results[0] if len(results) == 1 else results


def _factors(call: _Call) -> reference.Factors:
    """Return h, W and Y."""
    return call.tensor("features"), call.tensor("weights"), call.tensor("harmonics")


def _sums(call: _Call) -> tuple[Tensor, ...]:
    return (reference.sums(_factors(call), call.edges, call.layout),)


def _gradients(call: _Call) -> tuple[Tensor, ...]:
    return reference.gradients(call.tensor("cotangent"), _factors(call), call.edges, call.layout)


def _second(call: _Call) -> tuple[Tensor, ...]:
    dh, dw, dy = (call.tensors[name] for name in _TANGENTS)
    return reference.second(
        call.tensor("cotangent"), _factors(call), (dh, dw, dy), call.edges, call.layout
    )


def _interpolated(call: _Call, slopes: bool = False) -> Tensor:
    """Return weights, or their slopes, of every member of the batch."""
    table, distances = call.tensor("table"), call.tensor("distances")
    size = max(table.shape[0], distances.shape[0])
    pairs = zip(table.expand(size, *table.shape[1:]), distances.expand(size, -1), strict=True)
    return torch.stack([piecewise(own, r, call.spacing, slopes=slopes) for own, r in pairs])


def _splined_sums(call: _Call) -> tuple[Tensor, ...]:
    factors = (call.tensor("features"), _interpolated(call), call.tensor("harmonics"))
    return (reference.sums(factors, call.edges, call.layout),)


def _splined_gradients(call: _Call) -> tuple[Tensor, ...]:
    factors = (call.tensor("features"), _interpolated(call), call.tensor("harmonics"))
    by_features, by_weights, by_harmonics = reference.gradients(
        call.tensor("cotangent"), factors, call.edges, call.layout
    )
    by_distances = (by_weights * _interpolated(call, slopes=True)).sum(dim=(2, 3))
    return by_features, by_distances, by_harmonics


_FACTORS = ("features", "weights", "harmonics")
_SPLINED = ("features", "table", "distances", "harmonics")
_OPERATORS = (
    _Operator(
        name="edge_sums",
        tensors=_FACTORS,
        results=("out_sums",),
        operation=Operation.SUMS,
        reference=_sums,
    ),
    _Operator(
        name="edge_sum_gradients",
        tensors=("cotangent", *_FACTORS),
        results=("out_features", "out_weights", "out_harmonics"),
        operation=Operation.GRADIENTS,
        reference=_gradients,
    ),
    _Operator(
        name="edge_sum_second",
        tensors=("cotangent", *_FACTORS, *_TANGENTS),
        results=("out_sums", "out_features", "out_weights", "out_harmonics"),
        operation=Operation.SECOND,
        reference=_second,
    ),
    _Operator(
        name="splined_edge_sums",
        tensors=_SPLINED,
        results=("out_sums",),
        operation=Operation.SUMS,
        reference=_splined_sums,
    ),
    _Operator(
        name="splined_edge_sum_gradients",
        tensors=("cotangent", *_SPLINED),
        results=("out_features", "out_distances", "out_harmonics"),
        operation=Operation.GRADIENTS,
        reference=_splined_gradients,
    ),
)
_LIBRARY = torch.library.Library("tace_al", "DEF")
for _operator in _OPERATORS:
    _LIBRARY.define(_operator.schema)
    _LIBRARY.impl(_operator.name, _operator.run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"tace_al::{_operator.name}", _operator.shapes, lib=_LIBRARY)
    torch.library.register_vmap(f"tace_al::{_operator.name}", _operator.vmap, lib=_LIBRARY)
SUMS = torch.ops.tace_al.edge_sums.default
GRADIENTS = torch.ops.tace_al.edge_sum_gradients.default
SECOND = torch.ops.tace_al.edge_sum_second.default
SPLINED_SUMS = torch.ops.tace_al.splined_edge_sums.default
SPLINED_GRADIENTS = torch.ops.tace_al.splined_edge_sum_gradients.default
