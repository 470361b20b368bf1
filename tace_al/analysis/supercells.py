"""Supercells for lattice dynamics: a unit cell, its repeats and the displacements symmetry needs.

A crystal's force constants are the forces that one displaced atom puts on all others, in a
supercell large enough that its images do not meet. phonopy finds the few displacements from which
symmetry gives the rest (Togo and Tanaka, doi:10.1016/j.scriptamat.2015.07.021); an atom is moved
both ways where symmetry does not do that, so that forces of the undisplaced crystal and all even
anharmonic terms drop out.

Conventions: rows of a cell are lattice vectors; frequencies and cells refer to the primitive cell
phonopy finds in the unit cell that was given (`primitive="auto"`), supercells to the unit cell.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
from ase import Atoms
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

from tace_al.core.errors import StructureError
from tace_al.data.frames import CHARGE, MULTIPLICITY, total_charge

MIN_HEIGHT = 10.0
"""Distance in Angstrom between opposite faces of a supercell that is not named."""
SYMMETRY_PRECISION = 1e-5
"""Angstrom by which sites may miss their symmetry."""

Primitive = Literal["auto", "unit"]
"""Whose frequencies: of the primitive cell in the unit cell, or of the unit cell itself."""


@contextmanager
def quiet() -> Iterator[None]:
    """Silence phonopy's and spglib's advice, which is about choices made here on purpose."""
    with warnings.catch_warnings():
        for category in (UserWarning, DeprecationWarning, FutureWarning, RuntimeWarning):
            warnings.simplefilter("ignore", category)
        yield


def default_supercell(atoms: Atoms, *, min_height: float = MIN_HEIGHT) -> tuple[int, int, int]:
    """Return the repeats that keep opposite faces at least `min_height` Angstrom apart.

    >>> from ase.build import bulk
    >>> default_supercell(bulk("Cu", cubic=True)), default_supercell(bulk("Cu"))
    ((3, 3, 3), (5, 5, 5))
    """
    first, second, third = (max(1, int(np.ceil(min_height / h - 1e-9))) for h in heights(atoms))
    return first, second, third


def default_mesh(atoms: Atoms, *, length: float = 60.0) -> tuple[int, int, int]:
    """Return an odd mesh of q-points as dense as `length` Angstrom of supercell."""
    first, second, third = (2 * int(np.ceil(length / h / 2 - 1e-9)) + 1 for h in heights(atoms))
    return first, second, third


def heights(atoms: Atoms) -> np.ndarray:
    """Return the three distances between opposite faces of the cell in Angstrom."""
    return 1.0 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)


def crystal_lattice(
    atoms: Atoms,
    supercell: Sequence[int] | np.ndarray,
    *,
    primitive: Primitive = "auto",
    symmetry_precision: float = SYMMETRY_PRECISION,
) -> Phonopy:
    """Return phonopy's view of a crystal, without forces.

    Parameters
    ----------
    atoms
        The unit cell, periodic in three directions and neutral.
    supercell
        Three repeats, or a (3, 3) integer matrix whose columns give the supercell's vectors, as
        phonopy has it.
    primitive
        "auto" for the primitive cell within, "unit" for the cell as given.

    Raises
    ------
    StructureError
        Not a crystal, charged, or no supercell can be made.
    """
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        raise StructureError(
            f"{atoms.get_chemical_formula()} is not periodic in three directions, which phonons "
            "need; give a crystal (a slab with its vacuum and pbc in all directions), or use "
            "`tace-al hessian` for a molecule"
        )
    if total_charge(atoms):
        raise StructureError(
            f"the unit cell has a charge of {total_charge(atoms)}, which repeats without end in "
            "a crystal; give a neutral cell"
        )
    matrix = np.asarray(supercell)
    if matrix.shape == (3,):
        matrix = np.diag(matrix)
    if matrix.shape != (3, 3) or round(abs(float(np.linalg.det(matrix)))) < 1:
        raise StructureError(
            f"the supercell is {np.asarray(supercell).tolist()}; give three whole numbers of at "
            "least 1, or a 3 x 3 matrix of them"
        )
    with quiet():
        try:
            return Phonopy(
                phonopy_cell(atoms),
                supercell_matrix=matrix.astype(int),
                primitive_matrix="auto" if primitive == "auto" else "P",
                symprec=symmetry_precision,
            )
        except (RuntimeError, ValueError, AssertionError) as error:
            raise StructureError(
                f"phonopy makes no supercell of {atoms.get_chemical_formula()} ({error}); check "
                "the structure and the supercell"
            ) from error


def phonopy_cell(atoms: Atoms) -> PhonopyAtoms:
    """Return a structure as phonopy has it, with phonopy's masses where it has none of its own."""
    return PhonopyAtoms(
        symbols=atoms.get_chemical_symbols(),
        cell=atoms.cell.array,
        scaled_positions=atoms.get_scaled_positions(wrap=False),
        masses=atoms.get_masses() if atoms.has("masses") else None,
    )


def ase_cell(cell: PhonopyAtoms) -> Atoms:
    """Return phonopy's structure as ASE has it, positions as they are."""
    return Atoms(
        numbers=cell.numbers,
        cell=cell.cell,
        positions=np.asarray(cell.scaled_positions) @ np.asarray(cell.cell),
        pbc=True,
    )


def primitive_cell(atoms: Atoms) -> Atoms:
    """Return the primitive cell in a crystal, without the conditions of its atoms."""
    with quiet():
        return ase_cell(crystal_lattice(atoms, (1, 1, 1)).primitive)


def perfect_supercell(lattice: Phonopy, unit_cell: Atoms) -> Atoms:
    """Return the undisplaced supercell with the conditions of the unit cell's atoms."""
    return _with_conditions(lattice, ase_cell(lattice.supercell), unit_cell)


def displaced_supercells(
    lattice: Phonopy, unit_cell: Atoms, *, displacement: float, both_ways: bool = False
) -> list[Atoms]:
    """Return the supercells whose forces determine the force constants, and remember them.

    Parameters
    ----------
    lattice
        From `crystal_lattice`; its set of displacements is replaced.
    unit_cell
        The unit cell, whose conditions (magnetic moments, fields) the supercells inherit.
    displacement
        Angstrom by which one atom moves.
    both_ways
        Move every atom both ways, not only where symmetry does not.
    """
    with quiet():
        lattice.generate_displacements(
            distance=displacement, is_plusminus=True if both_ways else "auto"
        )
        cells = lattice.supercells_with_displacements or []
    return [_with_conditions(lattice, ase_cell(cell), unit_cell) for cell in cells]


def _with_conditions(lattice: Phonopy, supercell: Atoms, unit_cell: Atoms) -> Atoms:
    """Return the supercell with what the unit cell carries beside positions."""
    site = np.asarray([lattice.supercell.u2u_map[i] for i in lattice.supercell.s2u_map])
    for name, values in unit_cell.arrays.items():
        if name not in ("numbers", "positions", "masses"):
            supercell.set_array(name, values[site])
    supercell.info.update(
        {key: value for key, value in unit_cell.info.items() if key not in (CHARGE, MULTIPLICITY)}
    )
    return supercell
