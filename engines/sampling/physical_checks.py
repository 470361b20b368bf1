"""Signs that dynamics has left physics: what stops a walker whatever its committee says.

A committee can agree on nonsense, so a frame is broken too when something is not finite, atoms
overlap, a molecule has flown apart, or the atoms are far hotter than the thermostat.
"""

import numpy as np
from ase import Atoms
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from vesin import NeighborList

from tace_al.engines.labelling.guards import contact_problem
from tace_al.model.prediction import Prediction

RUNAWAY_FACTOR = 10.0
"""A frame is broken above this multiple of the thermostat's temperature plus `RUNAWAY_OFFSET`."""
RUNAWAY_OFFSET = 1000.0
"""K"""


def broken_reason(
    atoms: Atoms, prediction: Prediction, *, temperature: float, max_separation: float
) -> str | None:
    """Return one clause on why a frame is broken, or None.

    Parameters
    ----------
    temperature
        Of the thermostat in K.
    max_separation
        Largest gap in A between a fragment and the rest, for structures open in some direction.
    """
    finite = np.isfinite(prediction.member_energies).all()
    if not (finite and np.isfinite(prediction.member_forces).all()):
        return "the committee predicts something that is not finite"
    if not np.isfinite(atoms.positions).all():
        return "the positions are not finite"
    problem = contact_problem(atoms)
    if problem is not None:
        return problem.message.partition(";")[0]
    limit = RUNAWAY_FACTOR * temperature + RUNAWAY_OFFSET
    if atoms.get_temperature() > limit:
        return f"the atoms are at {atoms.get_temperature():.0f} K, above {limit:.0f} K"
    if not atoms.pbc.all() and num_fragments(atoms, max_separation) > 1:
        return f"a fragment is more than {max_separation:.1f} A from the rest"
    return None


def num_fragments(atoms: Atoms, separation: float) -> int:
    """Return into how many pieces the atoms fall when gaps above `separation` (A) part them."""
    if len(atoms) < 2:
        return len(atoms)
    neighbours = NeighborList(cutoff=separation, full_list=False)
    box = atoms.cell.complete().array if atoms.pbc.any() else np.eye(3)
    first, second = neighbours.compute(
        points=atoms.positions, box=box, periodic=atoms.pbc, quantities="ij"
    )
    edges = (first.astype(np.int64), second.astype(np.int64))
    graph = coo_array((np.ones(len(first)), edges), shape=(len(atoms), len(atoms)))
    count, _ = connected_components(graph, directed=False)
    return int(count)
