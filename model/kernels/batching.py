"""A leading batch axis shared by some tensors of an operator and not by others.

An operator of this package takes tensors with or without one leading axis; those without it are
shared, and if any has one, so have all results. That is how `torch.func.vmap` is served: a mapped
axis becomes that axis, an axis mapped over a batch is joined with it, and there is one call.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor


def batch_size(tensors: Sequence[Tensor | None], ranks: Sequence[int]) -> int | None:
    """Return the length of the batch axis, None if no tensor has one.

    Parameters
    ----------
    tensors
        Of the operator; None for one that is left out.
    ranks
        Axes of each without a batch axis.
    """
    size = None
    for tensor, rank in zip(tensors, ranks, strict=True):
        if tensor is not None and tensor.ndim > rank:
            assert size in (None, tensor.shape[0]), "batches of unlike lengths"
            size = tensor.shape[0]
    return size


def call_mapped(
    operator: Callable[..., Any], ranks: Sequence[int], info: Any, in_dims: Any, arguments: Any
) -> Any:
    """Call an operator under vmap: join the mapped axis with the batch axis.

    Parameters
    ----------
    operator
        Takes one tensor for each of the ranks, then whatever is not mapped.
    ranks
        Axes of each tensor without a batch axis.
    info, in_dims, arguments
        What `torch.library.register_vmap` hands over.
    """
    dims = in_dims[: len(ranks)]
    mapped = [
        given if given is None or dim is None else given.movedim(dim, 0)
        for given, dim in zip(arguments, dims, strict=False)
    ]
    lengths = {
        given.shape[-rank - 1]
        for given, dim, rank in zip(mapped, dims, ranks, strict=True)
        if given is not None and given.ndim > rank + (dim is not None)
    }
    sizes = (info.batch_size, *lengths)
    if lengths:  # a batch within a batch: both axes become one
        mapped = [
            given
            if given is None or (dim is None and given.ndim == rank)
            else _flattened(given, dim is not None, sizes, rank)
            for given, dim, rank in zip(mapped, dims, ranks, strict=True)
        ]
    found = operator(*mapped, *arguments[len(ranks) :])
    results = found if isinstance(found, tuple | list) else (found,)
    results = tuple(result.unflatten(0, sizes) for result in results)
    return (results[0], 0) if len(results) == 1 else (results, (0,) * len(results))


def _flattened(given: Tensor, is_mapped: bool, sizes: tuple[int, ...], rank: int) -> Tensor:
    """Return a tensor of which one of two leading axes may be missing with both as one."""
    shape = given.shape[-rank:]
    if given.ndim == rank + 1:
        given = given.unsqueeze(1 if is_mapped else 0)
    return given.expand(*sizes, *shape).reshape(-1, *shape)
