"""What the layers read of every edge slot: distances, radial functions, harmonics, repulsion.

By the network's own modules, which can be differentiated any number of times, or by one compiled
call for evaluation with splined radial weights (`tace_al.model.kernels.GeometryKernel`).
"""

from typing import TYPE_CHECKING, NamedTuple

from jaxtyping import Float
from torch import Tensor

from tace_al.model.inputs import NetworkInputs, slot_vectors
from tace_al.model.kernels import EdgeSlots
from tace_al.model.radial import polynomial_cutoff, species_pairs

if TYPE_CHECKING:
    from tace_al.model.tace import Tace


class EdgeFunctions(NamedTuple):
    """Of every slot, or of the atom that slots belong to.

    Parameters
    ----------
    r
        (rows,) distances in Angstrom.
    radial
        (rows, radial) radial functions; None where splines stand for what reads them.
    harmonics
        (atoms, components, slots).
    coordination
        (atoms,) sums of the cutoff function.
    repulsion
        (atoms,) ZBL in eV, None without it.
    pairs
        (rows,) species of both ends, where something reads them.
    """

    r: Tensor
    radial: Tensor | None
    harmonics: Tensor
    coordination: Tensor
    repulsion: Tensor | None
    pairs: Tensor | None


def edge_functions(
    model: "Tace", vectors: Float[Tensor, "*members edges 3"], inputs: NetworkInputs
) -> EdgeFunctions:
    """Return the functions of edge vectors in Angstrom, through the network's modules."""
    config, sender = model.config, inputs.sender
    # an empty slot holds a vector far beyond every cutoff
    slots = slot_vectors(vectors, inputs.edges, outside=10.0 * config.cutoff)
    r = slots.norm(dim=-1) + config.length_offset
    envelope = polynomial_cutoff(r, config.cutoff, config.cutoff_power)
    pairs = None
    if config.species_radial or model.distance_transform is not None:
        pairs = species_pairs(inputs.groups.species, sender, len(config.elements))
    distance = r if model.distance_transform is None else model.distance_transform(r, pairs)
    repulsion = None
    if model.zbl is not None:
        distances = r.unflatten(-1, sender.shape)
        species = inputs.groups.species
        repulsion = model.zbl(distances, inputs.sender_species, species).sum(dim=-1)
    harmonics = model.harmonics(slots / r.unsqueeze(-1)).unflatten(-2, sender.shape)
    return EdgeFunctions(
        r=r,
        radial=model.radial_basis(distance, envelope),
        harmonics=harmonics.transpose(-2, -1),
        coordination=envelope.unflatten(-1, sender.shape).sum(dim=-1),
        repulsion=repulsion,
        pairs=pairs,
    )


def compiled_edge_functions(
    model: "Tace", vectors: Float[Tensor, "*members edges 3"], inputs: NetworkInputs
) -> EdgeFunctions:
    """Return the same without radial functions, from the compiled kernel; differentiable once."""
    slots = EdgeSlots(
        edges=inputs.edges,
        receiver_species=inputs.groups.species,
        sender_species=inputs.sender_species,
    )
    found = model.geometry(vectors, slots)
    return EdgeFunctions(
        r=found.distances,
        radial=None,
        harmonics=found.harmonics.unflatten(-2, inputs.sender.shape).transpose(-2, -1),
        coordination=found.coordination,
        repulsion=None if model.zbl is None else found.repulsion,
        pairs=None,
    )
