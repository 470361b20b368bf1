"""Force constants of a crystal for every member of a committee, from one of three sources.

    Phi[i, j, a, b] = d2E / dr_ia dr_jb       eV/Angstrom^2, i in the primitive cell

- displacements: forces of the displaced supercells, all predicted in one call;
- the model's analytic Hessian of the perfect supercell, without any displacement;
- forces computed elsewhere (`tace_al.analysis.supercell_forces`).

Forces of the mean potential are the mean of the members' forces, so its force constants are the
mean of theirs, and each member's frequencies follow from its own. Acoustic sum rule and permutation
symmetry are imposed by subtracting their violation, as phonopy's `symmetrize_force_constants` does.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms
from phonopy import Phonopy

from tace_al.analysis.supercells import displaced_supercells, perfect_supercell, quiet
from tace_al.core.errors import DataError, SamplerError
from tace_al.engines.sampling.potential import Potential
from tace_al.model.committee import Committee
from tace_al.model.vibrations import hessian

CALCULATOR_DISPLACEMENT = 0.01
"""Angstrom, phonopy's own default: above the noise of self-consistent forces."""
MODEL_DISPLACEMENT = 0.002
"""Angstrom for networks in float64, whose forces have no noise: a fifth of the above leaves a 25th
of the anharmonic error, so that displacements and the analytic Hessian agree to 1e-4 THz."""

Source = Literal["displacements", "hessian", "forces"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ForceConstants:
    """Force constants of the members and where they come from.

    Parameters
    ----------
    members
        (members, primitive atoms, supercell atoms, 3, 3) in eV/Angstrom^2.
    source
        "displacements", "hessian" or "forces".
    num_structures
        Structures that were evaluated.
    displacement
        Angstrom, None without displacements made here.
    drift
        Largest violation of the acoustic sum rule in eV/Angstrom^2, before it was imposed.
    """

    members: np.ndarray
    source: Source
    num_structures: int
    displacement: float | None = None
    drift: float = 0.0

    @property
    def mean(self) -> np.ndarray:
        """Force constants of the mean potential."""
        return self.members.mean(axis=0)


def from_displacements(
    lattice: Phonopy,
    unit_cell: Atoms,
    potential: Potential,
    *,
    displacement: float = CALCULATOR_DISPLACEMENT,
    both_ways: bool = False,
    symmetrise: bool = True,
) -> ForceConstants:
    """Return force constants from finite displacements, predicted in one call.

    Parameters
    ----------
    lattice
        From `tace_al.analysis.supercells.crystal_lattice`.
    unit_cell
        What it was made from.
    displacement, both_ways
        As `displaced_supercells` has them.
    symmetrise
        Impose acoustic sum rule and permutation symmetry.

    Raises
    ------
    SamplerError
        A predicted force is not finite.
    """
    frames = displaced_supercells(
        lattice, unit_cell, displacement=displacement, both_ways=both_ways
    )
    predictions = potential.predict(frames)
    forces = np.stack([prediction.member_forces for prediction in predictions], axis=1)
    if not np.isfinite(forces).all():
        raise SamplerError(
            "a force on a displaced supercell is not finite; the potential does not know this "
            "crystal: train it on it, or check the structure"
        )
    return from_forces(
        lattice, forces, source="displacements", displacement=displacement, symmetrise=symmetrise
    )


def from_forces(
    lattice: Phonopy,
    member_forces: np.ndarray,
    *,
    source: Source = "forces",
    displacement: float | None = None,
    symmetrise: bool = True,
) -> ForceConstants:
    """Return force constants from forces of the lattice's displacements.

    Parameters
    ----------
    lattice
        With a set of displacements.
    member_forces
        (members, displacements, supercell atoms, 3) in eV/Angstrom, in the order of that set.
    """
    members = []
    for forces in member_forces:
        with quiet():
            try:
                lattice.forces = np.ascontiguousarray(forces, dtype=float)
                lattice.produce_force_constants(
                    calculate_full_force_constants=False, show_drift=False
                )
            except (RuntimeError, ValueError, np.linalg.LinAlgError) as error:
                raise DataError(
                    f"the displacements do not determine the force constants ({error}); compute "
                    "every displacement that phonopy asks for"
                ) from error
        members.append(np.array(lattice.force_constants))
    return finished_constants(
        lattice,
        np.asarray(members),
        source=source,
        displacement=displacement,
        num_structures=member_forces.shape[1],
        symmetrise=symmetrise,
    )


def from_hessian(
    lattice: Phonopy, unit_cell: Atoms, committee: Committee, *, symmetrise: bool = True
) -> ForceConstants:
    """Return force constants from each member's analytic Hessian of the perfect supercell.

    Only the rows of the primitive cell's atoms are computed. Members in float64 give second
    derivatives to 1e-10; in float32 to 1e-4 of the largest.
    """
    frame = perfect_supercell(lattice, unit_cell)
    rows = np.asarray(lattice.primitive.p2s_map)
    members = [
        hessian(member, frame, atom_indices=rows, head=committee.head).transpose(0, 2, 1, 3)
        for member in committee.members
    ]
    return finished_constants(
        lattice,
        np.asarray(members),
        source="hessian",
        displacement=None,
        num_structures=1,
        symmetrise=symmetrise,
    )


def finished_constants(
    lattice: Phonopy,
    members: np.ndarray,
    *,
    source: Source,
    displacement: float | None,
    num_structures: int,
    symmetrise: bool,
) -> ForceConstants:
    """Return the members' force constants, symmetrised where wanted, with their drift.

    Parameters
    ----------
    lattice
        Left with the force constants of the mean potential.
    members
        (members, primitive atoms, supercell atoms, 3, 3) in eV/Angstrom^2.
    """
    drift = float(np.abs(members.sum(axis=2)).max())
    if symmetrise:
        members = np.asarray([_symmetrised(lattice, member) for member in members])
    with quiet():
        lattice.force_constants = members.mean(axis=0)
    return ForceConstants(
        members=members,
        source=source,
        num_structures=num_structures,
        displacement=displacement,
        drift=drift,
    )


def _symmetrised(lattice: Phonopy, constants: np.ndarray) -> np.ndarray:
    """Return force constants that obey acoustic sum rule and permutation symmetry."""
    with quiet():
        lattice.force_constants = np.array(constants, dtype=float, order="C")
        lattice.symmetrize_force_constants(show_drift=False)
    return np.array(lattice.force_constants)
