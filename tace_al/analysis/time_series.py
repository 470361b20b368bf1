"""Numbers from time series of dynamics: means with errors, drifts, slopes."""

import numpy as np

NUM_BLOCKS = 5


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Return the mean of a correlated series and its standard error from block means.

    Blocks are fifths of the series, so that they are independent when the series is a few times
    longer than its memory (Flyvbjerg and Petersen, 10.1063/1.457480). NaN without two blocks.

    >>> mean_and_error(np.array([1.0, 3.0] * 10))
    (2.0, 0.0)
    """
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    if values.size < NUM_BLOCKS:
        return (float(values.mean()) if values.size else float("nan"), float("nan"))
    blocks = [block.mean() for block in np.array_split(values, NUM_BLOCKS)]
    error = float(np.std(blocks, ddof=1) / np.sqrt(NUM_BLOCKS))
    return float(values.mean()), error


def slope(x: np.ndarray, y: np.ndarray) -> float:
    """Return the slope of the straight line through points; NaN where x does not vary.

    >>> slope(np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0, 5.0]))
    2.0
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    good = np.isfinite(x) & np.isfinite(y)
    x, y = x[good], y[good]
    if x.size < 2 or np.ptp(x) == 0.0:
        return float("nan")
    centred = x - x.mean()
    return float((centred * (y - y.mean())).sum() / (centred**2).sum())


def drift_and_noise(time: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Return the slope of a quantity that should be constant, and the rms about that line."""
    rate = slope(time, values)
    if not np.isfinite(rate):
        return float("nan"), float("nan")
    rest = values - values.mean() - rate * (time - time.mean())
    return rate, float(np.sqrt((rest**2).mean()))
