"""Turn the disagreement of a committee into an error bar that holds: split-conformal calibration.

The spread s of a committee ranks errors well and sizes them badly. On structures the members did
not train on, the score of an atom is r = |F_pred - F_ref| / max(s, floor). The scale q is a high
quantile of the scores, and q max(s, floor) is the error bar of a new atom. Split conformal
prediction (Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005; Lei et al.
2018, arXiv:1604.04173; for potentials Hu et al. 2022, doi:10.1088/2632-2153/aca7b1) picks the
quantile ceil((n + 1) c) / n, so that the bar covers a share c of new errors for any distribution of
scores, provided that old and new ones are exchangeable.

Atoms of one structure are not exchangeable with those of another: their errors rise and fall
together, so 30 structures of 9 atoms are 30 independent pieces of evidence, not 270. Each structure
therefore has the same total weight 1/(n + 1), shared equally by its atoms, and a mass 1/(n + 1) is
put at infinity for the one that comes (hierarchical conformal prediction: Dunn, Wasserman and
Ramdas 2018, arXiv:1809.07441; Lee, Barber and Willett 2023, arXiv:2306.06342). With one atom a
structure this is the usual quantile. It needs n >= c / (1 - c) structures (9 for c = 0.9); below
that the largest score seen, and at least `PRIOR_SCALE`, is used and `reliable` is False.

What it does not promise: the coverage is that of a random atom, averaged over structures, not of
every atom of a structure at once; and calibration structures must resemble those to come, which
active learning strains, so it is refitted each generation and its coverage is reported.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PRIOR_SCALE = 4.0
"""Scale used while there are too few calibration structures: a committee of four initialisations
typically errs by two to four times its spread."""
FORCE_FLOOR = 0.005
"""eV/Angstrom: a committee of four can agree by accident; below this its spread means nothing."""
ENERGY_FLOOR = 0.002
"""eV, the same for energy differences."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Scales that turn spreads into error bars, and the evidence behind them.

    Parameters
    ----------
    scale
        Error bar of a force over the committee's spread.
    target_coverage
        Share of errors the bars are meant to cover, in (0, 1).
    coverage
        Share that was covered when each structure was predicted with the scale fitted to the others
        (leave one structure out), or None with fewer than two structures.
    coverage_error
        Standard error of `coverage` over structures in that test, or None.
    num_structures, num_atoms
        Size of the calibration set.
    reliable
        False when `scale` is the conservative fallback.
    energy_scale, energy_reliable, num_energies
        The same for energy differences.
    force_floor, energy_floor
        Smallest spreads taken at their word, in eV/Angstrom and eV.
    """

    scale: float
    target_coverage: float
    coverage: float | None
    coverage_error: float | None
    num_structures: int
    num_atoms: int
    reliable: bool
    energy_scale: float
    energy_reliable: bool
    num_energies: int
    force_floor: float = FORCE_FLOOR
    energy_floor: float = ENERGY_FLOOR

    def force_error(self, spread: np.ndarray) -> np.ndarray:
        """Return the error bars, in eV/Angstrom, of forces with these committee spreads."""
        # fmax would hide a NaN; a spread that is not a number must stay one.
        return self.scale * np.maximum(np.asarray(spread, dtype=float), self.force_floor)

    def energy_error(self, spread: float) -> float:
        """Return the error bar, in eV, of an energy difference with this committee spread."""
        return self.energy_scale * float(np.maximum(spread, self.energy_floor))


def fit_calibration(
    spreads: Sequence[np.ndarray],
    errors: Sequence[np.ndarray],
    *,
    target_coverage: float = 0.9,
    energy_spreads: Sequence[float] | np.ndarray = (),
    energy_errors: Sequence[float] | np.ndarray = (),
    force_floor: float = FORCE_FLOOR,
    energy_floor: float = ENERGY_FLOOR,
) -> Calibration:
    """Fit the scales to calibration structures that no member trained on.

    Parameters
    ----------
    spreads
        One (atoms,) array a structure: committee force spread in eV/Angstrom. May be empty.
    errors
        One (atoms,) array a structure: length of the mean force's true error in eV/Angstrom.
    target_coverage
        Share of errors to cover, in (0, 1).
    energy_spreads, energy_errors
        Per structure, in eV; see `energy_differences`.
    force_floor, energy_floor
        Smallest spreads taken at their word, in eV/Angstrom and eV.

    Examples
    --------
    >>> calibration = fit_calibration([], [])
    >>> calibration.scale, calibration.reliable, calibration.coverage
    (4.0, False, None)
    """
    if not 0.0 < target_coverage < 1.0:
        raise ValueError(
            f"`target_coverage` is {target_coverage}, expected a share between 0 and 1; "
            "0.9 is customary"
        )
    scores = _scores(spreads, errors, floor=force_floor)
    energy_scores = _scores(
        [np.atleast_1d(value) for value in energy_spreads],
        [np.atleast_1d(value) for value in energy_errors],
        floor=energy_floor,
    )
    scale, reliable = _conformal_scale(scores, target_coverage)
    energy_scale, energy_reliable = _conformal_scale(energy_scores, target_coverage)
    covered = _leave_one_out_coverage(scores, target_coverage)
    many = len(covered) > 1
    return Calibration(
        scale=scale,
        target_coverage=target_coverage,
        coverage=float(covered.mean()) if many else None,
        coverage_error=float(covered.std(ddof=1) / np.sqrt(len(covered))) if many else None,
        num_structures=len(scores),
        num_atoms=sum(len(score) for score in scores),
        reliable=reliable,
        energy_scale=energy_scale,
        energy_reliable=energy_reliable,
        num_energies=len(energy_scores),
        force_floor=force_floor,
        energy_floor=energy_floor,
    )


def coverage(
    spreads: Sequence[np.ndarray],
    errors: Sequence[np.ndarray],
    scale: float,
    *,
    floor: float = FORCE_FLOOR,
) -> float:
    """Return the share of errors within `scale` times the spread, structures weighted equally.

    Applied to predictions stored before their labels were made, this is the honest, prospective
    coverage of a campaign. NaN without structures.
    """
    scores = _scores(spreads, errors, floor=floor)
    if not scores:
        return float("nan")
    return float(np.mean([np.mean(score <= scale) for score in scores]))


def force_errors(predicted: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return (atoms,) lengths of the force errors of one structure, from two (atoms, 3) arrays."""
    difference = np.asarray(predicted, dtype=float) - np.asarray(reference, dtype=float)
    return np.sqrt((difference**2).sum(axis=1))


def energy_differences(
    member_energies: np.ndarray,
    label_energies: np.ndarray,
    anchor_member_energies: np.ndarray,
    anchor_label_energies: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return spreads and errors of energies measured from an anchor, both (structures,) in eV.

    A barrier is an energy difference, in which a member's constant offset drops out, so its error
    bar is calibrated on differences too: from each calibration structure to a labelled anchor of
    the same composition, such as the end state of its reaction channel.

    Parameters
    ----------
    member_energies, anchor_member_energies
        (structures, members) in eV.
    label_energies, anchor_label_energies
        (structures,) in eV.
    """
    members = np.asarray(member_energies, dtype=float) - np.asarray(anchor_member_energies)
    label = np.asarray(label_energies, dtype=float) - np.asarray(anchor_label_energies)
    if members.ndim != 2 or label.shape != members.shape[:1]:
        raise ValueError(
            f"`member_energies` has shape {members.shape} and `label_energies` {label.shape}, "
            "expected (structures, members) and (structures,)"
        )
    return members.std(axis=1), np.abs(members.mean(axis=1) - label)


def _scores(
    spreads: Sequence[np.ndarray], errors: Sequence[np.ndarray], *, floor: float
) -> list[np.ndarray]:
    """Return the scores error / max(spread, floor), one (atoms,) array a structure."""
    if len(spreads) != len(errors):
        raise ValueError(
            f"{len(spreads)} structures have spreads and {len(errors)} have errors; pass both for "
            "the same structures"
        )
    scores = []
    for index, (spread, error) in enumerate(zip(spreads, errors, strict=True)):
        spread, error = np.asarray(spread, dtype=float), np.asarray(error, dtype=float)
        if spread.shape != error.shape or spread.ndim != 1 or not spread.size:
            raise ValueError(
                f"calibration structure {index} has spreads of shape {spread.shape} and errors of "
                f"shape {error.shape}, expected (atoms,) for both"
            )
        if not (np.isfinite(spread).all() and np.isfinite(error).all()):
            raise ValueError(
                f"calibration structure {index} has a spread or error that is not finite; leave "
                "broken predictions and failed labels out"
            )
        scores.append(error / np.maximum(spread, floor))
    return scores


def _conformal_scale(scores: Sequence[np.ndarray], target_coverage: float) -> tuple[float, bool]:
    """Return the hierarchical conformal quantile and whether there was enough to take it from."""
    if not scores:
        return PRIOR_SCALE, False
    values = np.concatenate(scores)
    weights = np.concatenate([np.full(len(score), 1.0 / len(score)) for score in scores])
    order = np.argsort(values, kind="stable")
    return _weighted_quantile(values[order], weights[order], len(scores), target_coverage)


def _weighted_quantile(
    values: np.ndarray, weights: np.ndarray, num_structures: int, target_coverage: float
) -> tuple[float, bool]:
    """Return the smallest sorted value whose weight sums to the target share of n + 1 structures.

    Entries of weight zero do not count. Without one that reaches the share: the largest, and at
    least `PRIOR_SCALE`.
    """
    reached = np.cumsum(weights) >= target_coverage * (num_structures + 1) - 1e-9
    index = int(np.argmax(reached))
    if reached[index] and num_structures >= target_coverage * (num_structures + 1) - 1e-9:
        return float(values[index]), True
    return max(float(values[weights > 0].max(initial=0.0)), PRIOR_SCALE), False


def _leave_one_out_coverage(scores: Sequence[np.ndarray], target_coverage: float) -> np.ndarray:
    """Return (structures,) shares of atoms covered by the scale fitted to the other structures."""
    if len(scores) < 2:
        return np.zeros(0)
    values = np.concatenate(scores)
    owner = np.repeat(np.arange(len(scores)), [len(score) for score in scores])
    weights = np.concatenate([np.full(len(score), 1.0 / len(score)) for score in scores])
    order = np.argsort(values, kind="stable")
    values, owner, weights = values[order], owner[order], weights[order]
    shares = np.empty(len(scores))
    for index, score in enumerate(scores):
        others = np.where(owner == index, 0.0, weights)
        scale, _ = _weighted_quantile(values, others, len(scores) - 1, target_coverage)
        shares[index] = np.mean(score <= scale)
    return shares
