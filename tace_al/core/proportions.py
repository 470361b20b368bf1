"""A proportion of successes with its error bar, by Wilson's score interval.

For k of n, with z standard deviations, the interval is

    (p + z^2 / 2n  +-  z sqrt(p (1 - p) / n + z^2 / 4 n^2)) / (1 + z^2 / n),      p = k / n.

Unlike sqrt(p (1 - p) / n) it has a width where every trial went the same way (E. B. Wilson,
10.1080/01621459.1927.10502953).
"""

from math import sqrt


def wilson_interval(successes: int, trials: int, z: float = 1.0) -> tuple[float, float]:
    """Return the ends of the interval.

    Parameters
    ----------
    successes, trials
        k of n, n at least 1.
    z
        Standard deviations: 1 covers 68 %, 1.96 covers 95 %.

    >>> low, high = wilson_interval(9, 10)
    >>> round(low, 3), round(high, 3)
    (0.766, 0.961)
    """
    if not (trials >= 1 and 0 <= successes <= trials):
        raise ValueError(f"{successes} successes of {trials} trials make no proportion")
    share, square = successes / trials, z * z / trials
    middle = (share + square / 2.0) / (1.0 + square)
    half = z * sqrt(share * (1.0 - share) / trials + square / (4.0 * trials)) / (1.0 + square)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def wilson_error(successes: int, trials: int) -> float:
    """Return half the width of the 68 % interval, an error bar that is never zero."""
    low, high = wilson_interval(successes, trials)
    return 0.5 * (high - low)
