"""Normal modes of molecules, adsorbates and saddle points for every member of a committee.

    M^(-1/2) H M^(-1/2) e = omega^2 e,      H = d2E / dr dr

Atoms that a `FixAtoms` holds stay where they are: H is the block of the others. What moves as a
whole is projected out before diagonalising: translations and rotations of a molecule, translations
of a crystal whose atoms are all free, nothing where atoms are held. The Hessian is the model's
analytic one or that of central differences, H = -(F(r + delta) - F(r - delta)) / (2 delta), all
displacements predicted in one call, made symmetric as `ase.vibrations` does.

Frequencies are in 1/cm; imaginary ones are negative.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms, units

from tace_al.analysis.member_values import MemberValues
from tace_al.core.errors import SamplerError, StructureError
from tace_al.engines.sampling.potential import Potential
from tace_al.model.committee import Committee
from tace_al.model.vibrations import free_atoms, hessian

DELTA = 0.01
"""Angstrom, the default of `ase.vibrations`."""
IMAGINARY = -20.0
"""1/cm: frequencies from here to 0 are taken for rounding, below for directions downhill."""

QUANTUM = float(units._hbar * 1e10 / np.sqrt(units._e * units._amu))
"""Energy in eV of a vibration whose omega^2 is 1 eV/Angstrom^2/amu."""

Point = Literal["minimum", "first-order saddle", "higher-order saddle"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NormalModes:
    """Vibrations of one structure.

    Parameters
    ----------
    moving
        Indices of the atoms that move.
    frequencies
        (modes,) 1/cm of the vibrations, ascending.
    unprojected
        (3 moving,) 1/cm without projecting anything out, as `ase.vibrations` gives them.
    displacements
        (modes, atoms, 3) Cartesian directions of the mean potential's modes, of length 1.
    num_projected
        Motions of the whole that were projected out.
    """

    moving: np.ndarray
    frequencies: MemberValues
    unprojected: MemberValues
    displacements: np.ndarray
    num_projected: int

    @property
    def num_imaginary(self) -> int:
        """Number of directions in which the energy falls."""
        return int((self.frequencies.value < IMAGINARY).sum())

    @property
    def point(self) -> Point:
        """What the structure is, if its forces vanish."""
        names: tuple[Point, ...] = ("minimum", "first-order saddle", "higher-order saddle")
        return names[min(self.num_imaginary, 2)]


def hessian_by_differences(
    potential: Potential, atoms: Atoms, *, delta: float = DELTA
) -> np.ndarray:
    """Return each member's Hessian of the atoms that are free, by central differences.

    Parameters
    ----------
    potential
        Predicts all displaced structures in one call.
    atoms
        One structure; `FixAtoms` is honoured.
    delta
        Angstrom.

    Returns
    -------
    (members, 3 n, 3 n) eV/Angstrom^2 for n free atoms, symmetric.
    """
    moving = _moving(atoms)
    frames = []
    for atom in moving:
        for axis in range(3):
            for sign in (1.0, -1.0):
                frame = atoms.copy()
                frame.positions[atom, axis] += sign * delta
                frames.append(frame)
    predictions = potential.predict(frames)
    forces = np.stack([prediction.member_forces[:, moving] for prediction in predictions], axis=1)
    if not np.isfinite(forces).all():
        raise SamplerError(
            "a force on a displaced structure is not finite; the potential does not know this "
            "structure: train it on it, or check the atoms"
        )
    rows = -(forces[:, 0::2] - forces[:, 1::2]) / (2.0 * delta)
    return _symmetric(rows.reshape(len(forces), 3 * len(moving), 3 * len(moving)))


def analytic_hessian(committee: Committee, atoms: Atoms) -> np.ndarray:
    """Return what `hessian_by_differences` does, from each member's own second derivatives."""
    moving = _moving(atoms)
    size = 3 * len(moving)
    members = [
        hessian(member, atoms, atom_indices=moving, head=committee.head)[:, :, moving]
        for member in committee.members
    ]
    return _symmetric(np.asarray(members).reshape(len(members), size, size))


def normal_modes(atoms: Atoms, member_hessians: np.ndarray) -> NormalModes:
    """Return the vibrations that Hessians imply.

    Parameters
    ----------
    atoms
        The structure, with its masses and fixed atoms.
    member_hessians
        (members, 3 n, 3 n) eV/Angstrom^2 of the n free atoms.
    """
    moving = _moving(atoms)
    roots = np.repeat(np.sqrt(atoms.get_masses()[moving]), 3)
    outer = whole_motions(atoms)
    basis = _complement(outer, 3 * len(moving))
    members = member_hessians if len(member_hessians) > 1 else member_hessians[:0]
    projected, raw = [], []
    vectors = np.zeros((3 * len(moving), 0))
    for number, matrix in enumerate([member_hessians.mean(axis=0), *members]):
        weighted = matrix / roots[:, None] / roots[None]
        raw.append(wavenumbers(np.linalg.eigvalsh(weighted)))
        values, found = np.linalg.eigh(basis.T @ weighted @ basis)
        projected.append(wavenumbers(values))
        vectors = basis @ found if number == 0 else vectors
    directions = np.zeros((vectors.shape[1], len(atoms), 3))
    directions[:, moving] = (vectors / roots[:, None]).T.reshape(-1, len(moving), 3)
    lengths = np.linalg.norm(directions, axis=(1, 2), keepdims=True)
    return NormalModes(
        moving=moving,
        frequencies=MemberValues.of(projected),
        unprojected=MemberValues.of(raw),
        displacements=directions / np.where(lengths > 0, lengths, 1.0),
        num_projected=outer.shape[1],
    )


def wavenumbers(eigenvalues: np.ndarray) -> np.ndarray:
    """Return frequencies in 1/cm from omega^2 in eV/Angstrom^2/amu, imaginary ones negative.

    >>> wavenumbers(np.array([-1.0, 0.0, 1.0])).round(2).tolist()
    [-521.47, 0.0, 521.47]
    """
    return np.sign(eigenvalues) * np.sqrt(np.abs(eigenvalues)) * QUANTUM / units.invcm


def whole_motions(atoms: Atoms) -> np.ndarray:
    """Return an orthonormal basis of the mass-weighted motions that cost no energy.

    Returns
    -------
    (3 atoms, k): k = 6 for a molecule, 5 for a linear one, 3 for an atom or a crystal, 0 where any
    atom is held.
    """
    num_atoms = len(atoms)
    if len(_moving(atoms)) < num_atoms:
        return np.zeros((3 * len(_moving(atoms)), 0))
    masses = atoms.get_masses()
    motions = [np.tile(axis, (num_atoms, 1)) for axis in np.eye(3)]
    if not atoms.pbc.any():
        centred = atoms.positions - masses @ atoms.positions / masses.sum()
        motions += [np.cross(axis, centred) for axis in np.eye(3)]
    weighted = np.asarray([(np.sqrt(masses)[:, None] * motion).ravel() for motion in motions])
    left, sizes, _ = np.linalg.svd(weighted.T, full_matrices=False)
    return left[:, sizes > 1e-3 * np.sqrt(masses.sum())]


def _complement(outer: np.ndarray, size: int) -> np.ndarray:
    """Return an orthonormal basis of everything perpendicular to the columns of `outer`."""
    if not outer.shape[1]:
        return np.eye(size)
    left = np.linalg.svd(outer, full_matrices=True)[0]
    return left[:, outer.shape[1] :]


def _moving(atoms: Atoms) -> np.ndarray:
    """Return the indices of the atoms that no `FixAtoms` holds."""
    moving = free_atoms(atoms)
    if not len(moving):
        raise StructureError("every atom is fixed, so nothing vibrates; free some of them")
    return moving


def _symmetric(matrices: np.ndarray) -> np.ndarray:
    """Return matrices without the rounding that makes them unsymmetric."""
    return 0.5 * (matrices + matrices.transpose(0, 2, 1))
