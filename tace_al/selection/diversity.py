"""Spread the labels out: farthest-point sampling in the model's own descriptors.

Each pick is the candidate whose distance to everything already covered is largest (Gonzalez 1985,
doi:10.1016/0304-3975(85)90224-5; Eldar et al. 1997, doi:10.1109/83.623193), here times the
candidate's uncertainty: of two frames equally new the worse known goes first, and of two frames
equally uncertain the newer. Covered is what has a label, waits for one or is being labelled. The
greedy order is deterministic (ties go to the earlier candidate), covers space within a factor two
of the best possible, and any prefix of it is a valid choice.

A structure becomes one vector through the mean and standard deviation of its atoms' features,
species by species, so a vector does not depend on the order or number of atoms. Vectors made by
different models do not compare: compute them anew for everything when a generation is replaced.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DUPLICATE_TOLERANCE = 0.02
"""Two structures closer than this share of the typical distance teach the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpreadOut:
    """Result of farthest-point sampling.

    Parameters
    ----------
    chosen
        Indices of the candidates in the order they were picked.
    duplicates
        Indices of candidates too close to something covered or chosen, ascending.
    """

    chosen: tuple[int, ...]
    duplicates: tuple[int, ...]


def structure_descriptor(
    atom_descriptors: np.ndarray, numbers: np.ndarray, *, species: Sequence[int]
) -> np.ndarray:
    """Return the descriptor of a structure, (2 * species * features,).

    Parameters
    ----------
    atom_descriptors
        (atoms, features) invariant features from the model.
    numbers
        (atoms,) atomic numbers.
    species
        Every atomic number of the campaign, in a fixed order; one that a structure lacks gives
        zeros.
    """
    features = np.asarray(atom_descriptors, dtype=float)
    numbers = np.asarray(numbers)
    unknown = sorted(set(numbers.tolist()) - set(species))
    if unknown:
        raise ValueError(
            f"atomic numbers {unknown} are not among `species` {sorted(species)}; list every "
            "element of the campaign"
        )
    blocks = []
    for number in species:
        own = features[numbers == number]
        if len(own):
            blocks += [own.mean(axis=0), own.std(axis=0)]
        else:
            blocks += [np.zeros(features.shape[1])] * 2
    return np.concatenate(blocks)


def nearest_distances(points: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Return (points,) distances to the nearest row of `covered`, infinite where it is empty."""
    points = np.asarray(points, dtype=float)
    nearest = np.full(len(points), np.inf)
    # One row at a time: a (points, covered, features) block would not fit in memory, and the
    # |a|^2 + |b|^2 - 2ab form loses the digits that tell near-duplicates apart.
    for row in np.asarray(covered, dtype=float):
        np.minimum(nearest, np.linalg.norm(points - row, axis=1), out=nearest)
    return nearest


def typical_distance(points: np.ndarray) -> float:
    """Return the median distance of the rows from their median, a scale outliers do not move."""
    points = np.asarray(points, dtype=float)
    if not len(points):
        return 0.0
    return float(np.median(np.linalg.norm(points - np.median(points, axis=0), axis=1)))


def spread_out(
    descriptors: np.ndarray,
    *,
    count: int,
    covered: np.ndarray,
    weights: np.ndarray | None = None,
    duplicate_tolerance: float = DUPLICATE_TOLERANCE,
) -> SpreadOut:
    """Pick up to `count` candidates that are far from what is covered and from each other.

    Parameters
    ----------
    descriptors
        (candidates, features).
    count
        Most to pick; fewer when the rest are duplicates.
    covered
        (covered, features), possibly (0, features).
    weights
        (candidates,) positive factors on the distances, such as uncertainties; default 1.
    duplicate_tolerance
        In units of `typical_distance` of candidates and covered together; 0 drops only exact
        copies.
    """
    points = np.atleast_2d(np.asarray(descriptors, dtype=float))
    if not points.size:
        return SpreadOut(chosen=(), duplicates=())
    covered = np.asarray(covered, dtype=float).reshape(-1, points.shape[1])
    weights = np.ones(len(points)) if weights is None else np.asarray(weights, dtype=float)
    if weights.shape != (len(points),) or not (weights > 0).all():
        raise ValueError(f"`weights` must be {len(points)} positive numbers, one a candidate")
    closest = duplicate_tolerance * typical_distance(np.concatenate([points, covered]))
    nearest = nearest_distances(points, covered)
    waiting = np.ones(len(points), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < count:
        open_ = waiting & (nearest > closest)
        if not open_.any():
            break
        # Nothing covered yet: every distance is infinite and the weight alone decides.
        distance = np.where(np.isinf(nearest), 1.0, nearest)
        pick = int(np.argmax(np.where(open_, weights * distance, -1.0)))
        chosen.append(pick)
        waiting[pick] = False
        np.minimum(nearest, np.linalg.norm(points - points[pick], axis=1), out=nearest)
    duplicates = np.flatnonzero(waiting & (nearest <= closest))
    return SpreadOut(chosen=tuple(chosen), duplicates=tuple(duplicates.tolist()))
