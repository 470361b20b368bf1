"""What follows from the energy by differentiation.

Short-range energies depend on positions and cells only through the edge vectors r_ij, so one
derivative g_ij = dE/dr_ij gives everything: force_i = -sum_j g_ij + sum_j g_ji and the strain
derivative dE/de = sum_ij r_ij g_ij^T. Energies of charges also depend on absolute positions and
cells, whose derivatives are added:

    stress          (1/V) dE/de (compressed < 0)          virial          -dE/de
    dipole          -dE/dF                                polarizability  d(dipole)/dF
    born_charges    d(dipole)/dr                          magnetic_forces -dE/dm

with F the electric field and m the magnetic moments (arXiv 2509.14961). An atomic virial is half of
what each of its edges contributes; a part from absolute positions is shared equally by all atoms of
its structure, because only its sum is independent of the origin.
"""

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from tace_al.data.graph import AtomicGraph
from tace_al.model.hessian import force_jacobian

STRAIN = frozenset({"stress", "virial", "atomic_virials"})
POSITION = STRAIN | {"forces", "hessian"}
FIELD = frozenset({"dipole", "polarizability", "born_charges"})
SECOND = frozenset({"polarizability", "born_charges", "hessian"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Variables:
    """What the energy of a batch is a function of.

    Parameters
    ----------
    vectors
        Edge vectors in the network's dtype, Angstrom.
    root
        Positions that the vectors were computed from, where second derivatives are asked for.
    positions, cells
        Angstrom, float64; None where the energy does not depend on them except through `vectors`.
    conditions
        As in the graph; those differentiated by have absent entries set to zero.
    """

    vectors: Float[Tensor, "edges 3"]
    root: Float[Tensor, "atoms 3"] | None = None
    positions: Float[Tensor, "atoms 3"] | None = None
    cells: Float[Tensor, "systems 3 3"] | None = None
    conditions: Mapping[str, Tensor] = field(default_factory=dict)


def variables_of(
    graph: AtomicGraph, names: Set[str], dtype: torch.dtype, *, absolute: bool
) -> Variables:
    """Return the variables of a batch, marked for the derivatives that `names` need.

    `absolute` says that the energy depends on positions and cells beyond the edge vectors.
    """
    moved = bool(names & (POSITION | {"born_charges"}))
    root = None
    vectors = graph.edge_vectors().to(dtype)
    positions, cells = graph.positions, graph.cells
    if "hessian" in names:
        root = graph.positions.detach().clone().requires_grad_()
        vectors = graph.edge_vectors(root).to(dtype)
        positions = root.clone()  # its own derivative is that of the absolute part alone
    else:
        vectors.requires_grad_(moved)
        if absolute and moved:
            positions = positions.detach().clone().requires_grad_()
    if absolute and names & STRAIN:
        cells = cells.detach().clone().requires_grad_()
    conditions = dict(graph.conditions)
    for name, needed in (
        ("electric_field", bool(names & FIELD)),
        ("magnetic_moments", "magnetic_forces" in names),
    ):
        if needed and name in conditions:
            conditions[name] = torch.nan_to_num(conditions[name], nan=0.0).requires_grad_()
    return Variables(
        vectors=vectors,
        root=root,
        positions=positions if absolute else None,
        cells=cells if absolute else None,
        conditions=conditions,
    )


def gradients(
    total: Tensor, variables: Sequence[Tensor | None], *, create_graph: bool
) -> list[Tensor | None]:
    """Return the derivatives of a scalar by several variables, in one pass through its graph.

    Zero where it does not depend on a variable, None for what is not to be differentiated by.
    """
    wanted = [v for v in variables if v is not None and v.requires_grad]
    if not wanted or not total.requires_grad:
        return [
            None if v is None or not v.requires_grad else torch.zeros_like(v) for v in variables
        ]
    found = iter(
        torch.autograd.grad(
            total, wanted, create_graph=create_graph, retain_graph=True, materialize_grads=True
        )
    )
    return [None if v is None or not v.requires_grad else next(found) for v in variables]


def edge_forces(
    gradient: Float[Tensor, "edges *members 3"], graph: AtomicGraph
) -> Float[Tensor, "atoms *members 3"]:
    """Return -dE/dr_i from g_ij = dE/dr_ij with r_ij = r_i - r_j."""
    forces = gradient.new_zeros(graph.num_atoms, *gradient.shape[1:])
    return forces.index_add(0, graph.sender, gradient).index_add(0, graph.receiver, -gradient)


def edge_strain(
    gradient: Float[Tensor, "edges 3"], vectors: Float[Tensor, "edges 3"], graph: AtomicGraph
) -> Float[Tensor, "systems 3 3"]:
    """Return dE/de = sum_ij r_ij g_ij^T, made symmetric, in eV."""
    outer = vectors.unsqueeze(2) * gradient.unsqueeze(1)
    strain = torch.zeros(
        graph.num_systems, 3, 3, dtype=gradient.dtype, device=gradient.device
    ).index_add(0, graph.system_index[graph.sender], outer)
    return 0.5 * (strain + strain.transpose(1, 2))


def absolute_strain(
    positions: Float[Tensor, "atoms 3"],
    position_gradient: Float[Tensor, "atoms 3"],
    cells: Float[Tensor, "systems 3 3"],
    cell_gradient: Float[Tensor, "systems 3 3"],
    graph: AtomicGraph,
) -> Float[Tensor, "systems 3 3"]:
    """Return dE/de of what depends on absolute positions and cells, made symmetric, in eV."""
    outer = positions.unsqueeze(2) * position_gradient.unsqueeze(1)
    strain = torch.einsum("ska,skb->sab", cells, cell_gradient)
    strain = strain.index_add(0, graph.system_index, outer)
    return 0.5 * (strain + strain.transpose(1, 2))


def stress_of(strain: Float[Tensor, "systems 3 3"], graph: AtomicGraph) -> Tensor:
    """Return (1/V) dE/de; NaN where a structure has no volume."""
    volumes = graph.volumes.to(strain.dtype)[:, None, None]
    bounded = ~torch.isnan(volumes)
    # divide by a finite number everywhere: NaN in a masked branch would poison the gradient
    stress = strain / torch.where(bounded, volumes, torch.ones_like(volumes))
    return torch.where(bounded, stress, torch.full_like(stress, math.nan))


def edge_stress(
    gradient: Float[Tensor, "edges 3"], vectors: Float[Tensor, "edges 3"], graph: AtomicGraph
) -> Float[Tensor, "systems 3 3"]:
    """Return (1/V) sum_ij r_ij g_ij^T, made symmetric; NaN where a structure has no volume."""
    return stress_of(edge_strain(gradient, vectors, graph), graph)


def edge_atomic_virials(
    gradient: Float[Tensor, "edges 3"], vectors: Float[Tensor, "edges 3"], graph: AtomicGraph
) -> Float[Tensor, "atoms 3 3"]:
    """Return the virial of each atom in eV: half of what every edge that touches it contributes."""
    outer = -0.5 * vectors.unsqueeze(2) * gradient.unsqueeze(1)
    outer = 0.5 * (outer + outer.transpose(1, 2))
    virials = torch.zeros(graph.num_atoms, 3, 3, dtype=outer.dtype, device=outer.device)
    return virials.index_add(0, graph.sender, outer).index_add(0, graph.receiver, outer)


def field_response(
    dipole: Float[Tensor, "systems 3"],
    variables: Variables,
    graph: AtomicGraph,
    names: Set[str],
    *,
    create_graph: bool,
) -> dict[str, Tensor]:
    """Return the named derivatives of dipoles, by field and positions at once.

    Polarisabilities are (systems, 3, 3) in e A^2/V, Born charges Z*[i, a, b] = d(dipole_a)/dr_ib
    are (atoms, 3, 3) in e.
    """
    moved = "born_charges" in names
    field = variables.conditions["electric_field"] if "polarizability" in names else None
    vectors = variables.vectors if moved else None
    positions = variables.positions if moved else None
    polarizability, born_charges = [], []
    for axis in range(3):
        by_field, by_edges, by_positions = gradients(
            dipole[:, axis].sum(), (field, vectors, positions), create_graph=create_graph
        )
        if by_field is not None:
            polarizability.append(by_field)
        if by_edges is not None:
            row = -edge_forces(by_edges, graph).double()
            born_charges.append(row if by_positions is None else row + by_positions)
    tensors = {}
    if polarizability:
        tensors["polarizability"] = torch.stack(polarizability, dim=1)
    if born_charges:
        tensors["born_charges"] = torch.stack(born_charges, dim=1)
    return tensors


def born_charges_of(
    dipole: Float[Tensor, "systems 3"],
    variables: Variables,
    graph: AtomicGraph,
    *,
    create_graph: bool,
) -> Float[Tensor, "atoms 3 3"]:
    """Return Z*[i, a, b] = d(dipole_a)/dr_ib in e."""
    names = frozenset({"born_charges"})
    response = field_response(dipole, variables, graph, names, create_graph=create_graph)
    return response["born_charges"]


def derived_outputs(
    energy: Float[Tensor, " systems"],
    variables: Variables,
    graph: AtomicGraph,
    names: Set[str],
    *,
    create_graph: bool,
) -> dict[str, Tensor]:
    """Return the named derivatives of the energies of a batch."""
    keep = create_graph or bool(names & SECOND)
    conditions = variables.conditions
    mechanical = (variables.vectors, variables.positions, variables.cells)
    *by_geometry, by_field, by_moments = gradients(
        energy.sum(),
        (
            *(mechanical if names & POSITION else (None, None, None)),
            conditions["electric_field"] if names & FIELD else None,
            conditions["magnetic_moments"] if "magnetic_forces" in names else None,
        ),
        create_graph=keep,
    )
    tensors: dict[str, Tensor] = {}
    if names & POSITION:
        tensors |= _mechanical(by_geometry, variables, graph, names, keep=keep)
    if by_field is not None:
        tensors["dipole"] = -by_field
        if names & SECOND:
            tensors |= field_response(
                tensors["dipole"], variables, graph, names, create_graph=create_graph
            )
    if by_moments is not None:
        tensors["magnetic_forces"] = -by_moments
    return {name: tensor for name, tensor in tensors.items() if name in names}


def _mechanical(
    slopes: Sequence[Tensor | None],
    variables: Variables,
    graph: AtomicGraph,
    names: Set[str],
    *,
    keep: bool,
) -> dict[str, Tensor]:
    """Return what follows from the derivatives by edge vectors, positions and cells."""
    edges, by_positions, by_cells = slopes
    assert edges is not None
    vectors = variables.vectors if keep else variables.vectors.detach()
    forces = edge_forces(edges, graph)
    if by_positions is not None:
        forces = forces - by_positions
    tensors = {"forces": forces}
    if names & STRAIN:
        strain = edge_strain(edges, vectors, graph)
        shared = None
        if by_positions is not None and by_cells is not None:
            assert variables.positions is not None and variables.cells is not None
            shared = absolute_strain(
                variables.positions, by_positions, variables.cells, by_cells, graph
            )
            strain = strain + shared
        tensors["stress"] = stress_of(strain, graph)
        tensors["virial"] = -strain
        if "atomic_virials" in names:
            virials = edge_atomic_virials(edges, vectors, graph)
            if shared is not None:
                share = shared / graph.atom_counts()[:, None, None]
                virials = virials - share.index_select(0, graph.system_index)
            tensors["atomic_virials"] = virials
    if "hessian" in names:
        assert variables.root is not None
        tensors["hessian"] = force_jacobian(forces, variables.root)
    return tensors
