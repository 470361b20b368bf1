"""The spectral product basis in one kernel, differentiable any number of times.

With a cotangent G the form S(m, W, G) = sum(out G) of message, weight and cotangent holds every
derivative: `out` is its derivative by G, the gradients by m and W come next, and the derivative of
<d, D^n S [.., .]> by the point is D^(n+1) S [.., d, .]. Three kernels follow the first one; what
is differentiated still more often goes through the terms one by one. `torch.func` (grad, vmap,
jvp) goes through all of it.
"""

from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tace_al.model.kernels import native, product_operators
from tace_al.model.kernels.product_table import ProductTable, product_by_terms
from tace_al.model.kernels.sums import takes_anything

_NONE = (None, None)  # no derivatives by species and table
Parts = tuple[Tensor | None, ...]


def spectral_product(
    message: Float[Tensor, "*members atoms dim_in channels"],
    weight: Float[Tensor, "*members species paths channels"],
    species: Int[Tensor, " atoms"],
    table: ProductTable,
) -> Float[Tensor, "*members atoms dim_out channels"]:
    """Return sum_rows c W[Z, path] x_node, for one message or for members on a leading axis.

    Parameters
    ----------
    message
        m.
    weight
        W, in the message's dtype.
    species
        Row of the weights that each atom reads; quickest where equal ones are neighbours.
    table
        What is multiplied; coefficients in the message's dtype.

    Raises
    ------
    ValueError
        The weights have other channels than the message.
    IndexError
        `species` names rows that the weights do not have.
    """
    _check_factors(message, weight, species, table)
    if not native.takes(message):
        return product_by_terms(message, weight, species, table)
    result: Tensor = _Product.apply(message, weight, species, table)
    return result


def _check_factors(message: Tensor, weight: Tensor, species: Tensor, table: ProductTable) -> None:
    """Raise ValueError unless shapes and dtypes belong together."""
    shape, other = message.shape, weight.shape
    fits = shape[-1] == other[-1] and shape[-3] == species.shape[0]
    if not fits or not (len(shape) == len(other) == 3 or shape[:-3] == other[:-3]):
        raise ValueError(
            f"`message` has shape {tuple(shape)} (atoms, dim_in, channels), `weight` "
            f"{tuple(other)} (species, paths, channels), `species` {tuple(species.shape)}; pass as "
            "many atoms and channels in each, and members on one axis before, in both or neither"
        )
    if not message.dtype == weight.dtype == table.coefficients.dtype:
        raise ValueError(
            f"`message` is {message.dtype}, `weight` {weight.dtype}, the table's coefficients "
            f"{table.coefficients.dtype}; pass all three in one dtype"
        )


@final
class _Product(torch.autograd.Function):
    """out(m, W)."""

    generate_vmap_rule = True

    @staticmethod
    @takes_anything
    def forward(*arguments: Any) -> Any:
        return product_operators.PRODUCT(*arguments[:-1], *arguments[-1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _save(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor | None) -> Parts:
        if cotangent is None:
            return (None, None, *_NONE)
        message, weight, species = ctx.saved_tensors
        point = (message, weight, cotangent, species)
        if torch.is_grad_enabled():
            return (*_Gradients.apply(*point, ctx.table), *_NONE)
        # nobody differentiates again
        return (*product_operators.GRADIENTS(*point, *ctx.table), *_NONE)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor | None:
        message, weight, species = ctx.saved_tensors
        shape = (*message.shape[:-2], ctx.table.dim_out, message.shape[-1])
        point = (message, weight, message.new_zeros(shape))  # whatever the cotangent is
        return _second(point, (*tangents[:2], None), (species, ctx.table))[2]


@final
class _Gradients(torch.autograd.Function):
    """The derivatives of S by m and W at (m, W, G)."""

    generate_vmap_rule = True

    @staticmethod
    @takes_anything
    def forward(*arguments: Any) -> Any:
        return tuple(product_operators.GRADIENTS(*arguments[:-1], *arguments[-1]))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _save(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, *direction: Tensor | None) -> Parts:
        point, around = ctx.saved_tensors[:3], (*ctx.saved_tensors[3:], ctx.table)
        return (*_second(point, (*direction, None), around), *_NONE)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Parts:
        point, around = ctx.saved_tensors[:3], (*ctx.saved_tensors[3:], ctx.table)
        return _second(point, tangents[:3], around)[:2]


@final
class _Second(torch.autograd.Function):
    """D^2 S [d, .] by m, W and G at (m, W, G)."""

    generate_vmap_rule = True

    @staticmethod
    @takes_anything
    def forward(*arguments: Any) -> Any:
        return tuple(product_operators.SECOND(*arguments[:-1], *arguments[-1]))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _save(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, *along: Tensor | None) -> Parts:
        saved, around = ctx.saved_tensors[:6], (*ctx.saved_tensors[6:], ctx.table)
        if all(part is None for part in along):
            return (None,) * 6 + _NONE
        results = _Third.apply(*saved, *along, *around)
        by_direction = (
            None if given is None else by for given, by in zip(saved[3:], results[3:], strict=True)
        )
        return (*results[:3], *by_direction, *_NONE)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Parts:
        saved, around = ctx.saved_tensors[:6], (*ctx.saved_tensors[6:], ctx.table)
        point, direction = saved[:3], saved[3:]
        along = _second(point, tangents[3:6], around)
        if all(part is None for part in tangents[:3]):
            return along
        turned = _Third.apply(*point, *direction, *tangents[:3], *around)[:3]
        return tuple(a if b is None else a + b for a, b in zip(turned, along, strict=True))


@final
class _Third(torch.autograd.Function):
    """D^3 S [d, u, .] and D^2 S [u, .] by m, W and G at (m, W, G)."""

    generate_vmap_rule = True

    @staticmethod
    @takes_anything
    def forward(*arguments: Any) -> Any:
        return tuple(product_operators.THIRD(*arguments[:-1], *arguments[-1]))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _save(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, *along: Tensor | None) -> Parts:
        given, species, table = ctx.saved_tensors[:9], ctx.saved_tensors[9], ctx.table
        whole = _without_gaps(given[:3], given)
        traced: Any = torch.func.vjp(lambda *point: _third_by_terms(point, species, table), *whole)
        results, pullback = traced
        filled = tuple(
            torch.zeros_like(result) if part is None else part
            for part, result in zip(along, results, strict=True)
        )
        gradients: tuple[Tensor, ...] = pullback(filled)
        pairs = zip(given, gradients, strict=True)
        return (*(None if tensor is None else by for tensor, by in pairs), *_NONE)


def _save(ctx: Any, inputs: tuple[Any, ...]) -> None:
    """Keep an operator's arguments for its derivatives."""
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:-1])
    ctx.save_for_forward(*inputs[:-1])
    ctx.table = inputs[-1]


def _second(point: Parts, direction: Parts, around: tuple[Any, ...]) -> Parts:
    """Return D^2 S [d, .]; nothing if there is no direction."""
    if all(part is None for part in direction):
        return (None, None, None)
    results: Parts = _Second.apply(*point, *direction, *around)
    return results


def _without_gaps(point: tuple[Tensor, ...], given: Parts) -> tuple[Tensor, ...]:
    """Return point and directions with zeros in place of what is left out."""
    return tuple(
        torch.zeros_like(point[place % 3]) if tensor is None else tensor
        for place, tensor in enumerate(given)
    )


def _third_by_terms(
    given: tuple[Tensor, ...], species: Tensor, table: ProductTable
) -> tuple[Tensor, ...]:
    """Return what `_Third` does, term by term."""

    def form(message: Tensor, weight: Tensor, cotangent: Tensor) -> Tensor:
        return (product_by_terms(message, weight, species, table) * cotangent).sum()

    gradient = torch.func.grad(form, argnums=(0, 1, 2))

    def second(point: tuple[Tensor, ...], direction: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        along: tuple[Tensor, ...] = torch.func.vjp(gradient, *point)[1](direction)
        return along  # the second derivative is symmetric

    point, first, last = given[:3], given[3:6], given[6:]
    turned = torch.func.vjp(lambda *at: second(at, last), *point)[1](first)
    return (*turned, *second(point, last))
