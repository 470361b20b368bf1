"""Two levels of theory, one cheap and one expensive: where an expensive label is worth its price.

A committee with a head for each level says, for a structure x, F_high(x) and F_low(x) member by
member. Cheap labels pin down what the two have in common. What is left for expensive ones is the
difference D = F_high - F_low, smoother than either (Ramakrishnan et al. 2015, Delta-learning,
doi:10.1021/acs.jctc.5b00099), and known where the members agree on it:

    s_i = sqrt(mean_m |D_mi - <D_i>|^2),    an error bar of q s_i

with q the conformal scale of the expensive head (`calibration.py`). Members that err together on
both heads cancel in D: their common error is the cheap labels' business. A structure whose largest
error bar lies below a threshold needs no expensive label however uncertain its forces are.

Among those above it the choice is the usual one (`acquisition.py`): uncertain and far in the
model's descriptors from what has an expensive label, half of the budget kept for the path.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from tace_al.selection.acquisition import Candidate, select


def difference_spread(cheap: np.ndarray, expensive: np.ndarray) -> np.ndarray:
    """Return (atoms,) rms distance of the members' F_high - F_low from its mean, in eV/Angstrom.

    Parameters
    ----------
    cheap, expensive
        (members, atoms, 3) forces of each member at either level.

    Examples
    --------
    >>> forces = np.random.default_rng(0).normal(size=(4, 3, 3))
    >>> bool(np.allclose(difference_spread(forces, forces + 1.0), 0.0))
    True
    """
    low, high = np.asarray(cheap, dtype=float), np.asarray(expensive, dtype=float)
    if low.shape != high.shape or low.ndim != 3:
        raise ValueError(
            f"forces of the two levels have shapes {low.shape} and {high.shape}, expected twice "
            "(members, atoms, 3) of the same members"
        )
    difference = high - low
    deviation = difference - difference.mean(axis=0)
    return np.sqrt((deviation**2).sum(axis=2).mean(axis=0))


def choose_expensive(
    candidates: Sequence[Candidate],
    budget: int,
    *,
    low: float,
    on_path: frozenset[str],
    covered: Mapping[str, np.ndarray],
) -> tuple[str, ...]:
    """Return the keys of the structures to label at the expensive level, in order.

    Parameters
    ----------
    candidates
        Structures with a cheap label, or about to get one, and no expensive one; `uncertainty` is
        the largest error bar of the difference.
    budget
        Labels to spend now.
    low
        Error bar in eV/Angstrom up to which the difference is known.
    on_path
        Keys of images of a reaction path: they get at least half of the budget, if there are so
        many that are uncertain.
    covered
        For each channel the (frames, features) descriptors of what has an expensive label.
    """
    uncertain = [candidate for candidate in candidates if candidate.uncertainty > low]
    path = [candidate for candidate in uncertain if candidate.key in on_path]
    first = select(path, (budget + 1) // 2, covered=covered).chosen
    taken = {candidate.key: candidate for candidate in uncertain if candidate.key in first}
    known = {channel: np.asarray(rows) for channel, rows in covered.items()}
    for candidate in taken.values():
        row = np.asarray(candidate.descriptor)[None]
        former = known.get(candidate.channel)
        none = former is None or not former.size
        known[candidate.channel] = row if none else np.concatenate([former, row])
    rest = [candidate for candidate in uncertain if candidate.key not in taken]
    return (*first, *select(rest, budget - len(first), covered=known).chosen)


def evenly(count: int, number: int) -> tuple[int, ...]:
    """Return `number` places out of `count`, spread evenly and away from the ends.

    >>> evenly(7, 3), evenly(2, 5)
    ((1, 3, 5), (0, 1))
    """
    if number >= count:
        return tuple(range(count))
    return tuple(int((place + 0.5) * count / number) for place in range(number))


def repeated(training: Sequence[int], expensive: Sequence[int], *, most: int) -> list[int]:
    """Return training indices in which the expensive level's few come again, at most `most` times.

    They come as often as brings them closest to the number of the others.

    >>> repeated([0, 1, 2, 3, 4, 5, 6], [5], most=3)
    [0, 1, 2, 3, 4, 5, 6, 5, 5]
    """
    few = [index for index in training if index in set(expensive)]
    times = round((len(training) - len(few)) / len(few)) if few else 1
    return [*training, *few * (min(max(times, 1), most) - 1)]
