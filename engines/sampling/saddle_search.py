"""From one structure up to a saddle point: minimum-mode following, as the dimer method does.

With n the softest direction and F the force, the structure moves along

    F - 2 (F.n) n

uphill along n and downhill otherwise (Henkelman, Jonsson, 10.1063/1.480097): with FIRE where the
energy curves down along n; where it does not yet, at full length along n and a little down the
sides of the valley, so that the search does not leave it. n is found by Lanczos iterations
(`lowest_mode.py`), from the last n, every few steps; only two where a search was told how to leave.
A structure whose forces vanish where no direction curves down is a minimum, and is pushed along n;
where a second direction curves down, it is the top of a ridge, and is pushed along that one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from ase import Atoms

from tace_al.core.errors import ConfigError, SamplerError
from tace_al.core.random_generators import random_generator
from tace_al.data.frames import bare_copy, fixed_mask
from tace_al.engines.sampling.fire import Fire
from tace_al.engines.sampling.lowest_mode import Mode, lowest_mode, rigid_motions
from tace_al.engines.sampling.physical_checks import broken_reason
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.relax import relax
from tace_al.engines.sampling.sampler import Outcome, Thresholds, predicted_frame
from tace_al.model.prediction import Prediction

_PUSH = 0.1  # A
_RIDGE = -0.02  # eV/A^2, curvature of a second direction that is not noise
_SIDEWAYS = 0.02  # A^2/eV, step over force down the sides of a valley
_FIRST_PRODUCTS, _LATER_PRODUCTS = 30, 6
_LED_PRODUCTS = 2  # while the energy curves up along a direction that was asked for
_RUNAWAY_TEMPERATURE = 300.0  # K; momenta are zero, so it guards contacts and fragments alone


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSettings:
    """How a saddle point is searched.

    Parameters
    ----------
    fmax
        Largest force on an atom at the saddle point, in eV/A.
    max_steps
        Steps, one prediction each and two more for every look at the softest direction.
    largest_step
        Of an atom, in A.
    mode_every
        Steps from one look at the softest direction to the next, while it curves down.
    push
        Length in A of a first random displacement of the active atoms.
    max_separation
        A fragment further than this from the rest, in A, ends the search.
    seed
        Of the push and of the first direction.
    """

    fmax: float = 0.02
    max_steps: int = 500
    largest_step: float = 0.08
    mode_every: int = 3
    push: float = 0.05
    max_separation: float = 4.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if not (self.fmax > 0.0 and self.largest_step > 0.0 and self.push >= 0.0):
            raise ConfigError(
                f"`fmax` {self.fmax}, `largest_step` {self.largest_step} and `push` {self.push} "
                "make no search; give positive numbers"
            )
        if self.max_steps < 1 or self.mode_every < 1:
            raise ConfigError("`max_steps` and `mode_every` are counts; give at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchResult:
    """Where a search ended.

    Parameters
    ----------
    frames
        Every structure visited, as `predicted_frame` makes them, with `curvature` in `info`.
    saddle
        The last of them; a saddle point if it converged.
    mode
        The softest direction there.
    converged
        Forces below `fmax` where the energy curves down along the mode.
    steps
        Steps taken.
    fmax
        Largest force on a movable atom at the end, in eV/A.
    outcome
        "broken" when it stopped on a broken frame (not among the frames), else the side of the
        largest uncertainty; "known" without thresholds.
    reason
        One clause on why it ended.
    """

    frames: tuple[Atoms, ...]
    saddle: Atoms
    mode: Mode
    converged: bool
    steps: int
    fmax: float
    outcome: Outcome
    reason: str


def search_saddle(
    potential: Potential,
    atoms: Atoms,
    *,
    settings: SearchSettings | None = None,
    active: Sequence[int] | None = None,
    direction: np.ndarray | None = None,
    thresholds: Thresholds | None = None,
    watch: Callable[[Atoms, np.ndarray], None] | None = None,
) -> SearchResult:
    """Climb to a saddle point near a structure.

    Parameters
    ----------
    active
        Atoms that the push and the first direction move; default all that are free, and then the
        search leaves along the softest direction of all.
    direction
        (atoms, 3) to start along, in place of a random one; then there is no push.
    thresholds
        Stop as soon as a frame is broken.
    watch
        Called with structure and direction after every step, to go on from there later.

    Raises
    ------
    SamplerError
        Nothing can move, or the first prediction is not finite.
    """
    settings = settings or SearchSettings()
    start, first = bare_copy(atoms), direction
    if first is None:
        first = _random_direction(start, active, settings.seed)
        push = settings.push * first / np.linalg.norm(first)
        start.set_positions(start.positions + push, apply_constraint=False)
    led = active is not None or direction is not None
    return _Search(potential, start, settings, thresholds).run(first, watch, led=led)


def slide_down(
    potential: Potential, saddle: Atoms, mode: np.ndarray, *, fmax: float = 0.02, step: float = 0.1
) -> tuple[Atoms, Atoms]:
    """Return the minima on both sides of a saddle point.

    Parameters
    ----------
    mode
        (atoms, 3) of unit length, along which the energy curves down.
    step
        First displacement to either side, in A.

    Raises
    ------
    SamplerError
        A side does not relax.
    """
    sides = []
    for sign in (-1.0, 1.0):
        start = bare_copy(saddle)
        start.set_positions(saddle.positions + sign * step * mode, apply_constraint=False)
        found = relax(potential, start, fmax=fmax, max_steps=1000)
        if not found.converged:
            raise SamplerError(
                f"one side of the saddle point does not relax: {found.fmax:.3f} eV/A is left "
                f"after {found.steps} steps; look at it"
            )
        sides.append(found.final)
    return sides[0], sides[1]


def _random_direction(atoms: Atoms, active: Sequence[int] | None, seed: int) -> np.ndarray:
    """Return (atoms, 3) normal numbers on the active atoms, without rigid motion."""
    movable = ~fixed_mask(atoms)
    if active is not None:
        chosen = np.zeros(len(atoms), dtype=bool)
        try:
            chosen[list(active)] = True
        except IndexError as error:
            raise ConfigError(
                f"active atoms {list(active)} are not all there; give indices from 0 to "
                f"{len(atoms) - 1}"
            ) from error
        movable &= chosen
    if not movable.any():
        raise SamplerError("no atom can move; free some atoms, or name others as active")
    drawn = random_generator(seed, "saddle").normal(size=(len(atoms), 3)) * movable[:, None]
    rigid = rigid_motions(atoms)
    flat = drawn.ravel()
    result: np.ndarray = (flat - rigid @ (rigid.T @ flat)).reshape(-1, 3)
    return result


@final
class _Search:
    """A search in flight."""

    def __init__(
        self,
        potential: Potential,
        atoms: Atoms,
        settings: SearchSettings,
        thresholds: Thresholds | None,
    ) -> None:
        self.potential = potential
        self.atoms = atoms
        self.settings = settings
        self.thresholds = thresholds
        self.movable = ~fixed_mask(atoms)[:, None]
        self.frames: list[Atoms] = []
        self.worst = 0.0
        self.products = 0

    def run(
        self,
        direction: np.ndarray,
        watch: Callable[[Atoms, np.ndarray], None] | None,
        *,
        led: bool,
    ) -> SearchResult:
        """Climb until the forces vanish, something breaks or the steps are used up."""
        settings = self.settings
        mode = self._mode(direction, _LED_PRODUCTS if led else _FIRST_PRODUCTS)
        optimiser, step, reason = Fire(settings.largest_step), 0, ""
        prediction, second = self._look(mode), None
        while isinstance(prediction, Prediction):
            forces = prediction.forces * self.movable
            largest = float(np.linalg.norm(forces, axis=1).max())
            if largest < settings.fmax:
                mode = self._mode(mode.direction, _FIRST_PRODUCTS)
                second = self._second_mode(mode)
                if mode.curvature < 0.0 and second is None:
                    return self._result(mode, step, largest, reason="forces vanish", broken=False)
            if step >= settings.max_steps:
                reason = f"{step} steps are used up"
                return self._result(mode, step, largest, reason=reason, broken=False)
            if second is None:
                self._move(forces, largest, mode, optimiser)
            else:
                self._shift(_PUSH * second.direction)
                optimiser, second = Fire(settings.largest_step), None
            step += 1
            if step % settings.mode_every == 0 or mode.curvature > 0.0:
                few = led and mode.curvature > 0.0
                mode = self._mode(mode.direction, _LED_PRODUCTS if few else _LATER_PRODUCTS)
            if watch is not None:
                watch(self.atoms, mode.direction)
            prediction = self._look(mode)
        if not self.frames:
            raise SamplerError(f"a saddle search cannot start here: {prediction}")
        return self._result(mode, step, np.inf, reason=prediction, broken=True)

    def _move(self, forces: np.ndarray, largest: float, mode: Mode, optimiser: Fire) -> None:
        """Take one step."""
        uphill = -float((forces * mode.direction).sum()) * mode.direction
        if mode.curvature < 0.0:
            step = optimiser.step(forces + 2.0 * uphill)
        elif largest < self.settings.fmax:
            step = _PUSH * mode.direction  # a minimum: there is no slope to climb along
        else:
            # straight up, at full length: FIRE would creep where slopes are small
            length = self.settings.largest_step / np.abs(mode.direction).max()
            along = float((uphill * mode.direction).sum())
            sideways = forces + uphill
            sideways *= min(_SIDEWAYS, length / max(float(np.abs(sideways).max()), 1e-9))
            step = length * (1.0 if along >= 0.0 else -1.0) * mode.direction + sideways
            optimiser.velocity = None
        self._shift(step)

    def _shift(self, step: np.ndarray) -> None:
        """Move the atoms."""
        self.atoms.set_positions(self.atoms.positions + step, apply_constraint=False)

    def _second_mode(self, mode: Mode) -> Mode | None:
        """Return the softest direction beside one that curves down, if that curves down too."""
        num_free = 3 * int(self.movable.sum()) - rigid_motions(self.atoms).shape[1]
        if mode.curvature >= 0.0 or num_free < 2:
            return None
        second = lowest_mode(
            self.potential,
            self.atoms,
            _random_direction(self.atoms, None, self.settings.seed),
            max_products=_FIRST_PRODUCTS,
            besides=mode.direction,
        )
        self.products += second.num_products
        return second if second.curvature < _RIDGE else None

    def _mode(self, guess: np.ndarray, max_products: int) -> Mode:
        """Return the softest direction here."""
        mode = lowest_mode(self.potential, self.atoms, guess, max_products=max_products)
        self.products += mode.num_products
        return mode

    def _look(self, mode: Mode) -> Prediction | str:
        """Keep the frame and return what is predicted, or why it is broken."""
        (prediction,) = self.potential.predict([self.atoms])
        reason = broken_reason(
            self.atoms,
            prediction,
            temperature=_RUNAWAY_TEMPERATURE,
            max_separation=self.settings.max_separation,
        )
        if reason is not None:
            return reason
        frame = predicted_frame(self.atoms, prediction, self.thresholds)
        self.worst = max(self.worst, frame.info["uncertainty"])
        if self.thresholds is not None and self.thresholds.outcome(self.worst) == "broken":
            return f"the force error bar of {self.worst:.2f} eV/A is above the reject level"
        frame.info["curvature"] = mode.curvature
        frame.info["step"] = len(self.frames)
        self.frames.append(frame)
        return prediction

    def _result(
        self, mode: Mode, step: int, largest: float, *, reason: str, broken: bool
    ) -> SearchResult:
        """Return where the search stands."""
        outcome: Outcome = "known"
        if self.thresholds is not None:
            outcome = self.thresholds.outcome(self.worst)
        return SearchResult(
            frames=tuple(self.frames),
            saddle=self.frames[-1],
            mode=replace(mode, num_products=self.products),
            converged=reason == "forces vanish",
            steps=step,
            fmax=largest,
            outcome="broken" if broken else outcome,
            reason=reason,
        )
