"""Walkers of batched dynamics: how one starts, when it stops, what it brings home.

A stop condition is any callable that looks at a `Snapshot` and answers `Stop` or None. Two ship:
`UncertaintyAbove` for what a committee does not know, `Unphysical` for what is no physics.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Literal, final

import numpy as np
from ase import Atoms, units
from ase.constraints import FixAtoms

from tace_al.core.errors import ConfigError, SamplerError
from tace_al.data.conditions import CONDITIONS
from tace_al.data.frames import bare_copy, fixed_mask
from tace_al.engines.sampling.physical_checks import broken_reason
from tace_al.model.prediction import Prediction


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A walker after a step; its frame is the walker's own, to be read and never changed.

    Parameters
    ----------
    atoms
        Positions and momenta, fixed atoms included.
    prediction
        What the potential says about them.
    step, time_fs
        Steps and time since the start.
    temperature, bath_temperature
        Of the momenta and of the thermostat, in K.
    uncertainty
        Largest force spread of an atom in eV/A, 0 without a committee.
    conserved
        Energy in eV that dynamics keeps but for the error in the time step, its bath included.
    """

    atoms: Atoms
    prediction: Prediction
    step: int
    time_fs: float
    temperature: float
    bath_temperature: float
    uncertainty: float
    conserved: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop:
    """Why a walker ends: one clause, and whether its last frame is worth keeping."""

    reason: str
    broken: bool = False


StopCondition = Callable[[Snapshot], Stop | None]


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class UncertaintyAbove:
    """Stops where the largest force error bar, `scale` times the force spread, is above a limit.

    Parameters
    ----------
    limit
        eV/A.
    scale
        Calibration of the committee.
    """

    limit: float
    scale: float = 1.0

    def __call__(self, snapshot: Snapshot) -> Stop | None:
        """Judge one step."""
        bar = self.scale * snapshot.uncertainty
        if bar <= self.limit:
            return None
        return Stop(reason=f"the force error bar of {bar:.2f} eV/A is above {self.limit:.2f}")


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Unphysical:
    """Stops a walker whose atoms overlap, boil or have flown apart.

    Parameters
    ----------
    max_separation
        Largest gap in A between a fragment and the rest.
    every
        Steps from one look to the next.
    """

    max_separation: float = 8.0
    every: int = 1

    def __call__(self, snapshot: Snapshot) -> Stop | None:
        """Judge one step."""
        if snapshot.step % self.every:
            return None
        reason = broken_reason(
            snapshot.atoms,
            snapshot.prediction,
            temperature=snapshot.bath_temperature,
            max_separation=self.max_separation,
        )
        return None if reason is None else Stop(reason=reason, broken=True)


@final
@dataclass(frozen=True, slots=True)
class Walker:
    """One start of batched dynamics.

    Parameters
    ----------
    atoms
        Structure, with its masses and `FixAtoms`. It goes on with momenta it has; else they are
        drawn at `temperature`.
    steps
        How far it goes.
    temperature, temperature_end
        Of the thermostat in K at the first and last step, linear between; constant without the
        second.
    pressure, pressure_end
        Of a barostat in eV/A^3, in the same way; for integrators that move the cell.
    seed
        Of momenta and noise; nothing else decides them, neither place nor company in the batch.
    stops
        When it ends before its last step; the first that answers decides.
    """

    atoms: Atoms
    _: KW_ONLY
    steps: int
    temperature: float = 300.0
    temperature_end: float | None = None
    pressure: float = 0.0
    pressure_end: float | None = None
    seed: int = 0
    stops: tuple[StopCondition, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot start."""
        for name in ("steps", "temperature", "temperature_end"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"`{name}` is {value}; give a positive number")
        if len(self.atoms) == 0:
            raise SamplerError("a walker has no atoms; leave it out")
        for constraint in self.atoms.constraints:
            if not isinstance(constraint, FixAtoms):
                raise SamplerError(
                    f"a walker has a {type(constraint).__name__} constraint; batched dynamics "
                    "knows FixAtoms alone: remove it, or use an integrator of ASE"
                )

    def temperature_at(self, step: int) -> float:
        """Return the thermostat's temperature in K at a step."""
        if self.temperature_end is None:
            return self.temperature
        return self.temperature + (self.temperature_end - self.temperature) * step / self.steps

    def pressure_at(self, step: int) -> float:
        """Return the barostat's pressure in eV/A^3 at a step."""
        if self.pressure_end is None:
            return self.pressure
        return self.pressure + (self.pressure_end - self.pressure) * step / self.steps


@dataclass(frozen=True, kw_only=True, slots=True)
class Trajectory:
    """What a walker brings home.

    Parameters
    ----------
    frames
        Every so many steps one, as `predicted_frame` makes it, with momenta and with `step`,
        `time_fs`, `temperature` and `conserved` in `info`.
    trigger
        The frame at which a condition stopped the walker, with `reason` too; None when all steps
        were done or the frame is broken.
    outcome
        "running", "done" with all steps, "stopped" by a condition, or "broken".
    reason
        One clause on why it ended.
    steps
        Steps whose frames are good.
    final
        The last good frame with its momenta, from where the walker may go on.
    max_uncertainty
        Largest force spread of an atom that was seen, in eV/A.
    """

    frames: tuple[Atoms, ...]
    trigger: Atoms | None
    outcome: Literal["running", "done", "stopped", "broken"]
    reason: str
    steps: int
    final: Atoms
    max_uncertainty: float


def moving_copy(
    atoms: Atoms,
    positions: np.ndarray | None = None,
    momenta: np.ndarray | None = None,
    *,
    cell: np.ndarray | None = None,
) -> Atoms:
    """Return a bare copy with masses, momenta and conditions, elsewhere if positions are given."""
    copy = bare_copy(atoms)
    if cell is not None:
        copy.set_cell(cell)
    if positions is not None:
        copy.set_positions(positions, apply_constraint=False)
    carry_on(atoms, copy)
    momenta = atoms.get_momenta() if momenta is None else momenta
    copy.set_momenta(momenta, apply_constraint=False)
    return copy


def carry_on(atoms: Atoms, copy: Atoms) -> None:
    """Give a bare copy the masses and the conditions that potentials read."""
    if atoms.has("masses"):
        copy.set_masses(atoms.get_masses())
    for condition in CONDITIONS.values():
        for name in (condition.name, *condition.aliases):
            if condition.per == "structure" and name in atoms.info:
                copy.info[name] = atoms.info[name]
            if condition.per == "atom" and atoms.has(name):
                copy.set_array(name, atoms.get_array(name))


def starting_momenta(walker: Walker, rng: np.random.Generator, *, still: bool) -> np.ndarray:
    """Return the structure's own momenta, or Maxwell-Boltzmann ones where it has none.

    Parameters
    ----------
    still
        Draw without overall motion, where nothing is fixed.
    """
    atoms = walker.atoms
    momenta = np.array(atoms.get_momenta())
    drawn = not momenta.any()
    if drawn:
        widths = np.sqrt(atoms.get_masses() * units.kB * walker.temperature)
        momenta = widths[:, None] * rng.standard_normal((len(atoms), 3))
    momenta[fixed_mask(atoms)] = 0.0
    return without_overall_motion(atoms, momenta) if drawn and still else momenta


def without_overall_motion(atoms: Atoms, momenta: np.ndarray) -> np.ndarray:
    """Return momenta that neither drift nor, for a free molecule, turn; as they are if held."""
    if fixed_mask(atoms).any():
        return momenta
    masses = atoms.get_masses()[:, None]
    momenta = momenta - momenta.sum(axis=0) * masses / masses.sum()
    if atoms.pbc.any() or len(atoms) == 1:
        return momenta
    arms = atoms.positions - atoms.get_center_of_mass()
    inertia = np.einsum("a,axy->xy", masses[:, 0], _inertia(arms))
    turning = np.linalg.pinv(inertia, rcond=1e-9, hermitian=True) @ np.cross(arms, momenta).sum(0)
    return momenta - masses * np.cross(turning, arms)


def degrees_of_freedom(atoms: Atoms, *, still: bool) -> int:
    """Return how many momenta are free, less those of overall motion where it is `still`."""
    fixed = fixed_mask(atoms)
    count = 3 * int((~fixed).sum())
    if not still or fixed.any():
        return count
    if atoms.pbc.any():
        return count - 3
    return {1: 0, 2: 1}.get(len(atoms), count - 6)


def _inertia(arms: np.ndarray) -> np.ndarray:
    """Return (atoms, 3, 3) r^2 - r r of each atom."""
    squares = (arms**2).sum(axis=1)
    return squares[:, None, None] * np.eye(3) - arms[:, :, None] * arms[:, None, :]
