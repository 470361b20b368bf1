"""What the network reads besides edge vectors: atoms sorted by species, their edges, conditions.

Sorting by species makes every species-dependent map one matrix product a species. Every atom gets
the same number of edge slots, so that a sum over neighbours is one small matrix product an atom.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tace_al.core.errors import ModelError, nearest_names
from tace_al.data.conditions import CONDITIONS, describe_place
from tace_al.data.graph import AtomicGraph
from tace_al.model.config import TaceConfig
from tace_al.model.derivatives import Variables
from tace_al.model.embeddings import check_conditions
from tace_al.model.kernels import AtomSlots, EdgeList
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
    total_charge
        Of each structure in e, NaN where unknown.
    """

    positions: Float[Tensor, "atoms 3"]
    cells: Float[Tensor, "systems 3 3"]
    pbc: Bool[Tensor, "systems 3"]
    total_charge: Float[Tensor, " systems"]


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
    sender_species
        Species of that atom.
    blocks
        The same for the compiled sums: the slots of each atom that hold edges.
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
    sender_species: Int[Tensor, "atoms slots"]
    blocks: EdgeList
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

    @property
    def slots(self) -> AtomSlots:
        """What the compiled network reads."""
        return AtomSlots(
            species=self.groups.species,
            edges=self.edges,
            blocks=self.blocks,
            sender_species=self.sender_species,
            system_index=self.system_index,
            num_systems=self.num_systems,
        )

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
    vectors: Float[Tensor, "*members edges 3"], edges: Int[Tensor, "atoms slots"], outside: float
) -> Float[Tensor, "*members rows 3"]:
    """Return one vector a slot, (atoms * slots, 3); an empty slot lies at `outside` Angstrom."""
    padded = nn.functional.pad(vectors, (0, 0, 0, 1), value=outside)
    return padded.index_select(-2, edges.reshape(-1))


def network_inputs(
    graph: AtomicGraph,
    config: TaceConfig,
    *,
    species: Int[Tensor, " atoms"],
    heads: Sequence[str],
    variables: Variables | None,
    dtype: torch.dtype,
) -> NetworkInputs:
    """Return a batch as the network reads it.

    Parameters
    ----------
    graph
        Structures, with the conditions of `config.conditions`.
    config
        Shape of the network.
    species
        Species index of each atom.
    heads
        Head of each structure.
    variables
        Conditions, positions and cells to differentiate by, instead of the graph's.
    dtype
        Of conditions in the network.

    Raises
    ------
    ModelError
        A condition is missing or out of range.
    """
    order = torch.argsort(species, stable=True)
    sorted_species = species[order]
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    edges = edge_slots(place[graph.receiver], graph.num_atoms)
    system_index = graph.system_index[order]
    present = tuple(dict.fromkeys(heads))
    head_index = None
    if len(present) > 1:
        head_of_system = torch.tensor([present.index(name) for name in heads], device=order.device)
        head_index = head_of_system[system_index]
    sender = nn.functional.pad(place[graph.sender], (0, 1))[edges]
    return NetworkInputs(
        groups=SpeciesGroups(
            species=sorted_species,
            counts=torch.bincount(species, minlength=len(config.elements)).tolist(),
        ),
        edges=edges,
        sender=sender,
        sender_species=sorted_species[sender],
        blocks=EdgeList.of_slots(sender, (edges < len(graph.sender)).sum(dim=1)),
        place=place,
        system_index=system_index,
        num_systems=graph.num_systems,
        heads=present,
        head_index=head_index,
        conditions=_conditions(graph, config, variables, order, dtype),
        geometry=_geometry(graph, variables, order) if config.reads_positions else None,
    )


def heads_of(
    graph: AtomicGraph, config: TaceConfig, head: str | Sequence[str] | None
) -> tuple[str, ...]:
    """Return the head of each structure of a batch from one name, many, or none (the first).

    Raises
    ------
    ModelError
        A head is not one of the model's, or there are not as many as structures.
    """
    if head is None or isinstance(head, str):
        head = (head or config.heads[0],) * graph.num_systems
    if len(head) != graph.num_systems:
        raise ModelError(f"{len(head)} heads are named for {graph.num_systems} structures")
    for name in head:
        if name not in config.heads:
            raise ModelError(
                f"no head '{name}'; this model has {', '.join(config.heads)}."
                f"{nearest_names(name, config.heads)}"
            )
    return tuple(head)


def _geometry(
    graph: AtomicGraph, variables: Variables | None, order: Int[Tensor, " atoms"]
) -> Geometry:
    """Return the absolute positions of the sorted atoms."""
    positions = variables.positions if variables else None
    cells = variables.cells if variables else None
    positions = graph.positions if positions is None else positions
    unknown = torch.full_like(graph.volumes, torch.nan)
    return Geometry(
        positions=positions.index_select(0, order),
        cells=graph.cells if cells is None else cells,
        pbc=graph.pbc,
        total_charge=graph.conditions.get("total_charge", unknown),
    )


def _conditions(
    graph: AtomicGraph,
    config: TaceConfig,
    variables: Variables | None,
    order: Int[Tensor, " atoms"],
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """Return the conditions of each sorted atom."""
    check_conditions(graph.conditions)
    conditions = graph.conditions if variables is None else variables.conditions
    gathered = {}
    for name in config.conditions:
        if name not in graph.conditions:
            raise ModelError(
                f"this model reads {name}, which the batch was made without; build it with "
                "graph_from_atoms(atoms, cutoff, model.config.conditions)"
            )
        if name in config.required_conditions and bool(graph.conditions[name].isnan().any()):
            raise ModelError(
                f"this model was trained with {name} on every structure, and one here has none; "
                f"set {describe_place(name)}"
            )
        per_structure = CONDITIONS[name].per == "structure"
        rows = graph.system_index[order] if per_structure else order
        gathered[name] = conditions[name].index_select(0, rows).to(dtype)
    return gathered
