"""A result of the mean potential beside those of each committee member."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberValues:
    """One quantity, of any shape, and what each member says about it.

    Parameters
    ----------
    value
        From the mean potential.
    members
        (members, ...) from each member's own.
    """

    value: np.ndarray
    members: np.ndarray

    @classmethod
    def of(cls, values: Sequence[np.ndarray | float]) -> "MemberValues":
        """Return them from [mean potential, member, member, ...], or from one potential alone."""
        first, *rest = (np.asarray(value, dtype=float) for value in values)
        return cls(value=first, members=np.asarray(rest or [first]))

    @property
    def spread(self) -> np.ndarray:
        """Standard deviation of the members (population form), 0 for one member.

        >>> MemberValues.of([2.0, 1.0, 3.0]).spread.item()
        1.0
        """
        return self.members.std(axis=0)
