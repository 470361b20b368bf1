"""Nudged elastic bands: the lowest path between two states, its saddle point and its barrier.

The band is moved on the committee's mean potential, all images in one prediction a step. First it
settles without climbing, then the highest image climbs to the saddle point (10.1063/1.1329672)
until the force on it is below `fmax`; the other images only carry it there and may keep up to
`_LOOSE * fmax`, which spares the long flat ends of a path. A band that folds back on itself at
the top is straightened and settles again; it never counts as converged. Forces and springs:
`band_forces.py`; first path: `band_path.py`; optimiser: `fire.py`.

With thresholds, a band that wanders where the committee breaks down stops at once and comes home as
it is: labels, not more steps, are what it needs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from ase import Atoms

from tace_al.core.errors import ConfigError, SamplerError
from tace_al.core.random_generators import random_generator
from tace_al.data.frames import bare_copy, fixed_mask
from tace_al.engines.sampling.band_forces import (
    band_forces,
    improved_tangents,
    is_folded,
    path_coordinate,
    spring_constants,
    unfolded,
)
from tace_al.engines.sampling.band_path import (
    comparable_ends,
    given_path,
    interpolated_path,
    is_free_molecule,
)
from tace_al.engines.sampling.fire import Fire
from tace_al.engines.sampling.path_barrier import highest_point
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.relax import relax
from tace_al.engines.sampling.sampler import Outcome, Thresholds, predicted_frame
from tace_al.model.prediction import Prediction

_LOOSE = 5.0
_SETTLED = 0.5  # eV/A, largest band force when climbing begins
_LARGEST_STEP = 0.05  # A


@dataclass(frozen=True, kw_only=True, slots=True)
class BandSettings:
    """How a band is built and moved.

    Parameters
    ----------
    num_images
        Images with both ends, at least 3.
    fmax
        Force on the climbing image at convergence (on every image without `climb`), in eV/A.
    max_steps
        Steps, one prediction of all inner images each.
    climb
        Let the highest image climb to the saddle point.
    relax_ends
        Relax both ends on the potential first, to the same `fmax`.
    stiff_spring, soft_spring
        Spring constants at the top and at the ends of the band, in eV/A^2.
    rattle
        Standard deviation in A of a first random push on the inner images, which takes a symmetric
        path off a ridge. 0: none.
    seed
        Of that push.
    """

    num_images: int = 9
    fmax: float = 0.05
    max_steps: int = 500
    climb: bool = True
    relax_ends: bool = False
    stiff_spring: float = 1.0
    soft_spring: float = 0.1
    rattle: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if self.num_images < 3:
            raise ConfigError(f"`num_images` is {self.num_images}; a band needs at least 3")
        if not self.fmax > 0.0:
            raise ConfigError(f"`fmax` is {self.fmax}; give a positive force in eV/A")
        if not self.stiff_spring >= self.soft_spring > 0.0:
            raise ConfigError("spring constants need `stiff_spring` >= `soft_spring` > 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class BandResult:
    """A band and what every member of the committee says along it.

    Parameters
    ----------
    images
        Both ends included, as `predicted_frame` makes them, with `image` in `info`.
    reaction_coordinate
        (images,) arc length in A.
    energies
        (images,) mean energies in eV.
    tangential_forces
        (images,) mean force along the path in eV/A; minus the slope of the energy.
    member_energies, member_tangential_forces
        (members, images), the same of each member.
    barrier, reverse_barrier
        Highest point of the interpolated mean energy above the first and last image, in eV.
    saddle
        The highest image; the saddle point once the band has converged by climbing.
    saddle_index
        Which image that is.
    converged
        Whether `fmax` was reached.
    steps
        Predictions of the whole band.
    fmax
        Largest band force at the end, on the climbing image while one climbs, in eV/A.
    outcome
        "broken" when it stopped because an image was, else the side of the band of the largest
        uncertainty; "known" without thresholds.
    max_uncertainty
        Largest force error bar along the band in eV/A.
    """

    images: tuple[Atoms, ...]
    reaction_coordinate: np.ndarray
    energies: np.ndarray
    tangential_forces: np.ndarray
    member_energies: np.ndarray
    member_tangential_forces: np.ndarray
    barrier: float
    reverse_barrier: float
    saddle: Atoms
    saddle_index: int
    converged: bool
    steps: int
    fmax: float
    outcome: Outcome
    max_uncertainty: float


def nudged_elastic_band(
    potential: Potential,
    initial: Atoms,
    final: Atoms,
    *,
    settings: BandSettings | None = None,
    thresholds: Thresholds | None = None,
    path: Sequence[Atoms] | None = None,
    watch: Callable[[Sequence[Atoms]], None] | None = None,
) -> BandResult:
    """Find the lowest path from `initial` to `final`.

    Parameters
    ----------
    potential
        What is asked for energies and forces of all images at once.
    thresholds
        Stop as soon as an image is broken.
    path
        Images to start from, both ends included; the ends are replaced by `initial` and `final`.
        Without it, IDPP.
    watch
        Called with the images before every step, to keep them for a later `path`.

    Raises
    ------
    StructureError
        The two states cannot be joined: other atoms, order, cell, periodicity or fixed atoms.
    SamplerError
        The potential predicts something that is not finite at an end state.
    """
    settings = settings or BandSettings()
    if settings.relax_ends:
        initial = relax(potential, initial, fmax=settings.fmax).final
        final = relax(potential, final, fmax=settings.fmax).final
    band = _Band(potential, initial, _first_path(initial, final, settings, path), settings)
    return band.optimised(thresholds, watch)


def _first_path(
    initial: Atoms, final: Atoms, settings: BandSettings, path: Sequence[Atoms] | None
) -> np.ndarray:
    """Return the (images, atoms, 3) positions a band starts from."""
    if path is None:
        last = comparable_ends(initial, final)
        positions = interpolated_path(initial, last, settings.num_images)
    else:
        positions = given_path([initial, *path[1:-1], final], settings.num_images)
    push = random_generator(settings.seed, "band").normal(size=positions[1:-1].shape)
    positions[1:-1] += settings.rattle * push * ~fixed_mask(initial)[:, None]
    return unfolded(positions)


@final
class _Band:
    """A path in flight: positions, predictions, and the forces between them."""

    def __init__(
        self, potential: Potential, template: Atoms, path: np.ndarray, settings: BandSettings
    ) -> None:
        self.potential = potential
        self.template = bare_copy(template)
        self.path = path
        self.settings = settings
        self.movable = ~fixed_mask(template)[:, None]
        self.rigid_free = is_free_molecule(template)
        self.predictions = self._predicted(range(len(path)))
        self.steps = 1
        ends = (self.predictions[0], self.predictions[-1])
        if not all(_finite(prediction) for prediction in ends):
            raise SamplerError(
                "the potential predicts energies or forces that are not finite at an end state of "
                "the band; retrain it, or check the end states"
            )

    def optimised(
        self,
        thresholds: Thresholds | None,
        watch: Callable[[Sequence[Atoms]], None] | None = None,
    ) -> BandResult:
        """Move the band until it has converged, breaks or runs out of steps."""
        settings = self.settings
        climbing, broken = False, False
        optimiser = Fire(_LARGEST_STEP)
        while True:
            if watch is not None:
                watch(self._frames(range(len(self.path))))
            broken = self._is_broken(thresholds)
            if broken:
                break
            forces = self._forces(climbing)
            largest = np.linalg.norm(forces, axis=2).max(axis=1)
            settled = largest.max() < max(_SETTLED, settings.fmax) and not self._is_folded()
            if settings.climb and not climbing and settled:
                climbing, optimiser = True, Fire(_LARGEST_STEP)
                continue
            if self._converged(largest, climbing) or self.steps >= settings.max_steps:
                break
            if self._is_folded():
                self.path, climbing, optimiser = unfolded(self.path), False, Fire(_LARGEST_STEP)
            else:
                self.path[1:-1] += optimiser.step(forces)
            self.predictions[1:-1] = self._predicted(range(1, len(self.path) - 1))
            self.steps += 1
        return self._result(climbing=climbing, broken=broken, thresholds=thresholds)

    def _predicted(self, indices: range) -> list[Prediction]:
        """Return the predictions of some images, asked for in one call."""
        return self.potential.predict(self._frames(indices))

    def _frames(self, indices: range) -> list[Atoms]:
        """Return some images as structures."""
        frames = []
        for index in indices:
            atoms = self.template.copy()
            atoms.set_positions(self.path[index], apply_constraint=False)
            frames.append(atoms)
        return frames

    def _energies(self) -> np.ndarray:
        return np.asarray([prediction.energy for prediction in self.predictions])

    def _forces(self, climbing: bool) -> np.ndarray:
        """Return the (images - 2, atoms, 3) band forces."""
        energies = self._energies()
        forces = np.asarray([prediction.forces for prediction in self.predictions])
        springs = spring_constants(
            energies, stiff=self.settings.stiff_spring, soft=self.settings.soft_spring
        )
        return band_forces(
            self.path,
            energies,
            forces * self.movable,
            springs=springs,
            climbing=climbing,
            rigid_free=self.rigid_free,
        )

    def _is_broken(self, thresholds: Thresholds | None) -> bool:
        """Return whether the potential has broken down on an image."""
        if not all(_finite(prediction) for prediction in self.predictions):
            return True
        if thresholds is None:
            return False
        return thresholds.outcome(self._max_uncertainty(thresholds)) == "broken"

    def _max_uncertainty(self, thresholds: Thresholds | None) -> float:
        thresholds = thresholds or Thresholds(low=0.0, high=np.inf)
        return max(thresholds.uncertainty(prediction) for prediction in self.predictions)

    def _is_folded(self) -> bool:
        """Return whether the path turns back at the top, where its tangent is needed most."""
        return is_folded(self.path, int(self._energies()[1:-1].argmax()) + 1)

    def _converged(self, largest: np.ndarray, climbing: bool) -> bool:
        """Return whether the (images - 2,) largest forces are small enough."""
        fmax = self.settings.fmax
        if self._is_folded():
            return False
        if not climbing:
            return not self.settings.climb and bool(largest.max() < fmax)
        top = int(self._energies()[1:-1].argmax())
        return bool(largest[top] < fmax and largest.max() < _LOOSE * fmax)

    def _result(self, *, climbing: bool, broken: bool, thresholds: Thresholds | None) -> BandResult:
        """Gather everything a caller may ask of the band as it stands."""
        energies = self._energies()
        coordinate = path_coordinate(self.path)
        tangents = improved_tangents(self.path, energies)
        member_forces = np.asarray([prediction.member_forces for prediction in self.predictions])
        along = np.einsum("imax,iax->mi", member_forces * self.movable, tangents)
        member_energies = np.asarray([p.member_energies for p in self.predictions]).T
        images = []
        for index, prediction in enumerate(self.predictions):
            atoms = self.template.copy()
            atoms.set_positions(self.path[index], apply_constraint=False)
            frame = predicted_frame(atoms, prediction, thresholds)
            frame.info["image"] = index
            images.append(frame)
        largest = np.linalg.norm(self._forces(climbing), axis=2).max(axis=1)
        top = int(energies[1:-1].argmax()) + 1
        uncertainty = self._max_uncertainty(thresholds)
        outcome: Outcome = "known" if thresholds is None else thresholds.outcome(uncertainty)
        highest = highest_point(coordinate, energies, along.mean(axis=0))
        return BandResult(
            images=tuple(images),
            reaction_coordinate=coordinate,
            energies=energies,
            tangential_forces=along.mean(axis=0),
            member_energies=member_energies,
            member_tangential_forces=along,
            barrier=highest - float(energies[0]),
            reverse_barrier=highest - float(energies[-1]),
            saddle=images[top],
            saddle_index=top,
            converged=not broken and self._converged(largest, climbing),
            steps=self.steps,
            fmax=float(largest[top - 1] if climbing else largest.max()),
            outcome="broken" if broken else outcome,
            max_uncertainty=uncertainty,
        )


def _finite(prediction: Prediction) -> bool:
    """Return whether every member's energy and forces are finite."""
    finite = np.isfinite(prediction.member_energies).all()
    return bool(finite and np.isfinite(prediction.member_forces).all())
