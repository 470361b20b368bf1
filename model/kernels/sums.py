"""The sum over neighbours before coupling, differentiable any number of times.

    A[i, (l1 l2; m2, p, m1), c] = sum_{e -> i} Y[e, l2 m2] W[e, p, c] h[sender(e), l1 m1, c]

With a cotangent G, S(h, W, Y, G) = sum A G is linear in each of its four factors. Three functions
are closed under differentiation: A = dS/dG; the gradients of S by the other three; and the
derivative of those along (dh, dW, dY), whose own derivatives are sums of itself and of the second
with factors replaced. `torch.func` (grad, vmap, jvp) goes through all of it.
"""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from tace_al.model.kernels import native, operators
from tace_al.model.kernels.layout import EdgeList, SumLayout

Result = TypeVar("Result")
_ANYTHING = inspect.signature(lambda *arguments: None)
_NONE = (None,) * 4  # no derivatives by edges and layout


def edge_sums(
    features: Float[Tensor, "*members sources dim_in channels"],
    weights: Float[Tensor, "*members edges paths channels"],
    harmonics: Float[Tensor, "*members edges dim_edge"],
    edges: EdgeList,
    layout: SumLayout,
) -> Float[Tensor, "*members atoms rows channels"]:
    """Return the sums A of every atom, for one set of factors or for members on a leading axis.

    Parameters
    ----------
    features
        h, rows that `edges.sender` names.
    weights
        W, radial weights of each path and channel.
    harmonics
        Y of each edge.
    edges
        Edges in blocks by receiving atom.
    layout
        Paths, and the order of the rows (`tace_al.model.interaction.message_couplings`).

    Raises
    ------
    ValueError
        A shape does not fit the edges or the layout.
    """
    channels = features.shape[-1]
    check_shapes(
        layout,
        features=(features, (features.shape[-3], layout.dim_in, channels)),
        weights=(weights, (len(edges.sender), layout.num_paths, channels)),
        harmonics=(harmonics, (len(edges.sender), layout.dim_edge)),
    )
    sums: Tensor = _Sums.apply(
        features, weights, harmonics, edges.sender, edges.first, edges.last, layout
    )
    return sums


def fused(features: Tensor) -> bool:
    """Return whether `edge_sums` of such features goes through the compiled kernels.

    The first call compiles them if need be. Where this is False `edge_sums` works too, but a form
    made for PyTorch's operators, such as padded slots, is faster.
    """
    return native.takes(features)


def check_shapes(layout: SumLayout, **given: tuple[Tensor, tuple[int, ...]]) -> None:
    """Raise ValueError unless every tensor has its shape, after one leading axis of all or none."""
    first, expected = next(iter(given.values()))
    members = tuple(first.shape[: first.dim() - len(expected)])
    for name, (tensor, expected) in given.items():
        if tuple(tensor.shape) != (*members, *expected) or len(members) > 1:
            raise ValueError(
                f"`{name}` has shape {tuple(tensor.shape)}, expected {expected} for paths "
                f"{layout.pairs} (l1, l2, count)"
            )


def takes_anything(forward: Callable[..., Result]) -> Callable[..., Result]:
    """State the signature (*arguments), which autograd would otherwise work out in every call."""
    forward.__signature__ = _ANYTHING  # type: ignore[attr-defined]
    return forward


def _sum(terms: list[Tensor | None]) -> Tensor | None:
    """Return the sum of the terms that are there."""
    total = None
    for term in terms:
        if term is not None:
            total = term if total is None else total + term
    return total


@final
class _Sums(torch.autograd.Function):
    """A(h, W, Y)."""

    generate_vmap_rule = True

    @staticmethod
    @takes_anything
    def forward(*arguments: Any) -> Tensor:
        sums: Tensor = operators.SUMS(*arguments[:-1], arguments[-1].flat, 1.0)
        return sums

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _save(ctx, inputs, 6)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor | None) -> tuple[Tensor | None, ...]:
        if cotangent is None:
            return (None, None, None, *_NONE)
        point = (cotangent, *ctx.saved_tensors)
        if torch.is_grad_enabled():
            gradients = _Gradients.apply(*point, *ctx.rest)
        else:  # nobody differentiates again
            gradients = operators.GRADIENTS(*point, ctx.rest[0].flat, 1.0)
        return (*gradients, *_NONE)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor | None:
        factors, edges = ctx.saved_tensors[:3], (*ctx.saved_tensors[3:], *ctx.rest)
        return _directional_sums(factors, tangents[:3], edges)


@final
class _Gradients(torch.autograd.Function):
    """The derivatives of S by h, W and Y at (G, h, W, Y)."""

    generate_vmap_rule = True

    @staticmethod
    @takes_anything
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        return tuple(operators.GRADIENTS(*arguments[:-1], arguments[-1].flat, 1.0))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _save(ctx, inputs, 7)

    @staticmethod
    def backward(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        if all(tangent is None for tangent in tangents):
            return (None, None, None, None, *_NONE)
        point, edges = ctx.saved_tensors[:4], (*ctx.saved_tensors[4:], *ctx.rest)
        return (*_Second.apply(*point, *tangents, *edges), *_NONE)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor | None, ...]:
        point, edges = ctx.saved_tensors[:4], (*ctx.saved_tensors[4:], *ctx.rest)
        return _directional_gradients(point, tangents[:4], edges)


@final
class _Second(torch.autograd.Function):
    """The derivatives of <dh, dS/dh> + <dW, dS/dW> + <dY, dS/dY> by G, h, W and Y."""

    generate_vmap_rule = True

    @staticmethod
    @takes_anything
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        return tuple(operators.SECOND(*arguments[:-1], arguments[-1].flat, 1.0))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _save(ctx, inputs, 10)

    @staticmethod
    def backward(ctx: Any, *along: Tensor | None) -> tuple[Tensor | None, ...]:
        point, tangents = ctx.saved_tensors[:4], ctx.saved_tensors[4:7]
        edges = (*ctx.saved_tensors[7:], *ctx.rest)
        by_tangents = _directional_gradients(point, along, edges)
        # by the point: one factor replaced by its `along`, and any other by its tangent
        by_point: list[list[Tensor | None]] = [[], [], [], []]
        for place, replacement in enumerate(along):
            others = [
                None if place == factor + 1 else tangent for factor, tangent in enumerate(tangents)
            ]
            if replacement is None or all(other is None for other in others):
                continue
            replaced = [*point[:place], replacement, *point[place + 1 :]]
            for other, part in enumerate(_Second.apply(*replaced, *others, *edges)):
                if other != place:
                    by_point[other].append(part)
        absent = (tangent is None for tangent in tangents)
        by_tangents = tuple(
            None if missing else by for missing, by in zip(absent, by_tangents, strict=True)
        )
        return (*(_sum(terms) for terms in by_point), *by_tangents, *_NONE)


def _save(ctx: Any, inputs: tuple[Any, ...], num_tensors: int) -> None:
    """Keep an operator's arguments for its derivatives."""
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:num_tensors])
    ctx.save_for_forward(*inputs[:num_tensors])
    ctx.rest = inputs[num_tensors:]


def _directional_sums(
    factors: tuple[Tensor, ...], tangents: tuple[Tensor | None, ...], edges: tuple[Any, ...]
) -> Tensor | None:
    """Return the derivative of A along tangents of h, W and Y."""
    return _sum(
        [
            _Sums.apply(*factors[:place], tangent, *factors[place + 1 :], *edges)
            for place, tangent in enumerate(tangents)
            if tangent is not None
        ]
    )


def _directional_gradients(
    point: tuple[Tensor, ...], tangents: tuple[Tensor | None, ...], edges: tuple[Any, ...]
) -> tuple[Tensor | None, ...]:
    """Return the derivative of the gradients by h, W and Y along tangents of G, h, W and Y."""
    terms: list[list[Tensor | None]] = [[], [], []]
    if tangents[0] is not None:
        parts = _Gradients.apply(tangents[0], *point[1:], *edges)
        for place, part in enumerate(parts):
            terms[place].append(part)
    if any(tangent is not None for tangent in tangents[1:]):
        parts = _Second.apply(*point, *tangents[1:], *edges)[1:]
        for place, part in enumerate(parts):
            terms[place].append(part)
    return tuple(_sum(parts) for parts in terms)
