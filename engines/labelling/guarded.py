"""One guarded label: check the structure, run the labeller and its retries, check what it says."""

import numpy as np
from ase import Atoms

from tace_al.core.errors import LabelFailed
from tace_al.core.labels import Label
from tace_al.engines.labelling.guards import FORCE_CEILING, label_problem, structure_problem
from tace_al.engines.labelling.labeller import Labeller
from tace_al.engines.labelling.ladder import laddered_label


def guarded_label(
    labeller: Labeller, atoms: Atoms, *, force_ceiling: float = FORCE_CEILING
) -> Label:
    """Return the label of one structure, checked before and after.

    Parameters
    ----------
    force_ceiling
        Largest believable force on one atom, in eV/A.

    Raises
    ------
    LabelFailed
        The structure or the label fails a check, or the labeller failed; `kind` says how.
    LabellerMissing
        The labeller's package or program is not installed.
    """
    if not np.isfinite(force_ceiling) or force_ceiling <= 0:
        raise ValueError(f"`force_ceiling` is {force_ceiling}; pass a positive number of eV/A")
    problem = structure_problem(atoms)
    if problem is not None:
        raise LabelFailed(problem.kind, problem.message)
    label = laddered_label(labeller, atoms)
    problem = label_problem(atoms, label, force_ceiling=force_ceiling)
    if problem is not None:
        raise LabelFailed(problem.kind, problem.message)
    return label
