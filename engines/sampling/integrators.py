"""Integrators of many walkers at once: constant energy, Langevin, Nose-Hoover chains.

Every step is one force evaluation in the middle: `before_forces` takes positions to the end of the
step, `after_forces` the momenta. Walkers lie end to end in flat arrays, and each number of a walker
is computed from its own numbers alone, so that it does not depend on who else is there.

constant energy    velocity Verlet: B A B, with B p += F dt/2 and A r += p dt/m.
Langevin           B A' O A' B, "BAOAB" of Leimkuhler and Matthews (10.1093/amrx/abs010), A' half a
                   drift and O p <- c p + sqrt((1 - c^2) m kT) x, c = exp(-gamma dt), x normal.
                   Chosen because averages over positions carry the smallest error in dt of all
                   such splittings (none for a harmonic well); momenta at full steps are colder, by
                   1 - (omega dt)^2 / 4 for a frequency omega. ASE's Langevin integrates the same
                   equation to second order as well, but needs two normal numbers.
Nose-Hoover chain  half a chain, velocity Verlet, half a chain (Martyna et al.,
                   10.1080/00268979600100761), Q_1 = N_f kT tau^2, Q_j = kT tau^2. Deterministic.

Momenta are in ASE's unit, energies eV, masses amu; times are given in fs.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar, final

import numpy as np
from ase import units

from tace_al.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """Where some walkers are, end to end; arrays are replaced, never changed.

    Parameters
    ----------
    positions, momenta, forces
        (atoms, 3); forces and momenta of fixed atoms are zero.
    masses, free
        (atoms, 1); `free` is 0 for a fixed atom, else 1.
    walker_index
        (atoms,) ascending.
    steps
        (walkers,) steps behind each walker.
    degrees_of_freedom
        (walkers,) of the momenta that the integrator reaches.
    heat
        (walkers,) energy that a stochastic bath has given, in eV.
    chain
        (walkers, 2, links) positions and velocities of a Nose-Hoover chain.
    cells, stress
        (walkers, 3, 3) lattice vectors in rows, and the potential's stress in eV/A^3, zero where
        the integrator does not move cells.
    pressure
        (walkers,) of a barostat in eV/A^3.
    strain_momenta, strain_noise
        (walkers, 3) momenta of the cell along x, y, z, and their normal numbers of this step.
    """

    positions: np.ndarray
    momenta: np.ndarray
    forces: np.ndarray
    masses: np.ndarray
    free: np.ndarray
    walker_index: np.ndarray
    steps: np.ndarray
    degrees_of_freedom: np.ndarray
    heat: np.ndarray
    chain: np.ndarray
    cells: np.ndarray
    stress: np.ndarray
    pressure: np.ndarray
    strain_momenta: np.ndarray
    strain_noise: np.ndarray

    @property
    def num_walkers(self) -> int:
        """Number of walkers."""
        return len(self.steps)

    def kinetic_energy(self) -> np.ndarray:
        """Return (walkers,) kinetic energies in eV."""
        each = (self.momenta**2 / self.masses).sum(axis=1)
        return 0.5 * self.summed(each)

    def temperature(self) -> np.ndarray:
        """Return (walkers,) kinetic temperatures in K, 0 where nothing may move."""
        freedom = np.maximum(self.degrees_of_freedom, 1)
        return 2.0 * self.kinetic_energy() / (freedom * units.kB)

    def summed(self, values: np.ndarray) -> np.ndarray:
        """Return (walkers,) sums over atoms, each in the order of its own atoms."""
        return np.bincount(self.walker_index, weights=values, minlength=self.num_walkers)

    def slices(self) -> list[slice]:
        """Return where the atoms of each walker are."""
        counts = np.bincount(self.walker_index, minlength=self.num_walkers)
        ends = np.cumsum(counts)
        return [slice(*pair) for pair in zip((ends - counts).tolist(), ends.tolist(), strict=True)]

    def only(self, kept: np.ndarray) -> "Phase":
        """Return the walkers of a mask, (walkers,) booleans."""
        atoms = kept[self.walker_index]
        values = {
            name: getattr(self, name)[atoms if name in _PER_ATOM else kept] for name in _NAMES
        }
        values["walker_index"] = (np.cumsum(kept) - 1)[values["walker_index"]]
        return Phase(**values)

    def split(self) -> list["Phase"]:
        """Return each walker by itself."""
        parts = []
        for index, atoms in enumerate(self.slices()):
            own = slice(index, index + 1)
            values = {  # copies: a walker that has left must not keep the whole batch alive
                name: getattr(self, name)[atoms if name in _PER_ATOM else own].copy()
                for name in _NAMES
            }
            values["walker_index"][:] = 0
            parts.append(Phase(**values))
        return parts


_NAMES = tuple(entry.name for entry in fields(Phase))
_PER_ATOM = ("positions", "momenta", "forces", "masses", "free", "walker_index")


def join_phases(phases: Sequence[Phase]) -> Phase:
    """Return several phases as one, in order."""
    values = {name: np.concatenate([getattr(part, name) for part in phases]) for name in _NAMES}
    counts = np.array([part.num_walkers for part in phases])
    starts = np.repeat(np.cumsum(counts) - counts, [len(part.positions) for part in phases])
    values["walker_index"] = values["walker_index"] + starts
    return Phase(**values)


class Integrator(ABC):
    """Takes walkers one step further.

    Attributes
    ----------
    stochastic
        Whether noise moves everything, or overall translation and rotation stay as they are.
    moves_cell
        Whether cells change, so that the potential's stress is needed.
    """

    stochastic: ClassVar[bool] = False
    moves_cell: ClassVar[bool] = False

    @property
    def links(self) -> int:
        """Number of links of the chain, 0 without one."""
        return 0

    @abstractmethod
    def before_forces(
        self, phase: Phase, timestep: float, kT: np.ndarray, noise: np.ndarray | None
    ) -> Phase:
        """Return the phase at the positions whose forces are wanted.

        Parameters
        ----------
        timestep
            In ASE's unit.
        kT
            (walkers,) of the bath in eV.
        noise
            (atoms, 3) standard normal numbers, where the integrator is stochastic.
        """

    @abstractmethod
    def after_forces(self, phase: Phase, timestep: float, kT: np.ndarray) -> Phase:
        """Return the phase at the end of the step."""

    @abstractmethod
    def bath_energy(self, phase: Phase, kT: np.ndarray) -> np.ndarray:
        """Return (walkers,) eV which, with kinetic and potential energy, add to a constant.

        Constant up to the error in the time step, at constant temperature of the bath.
        """


@final
@dataclass(frozen=True, slots=True)
class ConstantEnergy(Integrator):
    """Velocity Verlet: constant energy, number of atoms and cell."""

    def before_forces(
        self, phase: Phase, timestep: float, kT: np.ndarray, noise: np.ndarray | None
    ) -> Phase:
        """Kick half a step and drift a whole one."""
        return drifted(kicked(phase, 0.5 * timestep), timestep)

    def after_forces(self, phase: Phase, timestep: float, kT: np.ndarray) -> Phase:
        """Kick half a step."""
        return kicked(phase, 0.5 * timestep)

    def bath_energy(self, phase: Phase, kT: np.ndarray) -> np.ndarray:
        """Nothing."""
        return np.zeros(phase.num_walkers)


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Langevin(Integrator):
    """BAOAB: friction and noise on every degree of freedom, overall motion included.

    Parameters
    ----------
    friction
        1/fs; 0.001 for dynamics close to Newton's, 0.01 to 0.05 to equilibrate.
    """

    stochastic: ClassVar[bool] = True
    friction: float = 0.02

    def __post_init__(self) -> None:
        """Refuse a friction out of range."""
        if not self.friction > 0.0:
            raise ConfigError(
                f"`friction` is {self.friction} 1/fs; give a positive number, or ConstantEnergy()"
            )

    def before_forces(
        self, phase: Phase, timestep: float, kT: np.ndarray, noise: np.ndarray | None
    ) -> Phase:
        """Kick, drift half a step, exchange momentum with the bath, drift half a step."""
        assert noise is not None
        halfway = drifted(kicked(phase, 0.5 * timestep), 0.5 * timestep)
        kept = float(np.exp(-self.friction / units.fs * timestep))
        widths = np.sqrt((1.0 - kept**2) * kT[phase.walker_index, None] * phase.masses)
        momenta = (kept * halfway.momenta + widths * noise) * phase.free
        exchanged = replace(halfway, momenta=momenta)
        heat = phase.heat + exchanged.kinetic_energy() - halfway.kinetic_energy()
        return drifted(replace(exchanged, heat=heat), 0.5 * timestep)

    def after_forces(self, phase: Phase, timestep: float, kT: np.ndarray) -> Phase:
        """Kick half a step."""
        return kicked(phase, 0.5 * timestep)

    def bath_energy(self, phase: Phase, kT: np.ndarray) -> np.ndarray:
        """Return what the bath has lost (Bussi and Parrinello, 10.1103/PhysRevE.75.056707)."""
        return -phase.heat


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class NoseHooverChain(Integrator):
    """Constant temperature without noise.

    Overall translation (and rotation of a free molecule) would keep the share it starts with, so it
    is taken away at the start and not counted. Small or stiff systems are better served by noise.

    Parameters
    ----------
    period_fs
        tau, how fast the chain answers: that of a vibration of the system, 20 to 200 fs.
    length
        Links of the chain, 1 or more; one link is not ergodic.
    """

    period_fs: float = 50.0
    length: int = 3

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if not (self.period_fs > 0.0 and self.length >= 1):
            raise ConfigError(
                f"`period_fs` is {self.period_fs} and `length` {self.length}; give a positive "
                "period and at least one link"
            )

    @property
    def links(self) -> int:
        """The length."""
        return self.length

    def before_forces(
        self, phase: Phase, timestep: float, kT: np.ndarray, noise: np.ndarray | None
    ) -> Phase:
        """Move half the chain, kick, drift."""
        chained = self._chained(phase, 0.5 * timestep, kT)
        return drifted(kicked(chained, 0.5 * timestep), timestep)

    def after_forces(self, phase: Phase, timestep: float, kT: np.ndarray) -> Phase:
        """Kick, move half the chain."""
        return self._chained(kicked(phase, 0.5 * timestep), 0.5 * timestep, kT)

    def bath_energy(self, phase: Phase, kT: np.ndarray) -> np.ndarray:
        """Return sum_j Q_j v_j^2 / 2 + N_f kT x_1 + kT (x_2 + x_3 + ...)."""
        places, velocities = phase.chain[:, 0], phase.chain[:, 1]
        kinetic = 0.5 * (self._inertia(phase, kT) * velocities**2).sum(axis=1)
        return kinetic + kT * (phase.degrees_of_freedom * places[:, 0] + places[:, 1:].sum(axis=1))

    def _inertia(self, phase: Phase, kT: np.ndarray) -> np.ndarray:
        """Return (walkers, links) Q."""
        inertia = np.repeat(kT[:, None] * (self.period_fs * units.fs) ** 2, self.length, axis=1)
        inertia[:, 0] *= np.maximum(phase.degrees_of_freedom, 1)
        return inertia

    def _chained(self, phase: Phase, time: float, kT: np.ndarray) -> Phase:
        """Return the phase after the chain alone has acted for a time."""
        inertia = self._inertia(phase, kT)
        places, v = phase.chain[:, 0].copy(), phase.chain[:, 1].copy()
        twice_kinetic = 2.0 * phase.kinetic_energy()
        scale = np.ones(phase.num_walkers)
        last = self.length - 1

        def push(link: int, span: float) -> None:
            """Advance the velocity of a link, damped by the next."""
            if link == 0:
                drive = scale**2 * twice_kinetic - phase.degrees_of_freedom * kT
            else:
                drive = inertia[:, link - 1] * v[:, link - 1] ** 2 - kT
            damping = np.exp(-0.25 * span * v[:, link + 1]) if link < last else 1.0
            v[:, link] = (v[:, link] * damping + 0.5 * span * drive / inertia[:, link]) * damping

        for weight in _YOSHIDA:
            span = weight * time
            for link in reversed(range(self.length)):
                push(link, span)
            scale *= np.exp(-span * v[:, 0])
            places += span * v
            for link in range(self.length):
                push(link, span)
        momenta = phase.momenta * scale[phase.walker_index, None]
        return replace(phase, momenta=momenta, chain=np.stack([places, v], axis=1))


_OUTER = 1.0 / (2.0 - 2.0 ** (1.0 / 3.0))
_YOSHIDA = (_OUTER, 1.0 - 2.0 * _OUTER, _OUTER)
"""Weights that make the chain's propagator of fourth order (10.1016/0375-9601(90)90092-3)."""


def kicked(phase: Phase, time: float) -> Phase:
    """Return the phase after a time of constant forces."""
    return replace(phase, momenta=phase.momenta + time * phase.forces)


def drifted(phase: Phase, time: float) -> Phase:
    """Return the phase after a time of constant momenta."""
    return replace(phase, positions=phase.positions + time * phase.momenta / phase.masses)
