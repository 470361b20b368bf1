"""Barriers with error bars from the energies of a committee along a path.

A nudged elastic band is converged on the committee's mean potential. Along it each member m has its
own energy profile E_m(s), with its own interpolated maximum, and so its own barrier

    b_m = max_s E_m(s) - E_m(s_initial).

The barrier is that of the mean profile, which is what the band was converged on and where the
saddle point sits; the standard deviation of the b_m is the spread. Each member's true saddle point
lies off the shared path by a displacement of the order of its deviation from the mean. Saddle and
minima of the mean are stationary, so this shifts b_m in second order only, by about g H^-1 g / 2
with g = grad(E_m - mean): to first order a member's barrier needs no band of its own.

Profiles are interpolated by cubic Hermite pieces through energies and slopes -F.t (as in Henkelman
and Jonsson 2000, doi:10.1063/1.1323224), or, without forces, by a cubic spline that is level at
both ends, which are minima. Maxima of the pieces are exact, not sampled. The path coordinate is the
arc length in 3N Cartesian dimensions, in Angstrom.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from scipy.interpolate import CubicHermiteSpline, CubicSpline, PPoly


@dataclass(frozen=True, kw_only=True, slots=True)
class EnergyProfile:
    """A path's energies on a fine grid.

    Parameters
    ----------
    coordinate
        (points,) path coordinate in Angstrom.
    energies
        (points,) in eV, absolute.
    """

    coordinate: np.ndarray
    energies: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True)
class BarrierEstimate:
    """A barrier, how far the committee disagrees about it and what the labeller says; all in eV.

    Parameters
    ----------
    forward, reverse
        Highest point of the mean profile above its first and last image.
    spread, reverse_spread
        Standard deviation of the members' forward and reverse barriers (population form).
    error, reverse_error
        Calibrated error bars: the spreads times the calibration's energy scale.
    members
        Forward barrier of each member.
    saddle_coordinate
        Where the mean profile is highest, in Angstrom along the path.
    saddle_image
        The image nearest to it.
    has_saddle
        False when the highest point is an end of the path: there is no barrier between the ends.
    label_forward
        The labeller's own energy difference between the model's saddle point and its initial
        state, or None when not labelled.
    """

    forward: float
    reverse: float
    spread: float
    reverse_spread: float
    error: float
    reverse_error: float
    members: tuple[float, ...]
    saddle_coordinate: float
    saddle_image: int
    has_saddle: bool
    label_forward: float | None = None

    @property
    def deviation(self) -> float | None:
        """The model's barrier minus the labeller's at the same two geometries, None unlabelled."""
        return None if self.label_forward is None else self.forward - self.label_forward

    def with_labels(self, *, saddle_energy: float, initial_energy: float) -> "BarrierEstimate":
        """Return the estimate with the labeller's energies, in eV, at the same two geometries."""
        return replace(self, label_forward=float(saddle_energy - initial_energy))


def barrier_from_members(
    member_energies: np.ndarray,
    reaction_coordinate: np.ndarray,
    *,
    member_tangential_forces: np.ndarray | None = None,
    energy_scale: float = 1.0,
    energy_floor: float = 0.0,
) -> BarrierEstimate:
    """Return the barrier of a converged path with its committee error bar.

    Parameters
    ----------
    member_energies
        (members, images) total energies in eV along the path of the mean.
    reaction_coordinate
        (images,) increasing, in Angstrom; see `path_tangents`.
    member_tangential_forces
        (members, images) forces along the path in eV/Angstrom, -dE/ds, or None.
    energy_scale, energy_floor
        Of the committee's calibration: error = scale * max(spread, floor).
    """
    energies = np.atleast_2d(np.asarray(member_energies, dtype=float))
    coordinate = np.asarray(reaction_coordinate, dtype=float)
    if member_tangential_forces is None:
        slopes, mean_slopes = [None] * len(energies), None
    else:
        forces = np.atleast_2d(np.asarray(member_tangential_forces, dtype=float))
        if forces.shape != energies.shape:
            raise ValueError(
                f"`member_tangential_forces` has shape {forces.shape} and `member_energies` "
                f"{energies.shape}; pass one force along the path for each energy"
            )
        slopes, mean_slopes = list(forces), forces.mean(axis=0)
    mean = energies.mean(axis=0)
    saddle, top = highest_point(coordinate, mean, mean_slopes)
    tops = np.asarray(
        [highest_point(coordinate, *member)[1] for member in zip(energies, slopes, strict=True)]
    )
    members = tops - energies[:, 0]
    reverse_members = tops - energies[:, -1]
    spread, reverse_spread = float(members.std()), float(reverse_members.std())
    return BarrierEstimate(
        forward=top - float(mean[0]),
        reverse=top - float(mean[-1]),
        spread=spread,
        reverse_spread=reverse_spread,
        error=energy_scale * max(spread, energy_floor),
        reverse_error=energy_scale * max(reverse_spread, energy_floor),
        members=tuple(members.tolist()),
        saddle_coordinate=saddle,
        saddle_image=int(np.argmin(np.abs(coordinate - saddle))),
        has_saddle=bool(coordinate[0] < saddle < coordinate[-1]),
    )


def energy_profile(
    reaction_coordinate: np.ndarray,
    energies: np.ndarray,
    tangential_forces: np.ndarray | None = None,
    *,
    num_points: int = 201,
) -> EnergyProfile:
    """Return a smooth curve through the energies of a path, for figures.

    Parameters
    ----------
    reaction_coordinate
        (images,) increasing, in Angstrom.
    energies
        (images,) in eV.
    tangential_forces
        (images,) -dE/ds in eV/Angstrom, or None for a spline that is level at both ends.
    num_points
        Points of the curve, ends included.
    """
    curve = _curve(reaction_coordinate, energies, tangential_forces)
    fine = np.linspace(curve.x[0], curve.x[-1], num_points)
    return EnergyProfile(coordinate=fine, energies=np.asarray(curve(fine)))


def highest_point(
    reaction_coordinate: np.ndarray,
    energies: np.ndarray,
    tangential_forces: np.ndarray | None = None,
) -> tuple[float, float]:
    """Return coordinate (Angstrom) and energy (eV) of the highest point of the smooth profile."""
    curve = _curve(reaction_coordinate, energies, tangential_forces)
    level = np.asarray(curve.derivative().roots(extrapolate=False), dtype=float)
    # A piece that is level throughout gives NaN; its ends are among the images.
    points = np.concatenate([curve.x, level[np.isfinite(level)]])
    heights = np.asarray(curve(points))
    index = int(np.argmax(heights))
    return float(points[index]), float(heights[index])


def path_tangents(images: Sequence[Atoms]) -> tuple[np.ndarray, np.ndarray]:
    """Return the arc length of each image and the path's derivative dx/ds there.

    Steps between images are minimum-image displacements in periodic directions. The derivative is
    that of a cubic spline through the positions, so -F.dx/ds is the slope of the energy along that
    very curve.

    Returns
    -------
    coordinate
        (images,) in Angstrom, 0 at the first image.
    tangents
        (images, atoms, 3), of length close to 1.
    """
    if len(images) < 2:
        raise ValueError(f"a path of {len(images)} images has no length; pass at least 2")
    positions = [images[0].positions]
    for before, after in pairwise(images):
        step = after.positions - before.positions
        if before.pbc.any():
            step = find_mic(step, before.cell, before.pbc)[0]
        positions.append(positions[-1] + step)
    path = np.asarray(positions)
    lengths = np.linalg.norm(np.diff(path, axis=0).reshape(len(path) - 1, -1), axis=1)
    if not (lengths > 0).all():
        raise ValueError("two neighbouring images of the path are the same; remove one of them")
    coordinate = np.concatenate([[0.0], np.cumsum(lengths)])
    tangents = CubicSpline(coordinate, path, axis=0)(coordinate, 1)
    return coordinate, np.asarray(tangents)


def tangential_forces(member_forces: np.ndarray, tangents: np.ndarray) -> np.ndarray:
    """Return forces along the path, -dE/ds in eV/Angstrom.

    Parameters
    ----------
    member_forces
        (members, images, atoms, 3) in eV/Angstrom; forces of fixed atoms do no harm, they do not
        move along the path.
    tangents
        (images, atoms, 3) from `path_tangents`.

    Returns
    -------
    (members, images).
    """
    return np.einsum("miax,iax->mi", np.asarray(member_forces, dtype=float), tangents)


def _curve(
    reaction_coordinate: np.ndarray, energies: np.ndarray, forces: np.ndarray | None
) -> PPoly:
    """Return the piecewise cubic through a profile."""
    coordinate = np.asarray(reaction_coordinate, dtype=float)
    energies = np.asarray(energies, dtype=float)
    if coordinate.shape != energies.shape or coordinate.ndim != 1 or len(coordinate) < 2:
        raise ValueError(
            f"the path has coordinates of shape {coordinate.shape} and energies of shape "
            f"{energies.shape}, expected (images,) for both and at least 2 images"
        )
    if not np.isfinite(energies).all():
        raise ValueError("an energy along the path is not finite; the path has left known ground")
    if not (np.diff(coordinate) > 0).all():
        raise ValueError("`reaction_coordinate` must increase from image to image")
    if forces is None:
        return CubicSpline(coordinate, energies, bc_type="clamped")
    return CubicHermiteSpline(coordinate, energies, -np.asarray(forces, dtype=float))
