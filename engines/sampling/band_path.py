"""A first path between two end states: ends made comparable, then image-dependent pair potentials.

Molecules: the final state is rotated (never mirrored) and moved onto the initial one (Kabsch,
10.1107/S0567739476001873). Periodic structures: each atom of the final state is taken at the image
nearest to its place in the initial one, so the path has no jumps.

IDPP (Smidstrup, Pedersen, Stokbro, Jonsson, 10.1063/1.4878664): the images follow the linear
interpolation of all pair distances, by a band on S = sum_{i<j} (d_ij - d_ij^target)^2 / d_ij^4, so
atoms go round each other instead of through.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from scipy.optimize import linear_sum_assignment

from tace_al.core.errors import StructureError
from tace_al.data.frames import fixed_mask
from tace_al.engines.sampling.band_forces import band_forces

_IDPP_STEPS = 200
_IDPP_FORCE = 0.02  # 1/A^3, on S
_LARGEST_STEP = 0.1  # A
_ALIKE = 1.0  # A^2, sum of squared displacements within which orders are not told apart


def is_free_molecule(atoms: Atoms) -> bool:
    """Return whether the structure may be rotated as a whole: not periodic, nothing fixed."""
    return not atoms.pbc.any() and not fixed_mask(atoms).any()


def comparable_ends(initial: Atoms, final: Atoms) -> np.ndarray:
    """Return the (atoms, 3) positions of `final`, aligned with or nearest to those of `initial`.

    Raises
    ------
    StructureError
        The two states differ in atoms, order of atoms, cell, periodicity or fixed atoms.
    """
    if len(initial) != len(final) or (initial.numbers != final.numbers).any():
        raise StructureError(
            f"the end states are {initial.get_chemical_formula()} and "
            f"{final.get_chemical_formula()} or order their atoms differently; "
            "give both the same atoms in the same order"
        )
    if (initial.pbc != final.pbc).any():
        raise StructureError("the end states differ in pbc; give both the same periodicity")
    periodic = initial.pbc
    if np.abs(initial.cell.array[periodic] - final.cell.array[periodic]).max(initial=0) > 1e-6:
        raise StructureError("the end states differ in cell; give both the same cell")
    if (fixed_mask(initial) != fixed_mask(final)).any():
        raise StructureError("the end states fix different atoms; fix the same atoms in both")
    if is_free_molecule(initial):
        return aligned(final.positions, initial.positions)
    if periodic.any():
        return unwrapped(final, initial.positions)
    return np.array(final.positions)


def aligned(positions: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return (atoms, 3) `positions` rotated and moved onto `target`, without a reflection."""
    centre, target_centre = positions.mean(axis=0), target.mean(axis=0)
    left, _, right = np.linalg.svd((positions - centre).T @ (target - target_centre))
    handed = np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    result: np.ndarray = (positions - centre) @ (left @ handed @ right) + target_centre
    return result


def nearest_order(initial: Atoms, last: np.ndarray) -> np.ndarray:
    """Return (atoms,) which atom of the final state, of the same element, each would go to nearest.

    The order with the least sum of squared displacements (10.1007/BF02278710), the given one
    unless another takes the atoms less than half as far.

    Parameters
    ----------
    last
        (atoms, 3) as `comparable_ends` returns them.
    """
    given = np.arange(len(initial))
    order, least, far = given.copy(), 0.0, 0.0
    for number in np.unique(initial.numbers):
        own = np.flatnonzero(initial.numbers == number)
        ways = last[own][None] - initial.positions[own][:, None]  # (own, own, 3)
        if initial.pbc.any():
            nearest, _ = find_mic(ways.reshape(-1, 3), initial.cell, initial.pbc)
            ways = nearest.reshape(ways.shape)
        squares = (ways**2).sum(axis=2)
        rows, columns = linear_sum_assignment(squares)
        order[own[rows]] = own[columns]
        least += float(squares[rows, columns].sum())
        far += float(np.trace(squares))
    return order if far > 4.0 * least + _ALIKE else given


def unwrapped(atoms: Atoms, reference: np.ndarray) -> np.ndarray:
    """Return the positions of `atoms`, each at its periodic image nearest to `reference`."""
    shift, _ = find_mic(atoms.positions - reference, atoms.cell, atoms.pbc)
    result: np.ndarray = reference + shift
    return result


def given_path(images: Sequence[Atoms], num_images: int) -> np.ndarray:
    """Return given images as a (num_images, atoms, 3) path without jumps.

    Images are made comparable one after the other, and spread evenly again when their number is
    not `num_images`.
    """
    path = [np.array(images[0].positions)]
    for before, atoms in pairwise(images):
        reference = before.copy()
        reference.set_positions(path[-1], apply_constraint=False)
        path.append(comparable_ends(reference, atoms))
    return np.asarray(path) if len(path) == num_images else _resampled(np.asarray(path), num_images)


def interpolated_path(initial: Atoms, last: np.ndarray, num_images: int) -> np.ndarray:
    """Return a (num_images, atoms, 3) IDPP path from `initial` to the positions `last`."""
    shares = np.linspace(0.0, 1.0, num_images)[:, None, None]
    path = initial.positions + shares * (last - initial.positions)
    movable = ~fixed_mask(initial)
    first_pairs, second_pairs = np.triu_indices(len(initial), k=1)
    # pairs of two atoms that never move need no potential
    moves = np.linalg.norm(last - initial.positions, axis=1) > 1e-3
    keep = moves[first_pairs] | moves[second_pairs] | (not initial.pbc.any())
    pairs = np.stack([first_pairs[keep], second_pairs[keep]])
    if pairs.size == 0:
        return path
    shifts = _pair_shifts(initial, pairs)
    ends = [_distances(path[index], pairs, shifts)[0] for index in (0, -1)]
    targets = ends[0] + shares[:, :, 0] * (ends[1] - ends[0])
    springs = np.full(num_images - 1, 0.1)
    velocity = np.zeros_like(path[1:-1])
    for _ in range(_IDPP_STEPS):
        values, gradients = _idpp(path, pairs, shifts=shifts, targets=targets)
        forces = band_forces(
            path,
            values,
            -gradients * movable[:, None],
            springs=springs,
            climbing=False,
            rigid_free=is_free_molecule(initial),
        )
        if np.linalg.norm(forces, axis=2).max() < _IDPP_FORCE:
            break
        # quick-min: keep only the velocity along the force, forget it when they disagree
        power = float((velocity * forces).sum())
        velocity = forces * (max(power, 0.0) / float((forces**2).sum())) + 0.2 * forces
        step = 0.5 * velocity
        largest = np.linalg.norm(step, axis=2).max()
        path[1:-1] += step * min(1.0, _LARGEST_STEP / largest)
    return path


def _pair_shifts(atoms: Atoms, pairs: np.ndarray) -> np.ndarray:
    """Return the (pairs, 3) lattice shifts that make each pair of the first image nearest."""
    raw = atoms.positions[pairs[1]] - atoms.positions[pairs[0]]
    if not atoms.pbc.any():
        return np.zeros_like(raw)
    nearest, _ = find_mic(raw, atoms.cell, atoms.pbc)
    shifts: np.ndarray = nearest - raw
    return shifts


def _distances(
    positions: np.ndarray, pairs: np.ndarray, shifts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (..., pairs) distances and (..., pairs, 3) vectors of (..., atoms, 3) positions."""
    vectors = positions[..., pairs[1], :] - positions[..., pairs[0], :] + shifts
    return np.maximum(np.linalg.norm(vectors, axis=-1), 0.1), vectors


def _idpp(
    path: np.ndarray, pairs: np.ndarray, *, shifts: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (images,) values and (images, atoms, 3) gradients of the IDPP objective."""
    distances, vectors = _distances(path, pairs, shifts)  # (images, pairs), (images, pairs, 3)
    excess = distances - targets
    values = (excess**2 / distances**4).sum(axis=1)
    slopes = 2.0 * excess / distances**4 * (1.0 - 2.0 * excess / distances)
    pulls = (slopes / distances)[..., None] * vectors
    gradients = np.zeros_like(path)
    for image in range(len(path)):
        np.add.at(gradients[image], pairs[1], pulls[image])
        np.add.at(gradients[image], pairs[0], -pulls[image])
    return values, gradients


def _resampled(path: np.ndarray, num_images: int) -> np.ndarray:
    """Return a path with evenly spaced images on the straight segments of another."""
    lengths = np.linalg.norm(np.diff(path, axis=0), axis=(1, 2))
    place = np.concatenate([[0.0], np.cumsum(lengths)])
    wanted = np.linspace(0.0, place[-1], num_images)
    flat = path.reshape(len(path), -1)
    columns = [np.interp(wanted, place, column) for column in flat.T]
    return np.stack(columns, axis=1).reshape(num_images, *path.shape[1:])
