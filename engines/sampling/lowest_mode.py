"""The softest direction of a structure, from forces alone.

Lanczos iterations on the Hessian H, whose product with a direction n is a difference of forces,

    H n = (F(x - d n) - F(x + d n)) / (2 d),

two structures in one prediction. The lowest eigenpair of H within the directions seen is the answer
(Malek, Mousseau, 10.1103/PhysRevE.62.7723). Fixed atoms never move; translation and rotation of a
free molecule, and translation of a crystal, are kept out.
"""

from dataclasses import dataclass

import numpy as np
from ase import Atoms

from tace_al.core.errors import SamplerError
from tace_al.data.frames import fixed_mask
from tace_al.engines.sampling.potential import Potential

DISPLACEMENT = 0.01
"""d in A."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mode:
    """A direction and the curvature along it.

    Parameters
    ----------
    direction
        (atoms, 3), of unit length.
    curvature
        n.H.n in eV/A^2; below zero at a saddle point.
    residual
        Length of H n - curvature n in eV/A^2.
    num_products
        Predictions of two structures that were spent.
    """

    direction: np.ndarray
    curvature: float
    residual: float
    num_products: int


def lowest_mode(
    potential: Potential,
    atoms: Atoms,
    guess: np.ndarray,
    *,
    max_products: int = 20,
    tolerance: float = 0.05,
    besides: np.ndarray | None = None,
) -> Mode:
    """Return the direction of lowest curvature.

    Parameters
    ----------
    guess
        (atoms, 3), where to start; a direction of which it has no share is never found.
    max_products
        Most Hessian products; a good guess needs few.
    tolerance
        Stops at a residual below this share of the curvature, or of 1 eV/A^2 if that is more.
    besides
        (atoms, 3) of unit length that is kept out too: with the softest direction, this finds the
        next one.

    Raises
    ------
    SamplerError
        Nothing can move, or forces are not finite.
    """
    movable, idle = ~fixed_mask(atoms)[:, None], rigid_motions(atoms)
    if besides is not None:
        idle = np.column_stack([idle, besides.ravel()])

    def cleaned(vector: np.ndarray) -> np.ndarray:
        return _without((vector.reshape(-1, 3) * movable).ravel(), idle)

    first = cleaned(np.asarray(guess, dtype=float).ravel())
    if np.linalg.norm(first) < 1e-8:
        raise SamplerError(
            "no atom of the first direction can move; free some atoms, or give another direction"
        )
    basis, images = [first / np.linalg.norm(first)], []
    num_free = max(1, 3 * int(movable.sum()) - idle.shape[1])
    while True:
        images.append(cleaned(_product(potential, atoms, basis[-1])))
        vectors, products = np.stack(basis, axis=1), np.stack(images, axis=1)
        mode, curvature, residual = _lowest_pair(vectors, products)
        good = residual < tolerance * max(1.0, abs(curvature))
        if good or len(basis) >= min(max_products, num_free):
            break
        following = _without(_without(images[-1], vectors), vectors)  # again, for rounding
        length = np.linalg.norm(following)
        if length < 1e-6:
            break
        basis.append(following / length)
    return Mode(
        direction=(mode / np.linalg.norm(mode)).reshape(-1, 3),
        curvature=curvature,
        residual=residual,
        num_products=len(basis),
    )


def _lowest_pair(vectors: np.ndarray, products: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Return the lowest eigenpair of H within some columns and its residual, from their H n."""
    small = vectors.T @ products
    values, mixtures = np.linalg.eigh(0.5 * (small + small.T))
    mode, curvature = vectors @ mixtures[:, 0], float(values[0])
    return mode, curvature, float(np.linalg.norm(products @ mixtures[:, 0] - curvature * mode))


def _without(vector: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return what is left of a vector outside some orthonormal directions, its columns."""
    left: np.ndarray = vector - directions @ (directions.T @ vector)
    return left


def rigid_motions(atoms: Atoms) -> np.ndarray:
    """Return (3 atoms, k) orthonormal directions in which nothing happens: k = 0, 3, 5 or 6."""
    if fixed_mask(atoms).any():
        return np.zeros((3 * len(atoms), 0))
    shifts = [np.tile(axis, len(atoms)) for axis in np.eye(3)]
    if not atoms.pbc.any():
        arms = atoms.positions - atoms.positions.mean(axis=0)
        shifts += [np.cross(axis, arms).ravel() for axis in np.eye(3)]
    left, sizes, _ = np.linalg.svd(np.stack(shifts, axis=1), full_matrices=False)
    result: np.ndarray = left[:, sizes > 1e-6 * sizes.max()]
    return result


def _product(potential: Potential, atoms: Atoms, direction: np.ndarray) -> np.ndarray:
    """Return (3 atoms,) H n."""
    frames = []
    for sign in (1.0, -1.0):
        frame = atoms.copy()
        step = sign * DISPLACEMENT * direction.reshape(-1, 3)
        frame.set_positions(atoms.positions + step, apply_constraint=False)
        frames.append(frame)
    ahead, behind = potential.predict(frames)
    product: np.ndarray = (behind.forces - ahead.forces).ravel() / (2.0 * DISPLACEMENT)
    if not np.isfinite(product).all():
        raise SamplerError(
            "the potential's forces are not finite next to the structure; retrain it, or start a "
            "saddle search elsewhere"
        )
    return product
