"""Force constants from forces that were computed elsewhere, one frame a displaced supercell.

A frame is recognised by its cell and composition; its atoms may stand in any order, shifted by
lattice vectors. What each is displaced by follows from the nearest site of the perfect supercell,
so neither phonopy's order of displacements nor its amplitude is needed. Frames with one displaced
atom go to phonopy's own solver; if any frame has several, all go to symfc's least squares (Seko and
Togo, doi:10.1103/PhysRevB.110.214302).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from phonopy import Phonopy
from scipy.optimize import linear_sum_assignment

from tace_al.analysis.force_constants import ForceConstants, finished_constants
from tace_al.analysis.supercells import ase_cell, quiet
from tace_al.core.errors import DataError
from tace_al.data.extxyz import FORCES

CELL_TOLERANCE = 1e-3
"""Angstrom by which a frame's lattice vectors may differ from the supercell's."""
MAX_DISPLACEMENT = 0.5
"""Angstrom an atom may be from its site."""
NOTICEABLE = 1e-5
"""Angstrom above which an atom counts as displaced; coordinates in files are rounded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SupercellForces:
    """Displacements and forces of frames, in the order of the lattice's supercell.

    Parameters
    ----------
    displacements, forces
        (frames, atoms, 3) in Angstrom and eV/Angstrom.
    num_ignored
        Frames of the file that belong to another crystal.
    """

    displacements: np.ndarray
    forces: np.ndarray
    num_ignored: int


def from_supercell_forces(
    lattice: Phonopy, frames: Sequence[Atoms], *, symmetrise: bool = True
) -> ForceConstants:
    """Return the force constants of a crystal from labelled, displaced supercells.

    Parameters
    ----------
    lattice
        From `tace_al.analysis.supercells.crystal_lattice`.
    frames
        Supercells with forces as `REF_forces`; those of other crystals are passed over.

    Raises
    ------
    DataError
        No frame fits, or the displacements do not determine every force constant.
    """
    found = match_supercells(lattice, frames)
    moved = np.linalg.norm(found.displacements, axis=2) > NOTICEABLE
    used = moved.any(axis=1)
    if not used.any():
        raise DataError("no atom of any frame is displaced; give displaced supercells")
    displacements, forces, moved = found.displacements[used], found.forces[used], moved[used]
    forces = forces - (found.forces[~used].mean(axis=0) if (~used).any() else 0.0)
    single = bool((moved.sum(axis=1) == 1).all())
    if single:
        _check_complete(lattice, displacements, moved)
        lattice.dataset = {
            "natom": len(lattice.supercell),
            "first_atoms": [
                {
                    "number": int(np.argmax(mask)),
                    "displacement": shift[np.argmax(mask)],
                    "forces": f,
                }
                for mask, shift, f in zip(moved, displacements, forces, strict=True)
            ],
        }
    else:
        lattice.dataset = {"displacements": displacements, "forces": forces}
    with quiet():
        try:
            lattice.produce_force_constants(
                calculate_full_force_constants=False,
                fc_calculator=None if single else "symfc",
                show_drift=False,
            )
        except (RuntimeError, ValueError, np.linalg.LinAlgError) as error:
            raise DataError(
                f"the displacements do not determine the force constants ({error}); add the "
                "displacements that phonopy asks for"
            ) from error
    return finished_constants(
        lattice,
        np.array(lattice.force_constants)[None],
        source="forces",
        displacement=None,
        num_structures=len(forces),
        symmetrise=symmetrise,
    )


def supercell_of_frames(unit_cell: Atoms, frames: Sequence[Atoms]) -> np.ndarray:
    """Return phonopy's (3, 3) matrix of the supercell that the first frame of a crystal is.

    Raises
    ------
    DataError
        No frame is made of whole unit cells.
    """
    inverse = np.linalg.inv(unit_cell.cell.array)
    for frame in frames:
        repeats = frame.cell.array @ inverse
        whole = np.rint(repeats).astype(int)
        miss = np.abs((repeats - whole) @ unit_cell.cell.array).max()
        number = round(abs(float(np.linalg.det(whole))))
        kinds = np.tile(np.sort(unit_cell.numbers), max(number, 1))
        if miss < CELL_TOLERANCE and sorted(frame.numbers) == sorted(kinds.tolist()):
            return whole.T
    raise DataError(
        f"none of the {len(frames)} frames is made of whole cells of "
        f"{unit_cell.get_chemical_formula()}; give the unit cell that the supercells were made "
        "from, in their orientation"
    )


def match_supercells(lattice: Phonopy, frames: Sequence[Atoms]) -> SupercellForces:
    """Return the displacements and forces of the frames that are supercells of the lattice.

    Raises
    ------
    DataError
        None is, or one has no forces.
    """
    perfect = ase_cell(lattice.supercell)
    displacements, forces = [], []
    for number, frame in enumerate(frames):
        if sorted(frame.numbers) != sorted(perfect.numbers):
            continue
        if np.abs(frame.cell.array - perfect.cell.array).max() > CELL_TOLERANCE:
            continue
        if FORCES not in frame.arrays:
            raise DataError(
                f"frame {number} has no forces; name their column with --forces-key, or label the "
                "file first"
            )
        order, shift = _sites(perfect, frame)
        if np.linalg.norm(shift, axis=1).max() > MAX_DISPLACEMENT:
            continue
        displacements.append(shift)
        forces.append(np.asarray(frame.arrays[FORCES])[order])
    if not forces:
        raise DataError(
            f"none of the {len(frames)} frames is a supercell of this crystal: "
            f"{perfect.get_chemical_formula()} with lattice vectors of "
            f"{', '.join(f'{length:.4f}' for length in perfect.cell.lengths())} A; check the unit "
            "cell (its size and orientation) and --supercell"
        )
    return SupercellForces(
        displacements=np.asarray(displacements),
        forces=np.asarray(forces),
        num_ignored=len(frames) - len(forces),
    )


def _sites(perfect: Atoms, frame: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Return which atom of the frame sits on each site, and its displacement from there."""
    order = np.arange(len(perfect))
    if not np.array_equal(frame.numbers, perfect.numbers) or _furthest(perfect, frame) > 0.1:
        scaled = np.linalg.solve(perfect.cell.array.T, frame.positions.T).T
        sites = np.linalg.solve(perfect.cell.array.T, perfect.positions.T).T
        apart = scaled[None] - sites[:, None]
        apart = (apart - np.rint(apart)) @ perfect.cell.array
        cost = (apart**2).sum(axis=2)
        cost[perfect.numbers[:, None] != frame.numbers[None]] = 1e6
        order = linear_sum_assignment(cost)[1]
    return order, _displacements(perfect, frame.positions[order])


def _furthest(perfect: Atoms, frame: Atoms) -> float:
    """Return the largest displacement where atoms stand in the same order."""
    return float(np.linalg.norm(_displacements(perfect, frame.positions), axis=1).max())


def _displacements(perfect: Atoms, positions: np.ndarray) -> np.ndarray:
    """Return displacements from the sites by the nearest image."""
    scaled = np.linalg.solve(perfect.cell.array.T, (positions - perfect.positions).T).T
    return (scaled - np.rint(scaled)) @ perfect.cell.array


def _check_complete(lattice: Phonopy, displacements: np.ndarray, moved: np.ndarray) -> None:
    """Refuse a set from which symmetry does not give every atom's three directions.

    phonopy would fill what is missing with zeros.
    """
    symmetry = lattice.symmetry
    orbits = symmetry.get_map_atoms()
    cell = np.asarray(lattice.supercell.cell).T
    for atom in symmetry.get_independent_atoms():
        directions: list[np.ndarray] = []
        for mask, shift in zip(moved, displacements, strict=True):
            site = int(np.argmax(mask))
            if orbits[site] != orbits[atom]:
                continue
            for rotation in symmetry.get_site_symmetry(site):
                directions.append(cell @ rotation @ np.linalg.inv(cell) @ shift[site])
        # a direction on one atom of an orbit is another direction on the next, in equal number
        rank = np.linalg.matrix_rank(np.asarray(directions), tol=1e-4) if directions else 0
        if rank < 3:
            symbol = lattice.supercell.symbols[atom]
            raise DataError(
                f"the displacements of atom {int(atom)} ({symbol}) and its equivalents span "
                f"{rank} of 3 directions; add the displacements that phonopy asks for"
            )
