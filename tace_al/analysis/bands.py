"""Paths through the Brillouin zone and the frequencies of every committee member along them.

The path is seekpath's (Hinuma et al., doi:10.1016/j.commatsci.2016.10.015), its points written in
the reciprocal basis of the primitive cell in use, whatever its orientation and choice of vectors.
Bands are sorted by frequency at each q-point: a spread is that of the n-th frequency.
"""

from dataclasses import dataclass

import numpy as np
import seekpath
from phonopy.structure.atoms import PhonopyAtoms

from tace_al.analysis.member_values import MemberValues
from tace_al.analysis.supercells import SYMMETRY_PRECISION, quiet

SPACING = 0.005
"""Step between q-points in 1/Angstrom (without 2 pi)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PathSegment:
    """A straight line between two high-symmetry points.

    Parameters
    ----------
    start, end
        Their labels, such as "Γ" and "X".
    q_points
        (points, 3) in the reciprocal basis of the primitive cell.
    distances
        (points,) in 1/Angstrom, without 2 pi, from the beginning of the whole path; a jump between
        segments has no length.
    """

    start: str
    end: str
    q_points: np.ndarray
    distances: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True)
class Bands:
    """Frequencies along a path.

    Parameters
    ----------
    segments
        The path.
    frequencies
        One a segment, each (points, bands) in THz; imaginary frequencies are negative.
    """

    segments: tuple[PathSegment, ...]
    frequencies: tuple[MemberValues, ...]

    @property
    def labels(self) -> list[str]:
        """Return the labels of the path, with "|" where it jumps: Γ, X, U|K, Γ, L."""
        names = [self.segments[0].start]
        for index, segment in enumerate(self.segments):
            after = self.segments[index + 1].start if index + 1 < len(self.segments) else None
            jump = after is not None and after != segment.end
            names.append(f"{segment.end}|{after}" if jump else segment.end)
        return names

    @property
    def max_spread(self) -> float:
        """Largest standard deviation among the members in THz, anywhere on the path."""
        return max(float(values.spread.max()) for values in self.frequencies)

    @property
    def rms_spread(self) -> float:
        """Root mean square standard deviation over all bands and points in THz."""
        spreads = np.concatenate([values.spread.ravel() for values in self.frequencies])
        return float(np.sqrt(np.mean(spreads**2)))


def band_path(primitive: PhonopyAtoms, *, spacing: float = SPACING) -> tuple[PathSegment, ...]:
    """Return seekpath's path for a primitive cell.

    Parameters
    ----------
    primitive
        The cell whose reciprocal basis the q-points are in.
    spacing
        Largest step in 1/Angstrom, without 2 pi; a segment has at least 2 points.
    """
    with quiet():
        found = seekpath.get_path_orig_cell(
            (primitive.cell, primitive.scaled_positions, primitive.numbers),
            symprec=SYMMETRY_PRECISION,
        )
    reciprocal = np.linalg.inv(np.asarray(primitive.cell)).T
    points = {name: np.asarray(point) for name, point in found["point_coords"].items()}
    segments = []
    begin = 0.0
    for start, end in found["path"]:
        length = float(np.linalg.norm((points[end] - points[start]) @ reciprocal))
        fractions = np.linspace(0.0, 1.0, max(2, int(np.ceil(length / spacing)) + 1))
        segments.append(
            PathSegment(
                start=_readable(start),
                end=_readable(end),
                q_points=points[start] + fractions[:, None] * (points[end] - points[start]),
                distances=begin + length * fractions,
            )
        )
        begin += length
    return tuple(segments)


def _readable(label: str) -> str:
    """Return the name of a point as it is written in figures.

    >>> _readable("GAMMA"), _readable("X_1")
    ('Γ', 'X₁')
    """
    subscripts = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
    name, _, number = label.replace("GAMMA", "Γ").replace("SIGMA", "Σ").partition("_")
    return name + number.translate(subscripts)
