"""AtomicGraph: one or many structures as the tensors a network reads.

Edges run j -> i with vector r_ij = r_i - r_j + shift @ cell, sorted by receiver i; several
structures lie end to end and `system_index` says which atom belongs where. Positions and cells stay
float64; the network takes its vectors in its own dtype.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tace_al.data.conditions import CONDITIONS, read_conditions
from tace_al.data.neighbours import neighbour_list


@dataclass(frozen=True, kw_only=True, slots=True)
class AtomicGraph:
    """A batch of structures.

    Parameters
    ----------
    numbers
        Atomic numbers.
    positions
        Angstrom.
    cells
        Lattice vectors as rows, Angstrom; zero for a molecule.
    volumes
        Angstrom^3; NaN where the structure is not periodic in three directions.
    system_index
        Structure of each atom, ascending.
    sender, receiver
        Atoms j and i of each edge.
    shift
        Cell vectors crossed by each edge, in whole numbers.
    pbc
        Periodic directions.
    conditions
        Charge, fields and the like by name (`tace_al.data.conditions`), one entry a structure or an
        atom; NaN where absent.
    """

    numbers: Int[Tensor, " atoms"]
    positions: Float[Tensor, "atoms 3"]
    cells: Float[Tensor, "systems 3 3"]
    volumes: Float[Tensor, " systems"]
    system_index: Int[Tensor, " atoms"]
    sender: Int[Tensor, " edges"]
    receiver: Int[Tensor, " edges"]
    shift: Float[Tensor, "edges 3"]
    pbc: Bool[Tensor, "systems 3"]
    conditions: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def num_atoms(self) -> int:
        """Number of atoms in the whole batch."""
        return self.numbers.shape[0]

    @property
    def num_systems(self) -> int:
        """Number of structures."""
        return self.cells.shape[0]

    def atom_counts(self) -> Int[Tensor, " systems"]:
        """Return the number of atoms of each structure."""
        return torch.bincount(self.system_index, minlength=self.num_systems)

    def edge_vectors(
        self, positions: Float[Tensor, "atoms 3"] | None = None
    ) -> Float[Tensor, "edges 3"]:
        """Return r_ij = r_i - r_j + shift @ cell in Angstrom, at other positions if given."""
        positions = self.positions if positions is None else positions
        separation = positions.index_select(0, self.receiver)
        separation = separation - positions.index_select(0, self.sender)
        if self.pbc.device.type == "cpu" and not bool(self.pbc.any()):  # elsewhere asking waits
            return separation
        edge_cells = self.cells.index_select(0, self.system_index.index_select(0, self.sender))
        return separation + torch.einsum("es,esx->ex", self.shift, edge_cells)

    def to(self, device: torch.device | str) -> "AtomicGraph":
        """Return the graph on another device."""
        moved = {name: getattr(self, name).to(device) for name in _TENSORS}
        conditions = {name: value.to(device) for name, value in self.conditions.items()}
        return replace(self, **moved, conditions=conditions)


_TENSORS = tuple(entry.name for entry in fields(AtomicGraph) if entry.name != "conditions")


def graph_from_atoms(atoms: Atoms, cutoff: float, conditions: Sequence[str] = ()) -> AtomicGraph:
    """Return the graph of one structure with every edge shorter than `cutoff` (Angstrom).

    `conditions` names what else to read from the frame (`tace_al.data.conditions`).
    """
    sender, receiver, shift = neighbour_list(atoms, cutoff)
    periodic = np.asarray(atoms.pbc, dtype=bool)
    cell = np.where(periodic[:, None], atoms.cell.array, 0.0)
    volume = float(atoms.get_volume()) if periodic.all() else float("nan")
    return AtomicGraph(
        numbers=torch.tensor(atoms.numbers, dtype=torch.int64),
        positions=torch.tensor(atoms.positions, dtype=torch.float64),
        cells=torch.as_tensor(cell, dtype=torch.float64).reshape(1, 3, 3),
        volumes=torch.tensor([volume], dtype=torch.float64),
        system_index=torch.zeros(len(atoms), dtype=torch.int64),
        sender=torch.from_numpy(sender),
        receiver=torch.from_numpy(receiver),
        shift=torch.as_tensor(shift, dtype=torch.float64),
        pbc=torch.tensor(periodic).reshape(1, 3),
        conditions=read_conditions(atoms, conditions),
    )


def batch_graphs(graphs: Sequence[AtomicGraph]) -> AtomicGraph:
    """Return several graphs, made with the same names of conditions, as one, in order."""
    if len(graphs) == 1:
        return graphs[0]
    atom_offsets = np.cumsum([0, *(graph.num_atoms for graph in graphs)])[:-1].tolist()
    system_offsets = np.cumsum([0, *(graph.num_systems for graph in graphs)])[:-1].tolist()
    offset = {"sender": atom_offsets, "receiver": atom_offsets, "system_index": system_offsets}
    joined = {}
    for name in _TENSORS:
        parts = [getattr(graph, name) for graph in graphs]
        if name in offset:
            parts = [part + start for part, start in zip(parts, offset[name], strict=True)]
        joined[name] = torch.cat(parts)
    conditions = {
        name: torch.cat([graph.conditions[name] for graph in graphs])
        for name in graphs[0].conditions
    }
    return AtomicGraph(**joined, conditions=conditions)


def split_graph(graph: AtomicGraph, maximum_edges: int) -> list[AtomicGraph]:
    """Return a batch as smaller ones, in order, of at most so many edges or one structure each."""
    if graph.sender.shape[0] <= maximum_edges:
        return [graph]
    atom_ends = torch.cumsum(graph.atom_counts(), 0)
    edge_systems = graph.system_index[graph.receiver]
    edge_ends = torch.cumsum(torch.bincount(edge_systems, minlength=graph.num_systems), 0)
    first_atoms, first_edges = [0, *atom_ends.tolist()], [0, *edge_ends.tolist()]
    pieces, start = [], 0
    for stop in range(1, graph.num_systems + 1):
        full = stop == graph.num_systems
        if full or first_edges[stop + 1] - first_edges[start] > maximum_edges:
            pieces.append(
                _structures(
                    graph,
                    slice(start, stop),
                    slice(first_atoms[start], first_atoms[stop]),
                    slice(first_edges[start], first_edges[stop]),
                )
            )
            start = stop
    return pieces


def _structures(graph: AtomicGraph, systems: slice, atoms: slice, edges: slice) -> AtomicGraph:
    """Return the structures of a batch whose systems, atoms and edges these are."""
    return AtomicGraph(
        numbers=graph.numbers[atoms],
        positions=graph.positions[atoms],
        cells=graph.cells[systems],
        volumes=graph.volumes[systems],
        system_index=graph.system_index[atoms] - systems.start,
        sender=graph.sender[edges] - atoms.start,
        receiver=graph.receiver[edges] - atoms.start,
        shift=graph.shift[edges],
        pbc=graph.pbc[systems],
        conditions={
            name: values[atoms if CONDITIONS[name].per == "atom" else systems]
            for name, values in graph.conditions.items()
        },
    )
