"""Distances, harmonics, coordination and repulsion of every edge slot in one call, for evaluation.

    r = |v|,   Y_l(v / r),   n_i = sum_slots f_c(r),   z_i = sum_slots ZBL(r) / 2

with the gradient by the edge vectors v, for one set of cotangents or many at once. Compiled only
(geometry.cpp) and differentiable once; a network that shall be differentiated further uses its
modules, of which this computes the same.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tace_al.core.errors import ModelError
from tace_al.model import cartesian
from tace_al.model.kernels.batching import call_mapped
from tace_al.model.kernels.library import compiled
from tace_al.model.kernels.sums import takes_anything

_ENTRIES = {torch.float32: "tace_geometry_float", torch.float64: "tace_geometry_double"}
_PROBLEM = struct.Struct("=3q2d7q6qd13q")  # Constants, then Problem; packed in every call
_RANKS = (2, 1, 2, 1, 1)  # of vectors and cotangents, without a batch axis


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Repulsion:
    """Constants of the ZBL potential, float64.

    Parameters
    ----------
    charges, radii, screening
        Of each species: Z, covalent radius in Angstrom, Z^0.23.
    phi
        Four amplitudes and four decays of the screening function.
    coulomb
        e^2 / (4 pi eps0) in eV Angstrom.
    """

    charges: Float[Tensor, " species"]
    radii: Float[Tensor, " species"]
    screening: Float[Tensor, " species"]
    phi: Float[Tensor, " 8"]
    coulomb: float


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class EdgeSlots:
    """Which edge lies in which slot, and between which species.

    Parameters
    ----------
    edges
        The edge of each slot; their number or more for an empty one.
    receiver_species, sender_species
        Read by the repulsion.
    """

    edges: Int[Tensor, "atoms slots"]
    receiver_species: Int[Tensor, " atoms"]
    sender_species: Int[Tensor, "atoms slots"]


class EdgeGeometry(NamedTuple):
    """What the layers read of every edge slot.

    Parameters
    ----------
    distances
        (rows,) Angstrom; ten cutoffs in an empty slot.
    harmonics
        (rows, components), zero in an empty slot.
    coordination
        (atoms,) sums of the cutoff function.
    repulsion
        (atoms,) eV; zero without ZBL.
    """

    distances: Tensor
    harmonics: Tensor
    coordination: Tensor
    repulsion: Tensor


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class GeometryKernel:
    """The constants of a network's edges.

    Parameters
    ----------
    l_max
        Highest degree of the harmonics.
    cutoff
        Angstrom.
    power
        Exponent of the cutoff function.
    repulsion
        ZBL, or None.
    """

    l_max: int
    cutoff: float
    power: int
    repulsion: Repulsion | None

    def __call__(
        self, vectors: Float[Tensor, "*members edges 3"], slots: EdgeSlots
    ) -> EdgeGeometry:
        """Return the geometry of every slot; vectors in Angstrom, on the CPU."""
        return EdgeGeometry(*_Geometry.apply(vectors, self, slots))


@cache
def _harmonics(l_max: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return parents and axes of all monomials, and all coefficients, degree after degree."""
    degrees = range(1, l_max + 1)
    steps = [cartesian.monomial_steps(l) for l in degrees]
    coefficients = [torch.tensor(cartesian.harmonic_coefficients(l)).flatten() for l in degrees]
    return (
        torch.tensor([parent for parents, _ in steps for parent in parents], dtype=torch.int32),
        torch.tensor([axis for _, axes in steps for axis in axes], dtype=torch.int32),
        torch.cat([torch.zeros(0, dtype=torch.float64), *coefficients]),
    )


def constant_fields(kernel: GeometryKernel) -> tuple[int | float, ...]:
    """Return the struct Constants; the kernel must outlive its use."""
    zbl = kernel.repulsion
    arrays = (zbl.charges, zbl.radii, zbl.screening, zbl.phi) if zbl else ()
    return (
        kernel.l_max,
        kernel.power,
        len(zbl.charges) if zbl else 0,
        kernel.cutoff,
        zbl.coulomb if zbl else 0.0,
        *(array.data_ptr() for array in _harmonics(kernel.l_max)),
        *([array.data_ptr() for array in arrays] or (0,) * 4),
    )


@cache
def _entry(dtype: torch.dtype) -> Callable[[bytes], int]:
    """Return the kernel for a dtype."""
    library = compiled()
    assert library is not None
    found: Callable[[bytes], int] = getattr(library, _ENTRIES[dtype])
    return found


def _run(
    kernel: GeometryKernel,
    slots: EdgeSlots,
    vectors: Tensor,
    *,
    values: tuple[Tensor, ...] | None = None,
    cotangents: tuple[Tensor | None, ...] = (None,) * 4,
    by_vectors: Tensor | None = None,
) -> None:
    """Fill `values`, or `by_vectors` from the cotangents of the values.

    `by_vectors` may have a batch axis that vectors lack; so must the cotangents have it then.
    """
    found = vectors if by_vectors is None else by_vectors
    num_atoms, num_slots = slots.edges.shape
    indices = [slots.edges, slots.receiver_species, slots.sender_species]
    keep = [None if given is None else given.contiguous() for given in (*indices, *cotangents)]
    arrays = (*keep[:3], vectors, *(values or (None,) * 4), *keep[3:], by_vectors)
    problem = _PROBLEM.pack(
        *constant_fields(kernel),
        by_vectors is not None,
        found.dim() > vectors.dim(),
        found.shape[0] if found.dim() > 2 else 1,
        vectors.shape[-2],
        num_atoms,
        num_slots,
        10.0 * kernel.cutoff,
        *(0 if array is None else array.data_ptr() for array in arrays),
    )
    if _entry(vectors.dtype)(problem):
        raise IndexError("the slots name species that the repulsion does not know")


@final
class _Geometry(torch.autograd.Function):
    """Values of every slot."""

    @staticmethod
    @takes_anything
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        vectors, kernel, slots = arguments
        vectors = vectors.contiguous()
        lead, num_atoms, rows = vectors.shape[:-2], slots.edges.shape[0], slots.edges.numel()
        values = (
            vectors.new_empty(*lead, rows),
            vectors.new_empty(*lead, rows, (kernel.l_max + 1) ** 2),
            vectors.new_empty(*lead, num_atoms),
            vectors.new_empty(*lead, num_atoms),
        )
        _run(kernel, slots, vectors, values=values)
        return values

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.set_materialize_grads(False)
        ctx.rest = inputs[1:]

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        (vectors,) = ctx.saved_tensors
        transformed = torch._C._are_functorch_transforms_active()
        gradient = _Gradient.apply if transformed or torch.is_grad_enabled() else _Gradient.forward
        return gradient(vectors, *cotangents, *ctx.rest), None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        return call_mapped(_Geometry.apply, _RANKS[:1], info, in_dims, arguments)


@final
class _Gradient(torch.autograd.Function):
    """The gradient by the vectors; many cotangents may share them."""

    @staticmethod
    @takes_anything
    def forward(*arguments: Any) -> Tensor:
        vectors, *cotangents, kernel, slots = arguments
        vectors = vectors.contiguous()
        pairs = list(zip(cotangents, _RANKS[1:], strict=True))
        lead = vectors.shape[:-2]
        for given, rank in pairs:
            if given is not None and given.dim() > rank:
                lead = given.shape[:-rank]
        by_vectors = vectors.new_empty(*lead, *vectors.shape[-2:])
        whole = tuple(
            given if given is None or given.dim() > rank else given.expand(*lead, *given.shape)
            for given, rank in pairs
        )
        _run(kernel, slots, vectors, cotangents=whole, by_vectors=by_vectors)
        return by_vectors

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep nothing."""

    @staticmethod
    def backward(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        raise ModelError(
            "the compiled geometry can be differentiated once; evaluate without splines where "
            "second derivatives are asked for"
        )

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        return call_mapped(_Gradient.apply, _RANKS, info, in_dims, arguments)
