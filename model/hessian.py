"""Second derivatives of the energy, from forces that still know what they were computed from.

    H[i, a, j, b] = d2E / dr_ia dr_jb = -dF_ia / dr_jb        eV/Angstrom^2

Forces are differentiated once more by vector-Jacobian products, one for each row (atom i and
direction a). A chunk of rows goes through the network's backward pass in one call, so memory grows
with the rows of a chunk, not with the size of the Hessian; rows of some atoms cost only their
share, and columns come for free. `tace_al.model.vibrations` applies this to structures.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tace_al.core.errors import ModelError

DEFAULT_CHUNK = 24
"""Rows in one backward pass: more gain little on a CPU and cost memory."""


def force_jacobian(
    forces: Float[Tensor, "atoms 3"],
    positions: Float[Tensor, "atoms 3"],
    rows: Int[Tensor, " rows"] | None = None,
    chunk: int = DEFAULT_CHUNK,
) -> Float[Tensor, "rows 3 atoms 3"]:
    """Return -dF/dr, the Hessian's rows of the atoms `rows` (default all).

    Parameters
    ----------
    forces
        eV/Angstrom, still connected to `positions` (evaluated with `create_graph`).
    positions
        Angstrom; a leaf, or anything the forces were computed from.
    rows
        Indices of atoms, in the order wanted.
    chunk
        Rows (one atom and direction each) in one backward pass.

    Returns
    -------
    eV/Angstrom^2, detached; zero where a force does not depend on a position.
    """
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; it must be at least 1")
    num_atoms = forces.shape[0]
    if rows is None:
        rows = torch.arange(num_atoms, device=forces.device)
    selected = forces.index_select(0, rows).reshape(-1)  # (3 rows,)
    if not selected.requires_grad:  # no edges: nothing depends on anything
        return positions.new_zeros(rows.shape[0], 3, num_atoms, 3)
    blocks = []
    for start in range(0, selected.shape[0], chunk):
        size = min(chunk, selected.shape[0] - start)
        directions = selected.new_zeros(size, selected.shape[0])
        directions[:, start : start + size].fill_diagonal_(1.0)
        blocks.append(_vector_jacobian_products(selected, positions, directions))
    hessian = -torch.cat(blocks) if blocks else positions.new_zeros(0, num_atoms, 3)
    return hessian.reshape(rows.shape[0], 3, num_atoms, 3)


def _vector_jacobian_products(
    values: Float[Tensor, " values"],
    positions: Float[Tensor, "atoms 3"],
    directions: Float[Tensor, "chunk values"],
) -> Float[Tensor, "chunk atoms 3"]:
    """Return direction . d(values)/d(positions) of every direction, in one call where possible."""

    def product(direction: Tensor, *, batched: bool) -> Tensor:
        (result,) = torch.autograd.grad(
            values,
            positions,
            direction,
            retain_graph=True,
            is_grads_batched=batched,
            allow_unused=True,
            materialize_grads=True,
        )
        return result.detach()

    if directions.shape[0] > 1:
        try:
            return product(directions, batched=True)
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"{directions.shape[0]} rows of the Hessian at a time do not fit in memory; "
                "ask for a smaller chunk"
            ) from error
        except RuntimeError:  # an operation of the network that cannot be batched over directions
            pass
    return torch.stack([product(direction, batched=False) for direction in directions])
