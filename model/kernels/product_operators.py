"""The product and its derivatives as PyTorch operators, without autograd.

    spectral_product             out(m, W)
    spectral_product_gradients   the gradient of S = sum(out G) by m and W
    spectral_product_second      D^2 S [d, .], the gradient's derivative along d, by m, W and G
    spectral_product_third       D^3 S [d, u, .] and D^2 S [u, .]

Tensors may have a leading batch axis (`batching.py`). For these operators there is nothing but the
compiled kernel; callers ask `native.takes` first.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, final

import torch
from torch import Tensor

from tace_al.model.kernels.batching import batch_size, call_mapped
from tace_al.model.kernels.library import compiled

_ENTRIES = {torch.float32: "tace_product_float", torch.float64: "tace_product_double"}
_PROBLEM = struct.Struct("=9q4q9q9q12q")  # packed anew in every call: quicker than ctypes
_FACTORS = 3  # message, weight, cotangent
_RANK = 3  # of each, without a batch axis


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class ProductOperator:
    """An operator: point, directions, then species, table and dim_out.

    Parameters
    ----------
    name
        In the namespace `tace_al`.
    inputs
        Tensors it takes: 2 (message, weight), or 3 for each of the point and the directions.
    results
        (part, factor) of each result; part 2^k - 1 is the coefficient of e_1 .. e_k
        (product.cpp), factors are message, weight and cotangent.
    """

    name: str
    inputs: int
    results: tuple[tuple[int, int], ...]

    @property
    def directions(self) -> int:
        """Along how many directions the sweeps are differentiated."""
        return max(self.inputs // _FACTORS - 1, 0)

    @property
    def ranks(self) -> tuple[int, ...]:
        """Axes of each tensor without a batch axis."""
        return (_RANK,) * self.inputs

    @property
    def schema(self) -> str:
        """The operator's schema."""
        names = ("message", "weight", "cotangent")[: self.inputs]
        tensors = [f"Tensor {name}" for name in names]
        for direction in range(1, self.directions + 1):
            tensors += [f"Tensor? {name}_{direction}" for name in names]
        around = "Tensor species, Tensor terms, Tensor rows, Tensor coefficients, int dim_out"
        returned = ", ".join("Tensor" for _ in self.results)
        return f"{self.name}({', '.join(tensors)}, {around}) -> ({returned})"

    def __call__(self, *arguments: Any) -> Any:
        """Compute, past the dispatcher where nobody listens to it (3 of 20 microseconds)."""
        if (
            type(arguments[0]) is Tensor
            and not torch._C._are_functorch_transforms_active()
            and not torch._C._len_torch_dispatch_stack()
        ):
            return self.run(*arguments)
        return getattr(torch.ops.tace_al, self.name).default(*arguments)

    def run(self, *arguments: Any) -> Tensor | list[Tensor]:
        """Fill the results with the compiled kernel.

        Raises
        ------
        IndexError
            A species or an entry of the table names what is not there.
        """
        species, terms, rows, coefficients, dim_out = arguments[self.inputs :]
        message, weight = arguments[0], arguments[1]
        dtype = message.dtype
        assert terms.dtype == rows.dtype == torch.int32
        assert species.dtype == torch.int64 and coefficients.dtype == dtype
        keep = [species.contiguous(), terms, rows, coefficients]
        inputs, batch = _input_fields(arguments[: self.inputs], dtype, keep)
        results = self._room(message, weight, batch, dim_out)
        outputs = [0] * (4 * _FACTORS)
        for (part, factor), result in zip(self.results, results, strict=True):
            outputs[_FACTORS * part + factor] = result.data_ptr()
        atoms, dim_in, channels = message.shape[-3:]
        num_species, paths = weight.shape[-3:-1]
        problem = _PROBLEM.pack(
            batch or 1,
            atoms,
            channels,
            dim_in,
            dim_out,
            num_species,
            paths,
            terms.shape[0],
            rows.shape[0],
            terms.data_ptr(),
            rows.data_ptr(),
            coefficients.data_ptr(),
            keep[0].data_ptr(),
            *inputs,
            *outputs,
        )
        if _entry(dtype)(self.directions, problem):
            raise IndexError(
                "the product does not fit: `species` names rows that the weights do not have, or "
                "the table names components, paths or products that are not there"
            )
        del keep  # until here, so that copies of strided arrays live
        return results[0] if len(results) == 1 else results

    def shapes(self, *arguments: Any) -> Tensor | list[Tensor]:
        """Return empty results, for tracing."""
        given = arguments[: self.inputs]
        batch = batch_size(given, self.ranks) or 0
        results = self._room(given[0], given[1], batch, arguments[-1])
        return results[0] if len(results) == 1 else results

    def vmap(self, info: Any, in_dims: Any, *arguments: Any) -> Any:
        """Join the mapped axis with the batch axis and call once.

        A mapped table is that of members whose buffers were stacked, all of them the same.
        """
        if in_dims[self.inputs] is not None:
            raise TypeError(
                "species cannot be mapped over by vmap: join the structures into one list of atoms"
            )
        around = [
            given if dim is None else _shared(given.movedim(dim, 0))
            for given, dim in zip(arguments[self.inputs :], in_dims[self.inputs :], strict=True)
        ]
        operator = getattr(torch.ops.tace_al, self.name).default
        return call_mapped(
            operator, self.ranks, info, in_dims, (*arguments[: self.inputs], *around)
        )

    def _room(self, message: Tensor, weight: Tensor, batch: int, dim_out: int) -> list[Tensor]:
        """Return room for the results, with a batch axis unless its length is 0."""
        atoms, dim_in, channels = message.shape[-3:]
        shapes = ((atoms, dim_in, channels), weight.shape[-3:], (atoms, dim_out, channels))
        lead = (batch,) if batch else ()
        return [message.new_empty((*lead, *shapes[factor])) for _, factor in self.results]


def _shared(stacked: Tensor) -> Tensor:
    """Return what all members of a stack of constants are."""
    if not torch.equal(stacked, stacked[:1].expand_as(stacked)):
        raise TypeError(
            "products of unlike tables cannot be mapped over by vmap: call them in turn"
        )
    return stacked[0]


def _input_fields(
    given: Sequence[Tensor | None], dtype: torch.dtype, keep: list[Tensor]
) -> tuple[list[int], int]:
    """Return addresses and steps, and the length of the batch axis, 0 if no tensor has one.

    The arrays are added to `keep`: they must outlive the call.
    """
    places = [0] * (6 * _FACTORS)
    batch = 0
    for index, tensor in enumerate(given):
        if tensor is None:
            continue
        assert tensor.dtype == dtype
        array = tensor.contiguous()
        keep.append(array)
        places[index] = array.data_ptr()
        if array.ndim > _RANK:
            size = array.shape[0]
            assert batch in (0, size), "batches of unlike lengths"
            batch = size
            places[3 * _FACTORS + index] = array.stride(0) if size > 1 else 0
    return places, batch


@cache
def _entry(dtype: torch.dtype) -> Callable[[int, bytes], int]:
    """Return the kernel for a dtype."""
    library = compiled()
    assert library is not None
    found: Callable[[int, bytes], int] = getattr(library, _ENTRIES[dtype])
    return found


PRODUCT = ProductOperator(name="spectral_product", inputs=2, results=((0, 2),))
GRADIENTS = ProductOperator(name="spectral_product_gradients", inputs=3, results=((0, 0), (0, 1)))
SECOND = ProductOperator(name="spectral_product_second", inputs=6, results=((1, 0), (1, 1), (1, 2)))
THIRD = ProductOperator(
    name="spectral_product_third",
    inputs=9,
    results=((3, 0), (3, 1), (3, 2), (2, 0), (2, 1), (2, 2)),
)
_LIBRARY = torch.library.Library("tace_al", "FRAGMENT")
for _operator in (PRODUCT, GRADIENTS, SECOND, THIRD):
    _LIBRARY.define(_operator.schema)
    _LIBRARY.impl(_operator.name, _operator.run, "CPU")
    torch.library.register_fake(f"tace_al::{_operator.name}", _operator.shapes, lib=_LIBRARY)
    torch.library.register_vmap(f"tace_al::{_operator.name}", _operator.vmap, lib=_LIBRARY)
