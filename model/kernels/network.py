"""Energies of atoms, and their gradient by the edge vectors, of a whole plain network in one call.

For small structures an evaluation costs what its operators cost to call, not their arithmetic.
Here everything from edge vectors to site energies is compiled (network.cpp): for evaluation, with
splined radial weights, differentiable once. It computes what the network's modules do, to rounding.
Networks of one shape are answered together, and so are heads of one network; members that see the
same edge vectors (a leading axis of stride zero) share what is computed of them.
"""

import copy
import ctypes
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tace_al.core.errors import ModelError
from tace_al.model.kernels.geometry import GeometryKernel, constant_fields
from tace_al.model.kernels.layout import EdgeList, SumLayout
from tace_al.model.kernels.library import compiled
from tace_al.model.kernels.native import layout_fields
from tace_al.model.kernels.spline import RadialSpline

_ENTRIES = {torch.float32: "tace_network_float", torch.float64: "tace_network_double"}
_LAYER = struct.Struct("=31qd6q")
_MODEL = struct.Struct("=3q2d7q7q4q")
_CALL = struct.Struct("=10q14q")
_SIZE, _FORWARD, _BACKWARD = range(3)
_BLOCK = 64  # bytes
MAX_LAYERS = 16


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class LayerShape:
    """What the layers of all trunks have in common.

    Parameters
    ----------
    channels_in, channels
        Before and after the layer.
    degree_in, degree_out
        Highest degrees of the features before and after.
    layout
        Rows of the sums over neighbours.
    paths_of_degree
        How many paths lead to each degree of the message.
    couplings
        From the rows of the sums to the coupled ones, ordered by degree, component and path.
    terms, product_rows
        Of the `ProductTable`.
    residual
        What its matrices read: nothing (0), the layer's input (1) or its message (2).
    residual_degree
        Highest degree that they read.
    """

    channels_in: int
    channels: int
    degree_in: int
    degree_out: int
    layout: SumLayout
    paths_of_degree: tuple[int, ...]
    couplings: Float[Tensor, "coupled rows"]
    terms: Int[Tensor, "terms 3"]
    product_rows: Int[Tensor, "entries 3"]
    residual: int
    residual_degree: int


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class LayerWeights:
    """Numbers of one trunk's layer, with all constant factors; None where there are none.

    Parameters
    ----------
    sent
        What each species sends in the first layer.
    up, up_bias
        Matrices of each degree for what is sent in later layers, and a constant.
    spline
        Radial weights.
    mix
        For each degree of the message a matrix for each path.
    coefficients
        Of the `ProductTable`.
    product
        Weights of its paths.
    linear
        Matrices of each degree after the product.
    residual
        Matrices of each species and degree.
    constant
        Added to the scalars of each species.
    """

    sent: Float[Tensor, "species channels"] | None
    up: Float[Tensor, "degrees channels_in channels"] | None
    up_bias: Float[Tensor, " channels"] | None
    spline: RadialSpline
    mix: Sequence[Float[Tensor, "_ channels channels"]]
    coefficients: Float[Tensor, " terms_and_rows"]
    product: Float[Tensor, "species paths channels"]
    linear: Float[Tensor, "_ channels channels"]
    residual: Float[Tensor, "species _ _ channels"] | None
    constant: Float[Tensor, "species channels"] | None


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class HeadWeights:
    """Numbers of one head, with all constant factors.

    Parameters
    ----------
    linear
        Readouts of the scalars of all layers but the last.
    hidden, out
        The last layer's readout: to its hidden layer, and from there through SiLU.
    constants
        E0, scale and shift of each species in eV, float64.
    """

    linear: Sequence[Float[Tensor, " _"]]
    hidden: Float[Tensor, "channels width"]
    out: Float[Tensor, " width"]
    constants: Float[Tensor, "3 species"]


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class AtomSlots:
    """A batch of atoms sorted by species, as `tace_al.model.inputs.NetworkInputs` has it.

    Parameters
    ----------
    species
        Of each atom, ascending.
    edges
        The edge of each slot.
    blocks
        Senders of all slots, and which slots of an atom hold edges.
    sender_species
        Species of the senders.
    system_index
        Structure of each atom; edges stay within structures.
    num_systems
        Number of structures.
    """

    species: Int[Tensor, " atoms"]
    edges: Int[Tensor, "atoms slots"]
    blocks: EdgeList
    sender_species: Int[Tensor, "atoms slots"]
    system_index: Int[Tensor, " atoms"]
    num_systems: int


class SiteEnergies(NamedTuple):
    """What a network says of each atom.

    Parameters
    ----------
    energy
        (*members, atoms) eV, float64; of several heads also for one set of vectors.
    descriptors
        (*members, atoms, channels of all layers), of heads those of their trunk alone.
    """

    energy: Tensor
    descriptors: Tensor


@final
class NetworkKernel:
    """One network, several of one shape, or one with several heads, in one call.

    Attributes
    ----------
    threads
        How many share the structures of a call, 1 unless set; numbers do not depend on it.
    """

    def __init__(
        self,
        edges: GeometryKernel,
        shapes: Sequence[LayerShape],
        trunks: Sequence[Sequence[LayerWeights]],
        heads: Sequence[Sequence[HeadWeights]],
        *,
        dtype: torch.dtype,
        head: str,
    ) -> None:
        """Lay the weights out for the kernel, in `dtype`.

        `heads` has those of each trunk, equally many; `head` is the name of the first.
        """
        self.head, self.dtype, self.threads = head, dtype, 1
        self.num_trunks, self.num_heads, self._first = len(trunks), len(heads[0]), 0
        assert all(len(own) == self.num_heads for own in heads)
        self._rooms: dict[tuple[int, ...], int] = {}
        self.num_descriptors = sum(shape.channels for shape in shapes)
        assert len(shapes) <= MAX_LAYERS
        self._keep: list[Any] = [edges]  # what addresses point to
        lanes = _BLOCK // dtype.itemsize
        readouts = [weights for own in heads for weights in own]
        members = [_Pack(lanes) for _ in readouts]
        places = [_head_places(*pair) for pair in zip(members, readouts, strict=True)]
        packs = [_Pack(lanes) for _ in trunks]
        layers = [
            self._layer(shape, [layers[index] for layers in trunks], packs, read_at)
            for index, (shape, read_at) in enumerate(zip(shapes, places[0][3:], strict=True))
        ]
        constants = [weights.constants.to(torch.float64).contiguous() for weights in readouts]
        width = -(-readouts[0].out.shape[0] // lanes) * lanes
        model = _MODEL.pack(
            *constant_fields(edges),
            *(constants[0].shape[1], len(shapes), self.num_heads, width, *places[0][:3]),
            self._bytes(b"".join(layers)),
            self._addresses([pack.numbers(dtype) for pack in packs]),
            self._addresses([pack.numbers(dtype) for pack in members]),
            self._addresses(constants),
        )
        self._model = self._bytes(model)
        library = compiled()
        assert library is not None
        self._entry = getattr(library, _ENTRIES[dtype])
        self._entry.restype = ctypes.c_int64

    @property
    def num_members(self) -> int:
        """Number of networks, or of heads of the one network."""
        return self.num_trunks * self.num_heads

    def __call__(
        self, vectors: Float[Tensor, "*members edges 3"], slots: AtomSlots
    ) -> SiteEnergies:
        """Return energies and descriptors; vectors in Angstrom, members first if there are many.

        Heads of one network read one set of vectors, expanded to as many where each is to have a
        gradient of its own; without the leading axis the gradient is that of all of them together.
        """
        if vectors.dtype != self.dtype:
            raise TypeError(f"the kernel computes in {self.dtype}; vectors are {vectors.dtype}")
        together = vectors.dim() == 2 and self.num_trunks == 1
        if not together and (vectors.dim() == 2 or vectors.shape[0] != self.num_members):
            found = vectors.shape[0] if vectors.dim() == 3 else 1
            raise ValueError(f"vectors of {found} members for {self.num_members}")
        if not together and self.num_heads > 1 and vectors.stride(0):
            raise ValueError("heads of one network read one set of vectors; expand it")
        return SiteEnergies(*_Network.apply(vectors, self, slots))

    def of_member(self, member: int) -> "NetworkKernel":
        """Return the kernel of one network among several, of the same numbers."""
        alone = copy.copy(self)
        alone.num_trunks, alone._first = 1, self._first + member
        return alone

    def room(self, slots: AtomSlots, vectors: Tensor) -> int:
        """Return the bytes that the forward pass leaves behind."""
        shape = (self.num_trunks, _is_shared(vectors), *slots.edges.shape)
        room = self._rooms.get(shape)
        if room is None:
            room = _BLOCK * self.run(_SIZE, slots, vectors, *(None,) * 6)
            self._rooms = {shape: room}  # of the last batch, which calculators ask for again
        return room

    def run(self, operation: int, slots: AtomSlots, vectors: Tensor, *arrays: Tensor | None) -> int:
        """Call the kernel; arrays are the room kept, values and gradients as in network.h."""
        shared = _is_shared(vectors)
        around = (slots.edges, slots.blocks.sender, slots.sender_species)
        ends = (slots.blocks.first, slots.blocks.last)
        own = vectors[0] if shared else vectors
        atoms = (slots.species, slots.system_index)
        keep = [given.contiguous() for given in (*around, *ends, *atoms, own)]
        addresses = (0 if array is None else array.data_ptr() for array in (*keep, *arrays))
        num_atoms, num_slots = slots.edges.shape
        trunks = (self._first, self.num_trunks, shared, vectors.dim() == 3)
        sizes = (num_atoms, num_slots, vectors.shape[-2], slots.num_systems, self.threads)
        call = _CALL.pack(self._model, *trunks, *sizes, *addresses)
        found: int = self._entry(operation, call)
        if found < 0:
            raise IndexError(
                "the slots name atoms, edges, species or structures that are not there"
            )
        return found

    def _bytes(self, content: bytes) -> int:
        """Keep bytes and return their address."""
        kept = ctypes.create_string_buffer(content, max(len(content), 1))
        self._keep.append(kept)
        return ctypes.addressof(kept)

    def _addresses(self, tensors: Sequence[Tensor]) -> int:
        """Keep tensors and return the address of their addresses."""
        self._keep.append(tensors)
        return self._bytes(struct.pack(f"={len(tensors)}q", *(t.data_ptr() for t in tensors)))

    def _ints(self, numbers: Tensor, dtype: torch.dtype) -> int:
        """Keep integers and return their address."""
        kept = numbers.to(dtype).contiguous()
        self._keep.append(kept)
        return kept.data_ptr()

    def _layer(
        self,
        shape: LayerShape,
        trunks: Sequence[LayerWeights],
        packs: Sequence["_Pack"],
        read_at: int,
    ) -> bytes:
        """Return the struct of a layer, having added its numbers to every trunk's."""
        couplings = shape.couplings.double()
        entries = couplings.nonzero()
        places = [
            _layer_places(pack, weights, couplings[entries[:, 0], entries[:, 1]])
            for pack, weights in zip(packs, trunks, strict=True)
        ]
        pack = packs[0]
        tables = [pack.padded(weights.spline.table, 1).to(self.dtype) for weights in trunks]
        spline = trunks[0].spline
        (_, _, paths, rows, num_pairs, pairs), kept = layout_fields(shape.layout)
        self._keep.append(kept)
        return _LAYER.pack(
            *(pack.width(shape.channels_in), pack.width(shape.channels), shape.channels),
            *(shape.degree_in, shape.degree_out),
            *(num_pairs, paths, rows, spline.table.shape[0]),
            *(couplings.shape[0], len(entries)),
            *(len(shape.terms), len(shape.product_rows), trunks[0].product.shape[1]),
            *(shape.residual, shape.residual_degree, *places[0], read_at, spline.spacing, pairs),
            self._ints(torch.tensor(shape.paths_of_degree), torch.int64),
            self._ints(entries, torch.int32),
            self._ints(shape.terms, torch.int32),
            self._ints(shape.product_rows, torch.int32),
            self._addresses([table.contiguous() for table in tables]),
        )


@final
class _Pack:
    """Numbers of a trunk or a head, each tensor from a whole multiple of 64 bytes on."""

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._parts: list[Tensor] = []
        self._length = 0

    def width(self, channels: int) -> int:
        """Return the number of channels with those that fill up the last vector."""
        return -(-channels // self._lanes) * self._lanes

    def padded(self, tensor: Tensor, axes: int) -> Tensor:
        """Return a tensor whose last one or two axes are channels, filled up with zeros."""
        missing = [self.width(size) - size for size in tensor.shape[-axes:]]
        if not any(missing):
            return tensor
        return nn.functional.pad(tensor, [n for size in reversed(missing) for n in (0, size)])

    def add(self, tensor: Tensor | None, axes: int) -> int:
        """Add a tensor and return its place, -1 if there is none; `axes` of it are channels."""
        if tensor is None:
            return -1
        numbers = (self.padded(tensor, axes) if axes else tensor).double().flatten()
        place, size = self._length, self.width(len(numbers))
        self._parts.append(nn.functional.pad(numbers, (0, size - len(numbers))))
        self._length += size
        return place

    def numbers(self, dtype: torch.dtype) -> Tensor:
        """Return all of them."""
        return torch.cat(self._parts).to(dtype)


def _places(pack: _Pack, *parts: tuple[Tensor | None, int]) -> list[int]:
    """Add tensors with so many axes of channels and return their places."""
    return [pack.add(tensor, axes) for tensor, axes in parts]


def _layer_places(pack: _Pack, weights: LayerWeights, couplings: Tensor) -> list[int]:
    """Add the numbers of a layer and return their places in the order of the struct."""
    # one matrix (paths x channels, channels) a degree; back, (channels, paths x channels)
    mix = [pack.padded(matrices, 2) for matrices in weights.mix]
    forth = torch.cat([matrices.flatten() for matrices in mix])
    back = torch.cat([matrices.flatten(0, 1).T.flatten() for matrices in mix])
    return _places(
        pack,
        (weights.sent, 1),
        (weights.up, 2),
        (None if weights.up is None else weights.up.mT, 2),
        (weights.up_bias, 1),
        (couplings, 0),
        (forth, 0),
        (back, 0),
        (weights.coefficients, 0),
        (weights.product, 1),
        (weights.linear, 2),
        (weights.linear.mT, 2),
        (weights.residual, 2),
        (None if weights.residual is None else weights.residual.mT, 2),
        (weights.constant, 1),
    )


def _head_places(pack: _Pack, weights: HeadWeights) -> list[int]:
    """Add the numbers of a head and return their places: three matrices, then of each layer."""
    matrices = ((weights.hidden, 2), (weights.hidden.T, 2), (weights.out, 1))
    return _places(pack, *matrices, *((layer, 1) for layer in weights.linear), (None, 1))


def _is_shared(vectors: Tensor) -> bool:
    """Return whether all members see the very same vectors."""
    return vectors.dim() == 3 and vectors.stride(0) == 0


@final
class _Network(torch.autograd.Function):
    """Energies and descriptors of the atoms."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        vectors, kernel, slots = arguments
        num_atoms, heads = slots.edges.shape[0], kernel.num_heads
        members = (heads,) if heads > 1 else vectors.shape[:-2]
        energy = torch.empty(*members, num_atoms, dtype=torch.float64)
        trunks = () if heads > 1 else members
        descriptors = vectors.new_empty(*trunks, num_atoms, kernel.num_descriptors)
        kept = torch.empty(kernel.room(slots, vectors), dtype=torch.uint8)
        kernel.run(_FORWARD, slots, vectors, kept, energy, descriptors, None, None, None)
        ctx.save_for_backward(vectors, kept)
        ctx.set_materialize_grads(False)
        ctx.kernel, ctx.slots = kernel, slots
        return energy, descriptors

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise ModelError(
                "the compiled network can be differentiated once; evaluate without splines where "
                "second derivatives are asked for"
            )
        vectors, kept = ctx.saved_tensors
        by_energy, by_descriptors = (
            None if given is None else given.contiguous() for given in cotangents
        )
        if by_descriptors is not None and ctx.kernel.num_heads > 1:
            raise ModelError("descriptors that several heads share cannot be differentiated")
        by_vectors = torch.zeros_like(vectors, memory_format=torch.contiguous_format)
        given = (by_energy, by_descriptors, by_vectors)
        ctx.kernel.run(_BACKWARD, ctx.slots, vectors, kept, None, None, *given)
        return by_vectors, None, None
