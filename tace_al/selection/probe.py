"""Does a new generation deserve to serve? A paired comparison on a frozen probe set.

Each generation is judged on the same labelled structures, which no member ever trains on. Because
both generations see the same structures, the difference of their errors is far less noisy than
either error, and a loss counts only when it exceeds a tolerance and its own standard error (a
one-sided paired comparison; Student 1908, doi:10.1093/biomet/6.1.1).
"""

import numpy as np

TOLERANCE = 0.05
"""Relative loss that is forgiven."""
ERROR_FLOOR = 0.01
"""eV/Angstrom: below this mean error a model is good enough and no comparison is made."""


def not_worse(
    new_errors: np.ndarray | float,
    old_errors: np.ndarray | float,
    *,
    tolerance: float = TOLERANCE,
    floor: float = ERROR_FLOOR,
) -> bool:
    """Return whether the new generation may serve.

    Parameters
    ----------
    new_errors, old_errors
        (structures,) one error a probe structure, such as the root mean square force error in
        eV/Angstrom, in the same order; or one number each, compared without statistics.
    tolerance
        Relative loss that is forgiven.
    floor
        A mean error below this, in the unit of the errors, is always accepted.

    Examples
    --------
    >>> not_worse(0.10, 0.20), not_worse(0.30, 0.20), not_worse(float("nan"), 0.20)
    (True, False, False)
    """
    new = np.atleast_1d(np.asarray(new_errors, dtype=float))
    old = np.atleast_1d(np.asarray(old_errors, dtype=float))
    if new.shape != old.shape:
        raise ValueError(
            f"{new.size} new and {old.size} old probe errors; judge both generations on the same "
            "structures"
        )
    if not np.isfinite(new).all():
        return False
    if not new.size or not np.isfinite(old).all() or new.mean() <= floor:
        return True
    loss = new - old
    noise = loss.std(ddof=1) / np.sqrt(loss.size) if loss.size > 1 else 0.0
    return bool(loss.mean() <= tolerance * old.mean() + noise)
