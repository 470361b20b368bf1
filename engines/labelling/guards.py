"""Checks around a labeller, because codes answer nonsense with confidence.

xTB programs run an odd-electron molecule asked for as a singlet as something else, and "converge" a
0.15 A O-H contact with forces of 700 eV/A. So before a label: finite positions, a cell where one is
needed, electron parity, closest contact. After it: shapes, finite numbers, a force ceiling, and the
geometry echoed. The same checks serve user input (`check_structure`, a `StructureError`) and the
labelling of candidates (`guarded.py`, a `LabelFailed` with a kind).

Closest contact: a pair is absurd when r_ij < 0.5 (R_i + R_j), R the covalent radii of Cordero et
al. (10.1039/b801115j); the shortest bonds known, triple bonds and H2, stay above 0.7 of the sum.
"""

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from vesin import NeighborList

from tace_al.core.errors import StructureError
from tace_al.core.labels import Label
from tace_al.data.frames import spin_multiplicity, structure_key, total_charge

CONTACT_FRACTION = 0.5
"""Closest allowed distance of a pair, as a share of the sum of its covalent radii."""
FORCE_CEILING = 50.0
"""eV/A; no force on a frame worth learning is larger."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Why a structure or a label cannot be used.

    Parameters
    ----------
    kind
        Machine-readable: "empty", "cell", "nonfinite", "parity", "contact", "force_ceiling",
        "geometry", "shape", "elements".
    message
        One sentence on what is wrong and one on what to do.
    """

    kind: str
    message: str


def check_structure(atoms: Atoms) -> None:
    """Refuse a structure that no labeller can use.

    Raises
    ------
    StructureError
        The structure is empty, not finite, lacks a cell, has an electron count that does not fit
        its multiplicity, or has overlapping atoms.
    """
    problem = structure_problem(atoms)
    if problem is not None:
        raise StructureError(problem.message)


def structure_problem(atoms: Atoms) -> Problem | None:
    """Return the first thing wrong with a structure, or None."""
    return (
        _extent_problem(atoms)
        or _cell_problem(atoms)
        or _parity_problem(atoms)
        or contact_problem(atoms)
    )


def label_problem(
    atoms: Atoms, label: Label, *, force_ceiling: float = FORCE_CEILING
) -> Problem | None:
    """Return the first thing wrong with a label of `atoms`, or None.

    Parameters
    ----------
    force_ceiling
        Largest force on one atom that is believed, in eV/A.
    """
    if label.structure_key != structure_key(atoms):
        return Problem(
            kind="geometry",
            message="the labeller answered for another geometry than it was given; "
            "look for a code that re-orders or moves atoms, and switch that off",
        )
    shapes = {"forces": (len(atoms), 3), "stress": (3, 3), "dipole": (3,)}
    finite = bool(np.isfinite(label.energy))
    for name, shape in shapes.items():
        value = getattr(label, name)
        if value is None:
            continue
        if value.shape != shape:
            return Problem(
                kind="shape",
                message=f"the labeller's {name} has shape {value.shape}, expected {shape}; "
                "check that the code keeps every atom",
            )
        finite = finite and bool(np.isfinite(value).all())
    if not finite:
        return Problem(
            kind="nonfinite",
            message="the labeller returned an energy, force, stress or dipole that is not finite; "
            "the structure is most likely far from anything physical, drop it",
        )
    norms = np.linalg.norm(label.forces, axis=1)
    if norms.max() > force_ceiling:
        index = int(norms.argmax())
        return Problem(
            kind="force_ceiling",
            message=f"the force on atom {index} ({atoms.symbols[index]}) is {norms[index]:.0f} "
            f"eV/A, above the ceiling of {force_ceiling:.0f}; "
            "drop the structure, or raise force_ceiling if it is meant",
        )
    return None


def contact_problem(atoms: Atoms, fraction: float = CONTACT_FRACTION) -> Problem | None:
    """Return the closest pair below `fraction` of its covalent radii, periodic images included."""
    radii = covalent_radii[atoms.numbers]
    reach = 2.0 * fraction * float(radii.max())
    neighbours = NeighborList(cutoff=reach, full_list=False)
    box = atoms.cell.complete().array if atoms.pbc.any() else np.eye(3)
    first, second, distances = neighbours.compute(
        points=atoms.positions, box=box, periodic=atoms.pbc, quantities="ijd"
    )
    if len(distances) == 0:
        return None
    limits = fraction * (radii[first] + radii[second])
    shortfall = distances / limits
    worst = int(shortfall.argmin())
    if shortfall[worst] >= 1.0:
        return None
    i, j = int(first[worst]), int(second[worst])
    return Problem(
        kind="contact",
        message=f"atoms {i} ({atoms.symbols[i]}) and {j} ({atoms.symbols[j]}) are "
        f"{distances[worst]:.2f} A apart, closer than {limits[worst]:.2f} A; "
        "they overlap: move them apart, or check units (Angstrom) and the cell",
    )


def _extent_problem(atoms: Atoms) -> Problem | None:
    """Return a problem with the number of atoms or their coordinates."""
    if len(atoms) == 0:
        return Problem(
            kind="empty", message="the structure has no atoms; check the file it came from"
        )
    if not np.isfinite(atoms.positions).all():
        index = int(np.argwhere(~np.isfinite(atoms.positions))[0, 0])
        return Problem(
            kind="nonfinite",
            message=f"the position of atom {index} is not finite; "
            "check the file or the dynamics it came from",
        )
    if (atoms.numbers < 1).any():
        return Problem(
            kind="elements",
            message="the structure has an atom without an element (symbol X); "
            "give every atom its chemical symbol",
        )
    return None


def _cell_problem(atoms: Atoms) -> Problem | None:
    """Return a problem with the lattice vectors of the periodic directions."""
    if not atoms.pbc.any():
        return None
    periodic = atoms.cell.array[atoms.pbc]
    finite = bool(np.isfinite(periodic).all())
    if finite and np.linalg.matrix_rank(periodic, tol=1e-3) == len(periodic):
        return None
    return Problem(
        kind="cell",
        message=f"the structure is periodic (pbc = {atoms.pbc.tolist()}) but has no usable cell "
        "along those directions; give it a cell with a volume, or set pbc to false",
    )


def _parity_problem(atoms: Atoms) -> Problem | None:
    """Return a problem between electron count and multiplicity."""
    charge, multiplicity = total_charge(atoms), spin_multiplicity(atoms)
    num_electrons = int(atoms.numbers.sum()) - charge
    if num_electrons < 0:
        return Problem(
            kind="parity",
            message=f"charge {charge:+d} leaves {num_electrons} electrons; correct the charge",
        )
    num_unpaired = multiplicity - 1
    if 0 <= num_unpaired <= num_electrons and (num_electrons - num_unpaired) % 2 == 0:
        return None
    lowest = 1 + num_electrons % 2
    fitting = [m for m in (lowest, lowest + 2, lowest + 4) if m - 1 <= num_electrons]
    return Problem(
        kind="parity",
        message=f"{atoms.get_chemical_formula()} with charge {charge:+d} has {num_electrons} "
        f"electrons, which cannot have multiplicity {multiplicity}; use one of "
        f"{', '.join(map(str, fitting))}, or correct the charge",
    )
