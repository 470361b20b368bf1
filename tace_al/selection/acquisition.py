"""Which frames go to the labeller: a two-sided band, a random audit, quotas and diversity.

A frame whose largest calibrated force error bar lies below the band is known, above it broken
(the model is lost there and a label would teach nonsense geometry), between an uncertain candidate
(Podryabinkin and Shapeev 2017, doi:10.1016/j.commatsci.2017.08.031; Zhang et al. 2020,
doi:10.1016/j.cpc.2020.107206). A committee can agree and be wrong, so a small random share of known
frames is labelled too: the audit, the only unbiased look at what the band lets through.

When labels are short they are shared among reaction channels by quota, so that a hot channel does
not starve the others, and within a channel by uncertainty-weighted farthest-point sampling
(`diversity.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tace_al.core.random_generators import random_generator
from tace_al.selection.calibration import Calibration
from tace_al.selection.diversity import DUPLICATE_TOLERANCE, spread_out

Verdict = Literal["known", "uncertain", "broken"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """Error bars worth a label, in eV/Angstrom: `low` is the target, `high` the reject level."""

    low: float
    high: float

    def __post_init__(self) -> None:
        """Refuse an empty band."""
        if not 0.0 < self.low < self.high:
            raise ValueError(
                f"the band is [{self.low}, {self.high}] eV/A, expected 0 < low < high; frames "
                "between the two are labelled"
            )

    def classify(self, uncertainty: float) -> Verdict:
        """Return the verdict on a frame; an error bar that is not a number is broken.

        >>> Band(low=0.1, high=2.0).classify(0.5)
        'uncertain'
        """
        if uncertainty <= self.low:
            return "known"
        if uncertainty < self.high:
            return "uncertain"
        return "broken"


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A flagged frame as the selection sees it.

    Parameters
    ----------
    key
        Structure key.
    channel
        Reaction channel it came from.
    uncertainty
        Largest calibrated force error bar in eV/Angstrom.
    descriptor
        (features,) from `structure_descriptor`, by the model that serves now.
    priority
        Above 0 the frame is labelled whatever its uncertainty and neighbours, higher first: audits
        (which must stay random to be of use), saddle points, end states.
    """

    key: str
    channel: str
    uncertainty: float
    descriptor: np.ndarray
    priority: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Keys to label, in that order, and keys rejected as near-duplicates."""

    chosen: tuple[str, ...]
    duplicates: tuple[str, ...]


def frame_uncertainty(
    force_spread: np.ndarray, calibration: Calibration, *, fixed: np.ndarray | None = None
) -> float:
    """Return the largest force error bar of a frame in eV/Angstrom, fixed atoms left out.

    Parameters
    ----------
    force_spread
        (atoms,) committee spread in eV/Angstrom.
    calibration
        Of the committee that made the spread.
    fixed
        (atoms,) booleans; the force on an atom that cannot move does not matter.
    """
    spread = np.asarray(force_spread, dtype=float)
    if fixed is not None and not np.all(fixed):
        spread = spread[~np.asarray(fixed, dtype=bool)]
    return float(np.max(calibration.force_error(spread)))


def is_audit(key: str, *, share: float, seed: int) -> bool:
    """Return whether a known frame is drawn for audit.

    The draw depends on the frame's key and the seed alone: the same frame always draws the same
    lot, whatever was seen before it and however often the campaign was restarted.

    >>> sum(is_audit(str(key), share=0.05, seed=0) for key in range(2000))
    96
    """
    return bool(random_generator(seed, "audit", key).random() < share)


def channel_quotas(
    budget: int, available: Mapping[str, int], *, shares: Mapping[str, float] | None = None
) -> dict[str, int]:
    """Return how many labels each channel gets.

    Labels are dealt one by one to the channel furthest below its share (highest averages, Webster),
    and what a channel cannot use goes to the others.

    Parameters
    ----------
    budget
        Labels to deal.
    available
        Candidates a channel.
    shares
        Relative positive weight of a channel; default 1 for each.

    Examples
    --------
    >>> channel_quotas(10, {"bare": 20, "water": 3})
    {'bare': 7, 'water': 3}
    """
    share = {name: (shares or {}).get(name, 1.0) for name in sorted(available)}
    if any(value <= 0 for value in share.values()):
        raise ValueError(f"channel shares must be positive, got {share}")
    quotas = dict.fromkeys(share, 0)
    for _ in range(min(budget, sum(available.values()))):
        hungry = [name for name in quotas if quotas[name] < available[name]]
        neediest = min(hungry, key=lambda name: (quotas[name] + 0.5) / share[name])
        quotas[neediest] += 1
    return quotas


def select(
    candidates: Sequence[Candidate],
    budget: int,
    *,
    covered: Mapping[str, np.ndarray],
    shares: Mapping[str, float] | None = None,
    duplicate_tolerance: float = DUPLICATE_TOLERANCE,
) -> Selection:
    """Choose up to `budget` frames to label.

    Parameters
    ----------
    candidates
        Flagged and queued frames; the order breaks ties only. Keys are unique.
    budget
        Labels to spend now; the number of candidates ranks a whole queue.
    covered
        For each channel the (frames, features) descriptors of frames that are labelled or in
        flight. A missing channel has none.
    shares
        Relative share of a channel in the budget; default equal.
    duplicate_tolerance
        See `spread_out`.
    """
    urgent = sorted(
        (candidate for candidate in candidates if candidate.priority > 0),
        key=lambda candidate: -candidate.priority,
    )[: max(budget, 0)]
    left = max(budget, 0) - len(urgent)
    orders: dict[str, list[Candidate]] = {}
    duplicates: list[str] = []
    for channel in sorted({candidate.channel for candidate in candidates}):
        taken = [candidate.descriptor for candidate in urgent if candidate.channel == channel]
        own = [
            candidate
            for candidate in candidates
            if candidate.channel == channel and candidate.priority <= 0
        ]
        if not own:
            continue
        known = [*np.asarray(covered.get(channel, np.zeros((0, 0)))), *taken]
        picked = spread_out(
            np.asarray([candidate.descriptor for candidate in own]),
            count=left,
            covered=np.asarray(known),
            weights=np.asarray([candidate.uncertainty for candidate in own]),
            duplicate_tolerance=duplicate_tolerance,
        )
        orders[channel] = [own[index] for index in picked.chosen]
        duplicates += [own[index].key for index in picked.duplicates]
    chosen = [candidate.key for candidate in urgent]
    chosen += _dealt(orders, left, shares=shares)
    return Selection(chosen=tuple(chosen), duplicates=tuple(duplicates))


def _dealt(
    orders: Mapping[str, Sequence[Candidate]], budget: int, *, shares: Mapping[str, float] | None
) -> list[str]:
    """Return keys from every channel up to its quota, the channels' turns interleaved."""
    quotas = channel_quotas(
        budget, {name: len(order) for name, order in orders.items()}, shares=shares
    )
    turns = [
        ((place + 0.5) / quotas[name], name, candidate.key)
        for name, order in orders.items()
        for place, candidate in enumerate(order[: quotas[name]])
    ]
    return [key for _, _, key in sorted(turns)]
