"""E0: the energy of each isolated atom, from labelled atoms or from a fit of the composition.

Isolated atoms (frames of one atom without neighbours) fix their element exactly. The elements left
are fitted by least squares, E = sum_Z n_Z E0_Z; a rank-deficient fit (fewer independent
compositions than elements) gives the minimum-norm solution and a warning, because relative energies
of other compositions are then arbitrary.
"""

import logging
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from tace_al.core.errors import TrainingError
from tace_al.data.extxyz import ENERGY, is_isolated_atom

logger = logging.getLogger(__name__)


def fit_reference_energies(frames: Sequence[Atoms], numbers: Sequence[int]) -> np.ndarray:
    """Return E0 in eV for each of `numbers`.

    Parameters
    ----------
    frames
        Frames with REF_energy in `info`; those without, or with NaN, are passed over.
    numbers
        Atomic numbers, in the order of the result.

    Raises
    ------
    TrainingError
        No frame has an energy.
    """
    frames = [atoms for atoms in frames if not np.isnan(atoms.info.get(ENERGY, np.nan))]
    if not frames:
        raise TrainingError(f"no frame has {ENERGY}; give the key with --energy-key")
    known: dict[int, float] = {}
    for atoms in frames:
        if is_isolated_atom(atoms):
            known[int(atoms.numbers[0])] = float(atoms.info[ENERGY])
    unknown = [z for z in numbers if z not in known]
    if unknown:
        counts = np.array([[np.sum(atoms.numbers == z) for z in numbers] for atoms in frames])
        energies = np.array([float(atoms.info[ENERGY]) for atoms in frames])
        columns = [list(numbers).index(z) for z in unknown]
        for column, z in enumerate(numbers):
            if z in known:
                energies = energies - counts[:, column] * known[z]
        design = counts[:, columns].astype(float)
        solution, _, rank, _ = np.linalg.lstsq(design, energies, rcond=1e-10)
        if rank < len(unknown):
            names = ", ".join(chemical_symbols[z] for z in unknown)
            logger.warning(
                "E0 of %s is not determined by the compositions at hand (rank %d of %d); energies "
                "of other compositions are arbitrary. Add isolated atoms "
                "(config_type=IsolatedAtom) to fix this",
                names,
                rank,
                len(unknown),
            )
        known.update(zip(unknown, solution.tolist(), strict=True))
    return np.array([known[z] for z in numbers])
