"""What the network reads besides edge vectors: atoms sorted by species, their edges, conditions.

Sorting by species makes every species-dependent map one matrix product a species. Every atom gets
the same number of edge slots, so that a sum over neighbours is one small matrix product an atom.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tace_al.model.linear import SpeciesGroups


@dataclass(frozen=True, kw_only=True, slots=True)
class Geometry:
    """Absolute positions, for what edge vectors cannot say (long range, dipoles of charges).

    Parameters
    ----------
    positions
        Of the sorted atoms, Angstrom, float64.
    cells
        Lattice vectors as rows, Angstrom, float64.
    pbc
        Periodic directions.
    """

    positions: Float[Tensor, "atoms 3"]
    cells: Float[Tensor, "systems 3 3"]
    pbc: Bool[Tensor, "systems 3"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkInputs:
    """The batch as the network reads it, atoms sorted by species.

    Parameters
    ----------
    groups
        Species of the sorted atoms.
    edges
        Edges that end at each sorted atom, filled up to one length with the number of edges, which
        stands for no edge.
    sender
        Sorted place of the atom where each of them begins.
    place
        Sorted place of each atom of the graph.
    system_index
        Structure of each sorted atom.
    num_systems
        Number of structures.
    heads
        Names of the heads that read the batch.
    head_index
        Place in `heads` of each sorted atom's head; None where there is only one.
    conditions
        By name, one entry a sorted atom (those of structures repeated), NaN where absent.
    geometry
        Absolute positions, if the model reads them.
    """

    groups: SpeciesGroups
    edges: Int[Tensor, "atoms slots"]
    sender: Int[Tensor, "atoms slots"]
    place: Int[Tensor, " atoms"]
    system_index: Int[Tensor, " atoms"]
    num_systems: int
    heads: tuple[str, ...]
    head_index: Int[Tensor, " atoms"] | None
    conditions: Mapping[str, Tensor]
    geometry: Geometry | None

    @property
    def order(self) -> Int[Tensor, " atoms"]:
        """Place in the graph of each sorted atom."""
        return torch.argsort(self.place)

    def unsorted(self, values: Tensor) -> Tensor:
        """Return per-atom values in the graph's order."""
        return values.index_select(0, self.place)

    def total(self, values: Tensor) -> Tensor:
        """Return the sums of per-atom values over the atoms of each structure."""
        sums = torch.zeros(
            self.num_systems, *values.shape[1:], dtype=values.dtype, device=values.device
        )
        return sums.index_add(0, self.system_index, values)


def edge_slots(receiver: Int[Tensor, " edges"], num_atoms: int) -> Int[Tensor, "atoms slots"]:
    """Return the edges that end at each atom, in rows of one length.

    Rows are filled with the number of edges; there is at least one column.
    """
    num_edges = receiver.shape[0]
    order = torch.argsort(receiver, stable=True)
    counts = torch.bincount(receiver, minlength=num_atoms)
    width = max(int(counts.max()), 1) if num_edges else 1
    ends = torch.cumsum(counts, dim=0)
    column = torch.arange(num_edges, device=receiver.device) - (ends - counts)[receiver[order]]
    slots = torch.full((num_atoms, width), num_edges, device=receiver.device)
    slots[receiver[order], column] = order
    return slots


def slot_vectors(
    vectors: Float[Tensor, "edges 3"], edges: Int[Tensor, "atoms slots"], outside: float
) -> Float[Tensor, "rows 3"]:
    """Return one vector a slot, (atoms * slots, 3); an empty slot lies at `outside` Angstrom."""
    padded = nn.functional.pad(vectors, (0, 0, 0, 1), value=outside)
    return padded.index_select(0, edges.reshape(-1))
