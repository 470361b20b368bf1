"""What follows from atomic charges: the charges themselves, dipoles and Born charges.

Dipoles and Born charges come from here where a model has charges and is not told the electric
field, and are added to a declared dipole. With a field and no declared dipole they are derivatives
of the energy (`tace_al.model.derivatives`). `tace_al.model.outputs.output_plan` decides.
"""

from collections.abc import Set

import torch
from jaxtyping import Float
from torch import Tensor

from tace_al.data.graph import AtomicGraph
from tace_al.model.charges import born_charges, dipole_moments
from tace_al.model.derivatives import edge_forces


def charge_dipole(
    charges: Float[Tensor, " atoms"], graph: AtomicGraph
) -> Float[Tensor, "systems 3"]:
    """Return sum q (r - origin) in e Angstrom, the origin being the centre of nuclear charge."""
    return dipole_moments(
        charges,
        graph.positions,
        cells=graph.cells,
        pbc=graph.pbc,
        system_index=graph.system_index,
        weights=graph.numbers.to(charges.dtype),
    )


def charge_outputs(
    charges: Float[Tensor, " atoms"],
    vectors: Float[Tensor, "edges 3"],
    graph: AtomicGraph,
    names: Set[str],
    *,
    create_graph: bool,
) -> dict[str, Tensor]:
    """Return the named outputs of charges (e) that were computed from edge vectors.

    Dipoles of charged molecules refer to the centre of the nuclear charges.
    """
    tensors: dict[str, Tensor] = {}
    if "charges" in names:
        tensors["charges"] = charges
    if "dipole" in names:
        tensors["dipole"] = charge_dipole(charges, graph)
    if "born_charges" in names:

        def pull_back(weights: Tensor) -> Tensor:
            """Return sum_j w_j dq_j/dr_i; charges depend on positions through edges alone."""
            (slope,) = torch.autograd.grad(
                charges, vectors, weights, retain_graph=True, create_graph=create_graph
            )
            return -edge_forces(slope, graph).double()

        tensors["born_charges"] = born_charges(
            charges,
            pull_back,
            positions=graph.positions,
            cells=graph.cells,
            pbc=graph.pbc,
            system_index=graph.system_index,
        )
    return tensors
