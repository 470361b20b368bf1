"""Neighbour lists: every directed edge j -> i shorter than the cutoff, periodic images included.

Found by vesin (cell lists); any cell shape, any mix of periodic directions, cells smaller than the
cutoff. Along a direction that is not periodic no images are made, whatever the cell says.
"""

import numpy as np
import vesin
from ase import Atoms

from tace_al.core.errors import StructureError

CLOSEST_CONTACT = 1e-3  # Angstrom; below this two atoms are the same point


def neighbour_list(atoms: Atoms, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the edges of one structure, sorted by receiver.

    Parameters
    ----------
    atoms
        Structure with finite positions in Angstrom; a cell vector for each periodic direction.
    cutoff
        Angstrom.

    Returns
    -------
    tuple
        sender (edges,), receiver (edges,) and shift (edges, 3), in whole cell vectors: the edge
        vector is r[receiver] - r[sender] + shift @ cell. Each pair appears in both directions.

    Raises
    ------
    StructureError
        Positions are not finite, two atoms coincide, or a periodic direction has no cell vector.
    """
    positions = np.ascontiguousarray(atoms.positions, dtype=np.float64)
    if not np.isfinite(positions).all():
        raise StructureError("positions contain NaN or infinity; repair the structure first")
    box, periodic = (
        np.asarray(atoms.cell.array, dtype=np.float64),
        np.asarray(atoms.pbc, dtype=bool),
    )
    if periodic.any():
        box = _completed_cell(box, periodic, positions, cutoff)
    calculator = vesin.NeighborList(cutoff=float(cutoff), full_list=True, n_threads=1)
    first, second, shift, distance = calculator.compute(
        points=positions, box=box, periodic=periodic, quantities="ijSd"
    )
    if len(distance) and distance.min() < CLOSEST_CONTACT:
        edge = int(distance.argmin())
        raise StructureError(
            f"atoms {int(first[edge])} and {int(second[edge])} are {distance[edge]:.1e} A apart; "
            "two atoms cannot share a place: remove one or repair the cell"
        )
    receiver, sender = first.astype(np.int64), second.astype(np.int64)
    # vesin: vector = r[second] - r[first] + shift @ box; ours points from sender to receiver
    order = np.argsort(receiver * len(atoms) + sender, kind="stable")  # a quarter of lexsort's time
    return sender[order], receiver[order], -shift[order].astype(np.int64)


def _completed_cell(
    box: np.ndarray, periodic: np.ndarray, positions: np.ndarray, cutoff: float
) -> np.ndarray:
    """Return a full-rank cell: long orthogonal vectors along directions without periodicity."""
    lengths = np.linalg.norm(box, axis=1)
    if (lengths[periodic] < 1e-6).any():
        raise StructureError(
            "the structure is periodic along a direction without a cell vector; "
            "set atoms.cell, or atoms.pbc = False for a molecule"
        )
    kept = box[periodic]
    _, singular, basis = np.linalg.svd(kept)
    if singular.min() < 1e-6:
        raise StructureError("the periodic cell vectors are parallel; give the cell a volume")
    full = box.copy()
    span = float(np.ptp(positions, axis=0).sum()) + 2.0 * cutoff + 1.0
    full[~periodic] = basis[len(kept) :] * span
    return full
