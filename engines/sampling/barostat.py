"""Constant pressure: a Langevin piston on the cell's lengths, BAOAB for atoms and cell alike.

With v_a = s_a / W the rate of strain along axis a (s its momentum), V the volume, sigma the stress
of the potential (compressed < 0), P the pressure wanted and N_f the number of free momenta, these
equations of motion

    dr_a/dt = p_a / m + v_a r_a            dp_a/dt = F_a - (v_a + tr v / N_f) p_a
    dL_a/dt = v_a L_a                      ds_a/dt = sum p_a^2 / m + 2 K / N_f - V (sigma_aa + P)

keep H + P V + sum_a s_a^2 / (2 W) (Martyna, Tobias, Klein, 10.1063/1.467468); friction and noise
on p and s make the ensemble of constant pressure (Feller et al., 10.1063/1.470648; splitting after
Gao, Fang, Wang, 10.1063/1.4942909). Isotropic: one s drives all three axes, by the sum of the three
right-hand sides. Along `axes`: each of them by its own; angles of the cell never change. Positions
scale about the origin.

Mass W = (N_f + 3) k 300 K tau^2 of the isotropic piston, a third of it for each single axis: the
same at any temperature, because what pushes it back, 9 B V in a crystal of bulk modulus B, is too.
There the cell rings with a period near 0.2 tau (metals, 140 GPa) to tau (ice, 2 GPa).
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, final

import numpy as np
from ase import units

from tace_al.core.errors import ConfigError
from tace_al.engines.sampling.integrators import Integrator, Phase

_MASS_ENERGY = units.kB * 300.0
_FASTEST = 0.1 / units.fs
"""Beyond this no step is good, and the walker is told broken without an overflow."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class LangevinPiston(Integrator):
    """Constant pressure and temperature, for structures periodic in three directions.

    Parameters
    ----------
    friction
        1/fs, of the atoms; as in `Langevin`.
    period_fs
        tau, the time in which the cell answers: 200 to 2000 fs. It sets how fast volumes are
        sampled, not which.
    piston_friction
        1/fs, of the cell; 1 / tau by default.
    shape
        "isotropic": all lengths together (liquids, cubic crystals). "axes": each Cartesian axis for
        itself (other crystals and films with a cell along the axes).
    """

    moves_cell: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True
    friction: float = 0.01
    period_fs: float = 500.0
    piston_friction: float | None = None
    shape: Literal["isotropic", "axes"] = "isotropic"

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        rate = self.piston_friction
        if not (self.friction > 0.0 and self.period_fs > 0.0 and (rate is None or rate > 0.0)):
            raise ConfigError(
                f"`friction` is {self.friction}, `period_fs` {self.period_fs} and "
                f"`piston_friction` {rate}; give positive numbers"
            )
        if self.shape not in ("isotropic", "axes"):
            raise ConfigError(f"`shape` is {self.shape!r}; it is 'isotropic' or 'axes'")

    def before_forces(
        self, phase: Phase, timestep: float, kT: np.ndarray, noise: np.ndarray | None
    ) -> Phase:
        """Kick cell and atoms, drift half a step, meet the bath, drift half a step."""
        assert noise is not None
        half = 0.5 * timestep
        phase = self._kicked(self._pushed(phase, half), half)
        phase = self._drifted(phase, half)
        phase = self._thermostatted(phase, timestep, kT, noise)
        return self._drifted(phase, half)

    def after_forces(self, phase: Phase, timestep: float, kT: np.ndarray) -> Phase:
        """Kick atoms and cell half a step."""
        half = 0.5 * timestep
        return self._pushed(self._kicked(phase, half), half)

    def bath_energy(self, phase: Phase, kT: np.ndarray) -> np.ndarray:
        """Return P V, the cell's kinetic energy, and what the bath has lost."""
        work = phase.pressure * _volumes(phase)
        return work + self._strain_energy(phase) - phase.heat

    def _mass(self, phase: Phase) -> np.ndarray:
        """Return (walkers, 1) W of one strain momentum."""
        share = 1.0 if self.shape == "isotropic" else 1.0 / 3.0
        mass: np.ndarray = share * _MASS_ENERGY * (phase.degrees_of_freedom + 3)
        return mass[:, None] * (self.period_fs * units.fs) ** 2

    def _strain_energy(self, phase: Phase) -> np.ndarray:
        """Return (walkers,) kinetic energies of the cells in eV."""
        squares = (phase.strain_momenta**2 / self._mass(phase)).sum(axis=1)
        # one momentum is kept three times where it drives all axes
        result: np.ndarray = 0.5 * squares / (3.0 if self.shape == "isotropic" else 1.0)
        return result

    def _rates(self, phase: Phase) -> np.ndarray:
        """Return (walkers, 3) v."""
        rates: np.ndarray = phase.strain_momenta / self._mass(phase)
        return np.clip(rates, -_FASTEST, _FASTEST)

    def _pushed(self, phase: Phase, time: float) -> Phase:
        """Return the phase after the pressures alone have acted on the cells."""
        squares = phase.momenta**2 / phase.masses  # (atoms, 3)
        along = np.stack([phase.summed(column) for column in squares.T], axis=1)  # (walkers, 3)
        share = along.sum(axis=1) / np.maximum(phase.degrees_of_freedom, 1)
        tension = np.einsum("waa->wa", phase.stress) + phase.pressure[:, None]
        drive = along + share[:, None] - _volumes(phase)[:, None] * tension
        if self.shape == "isotropic":
            drive = np.repeat(drive.sum(axis=1, keepdims=True), 3, axis=1)
        return replace(phase, strain_momenta=phase.strain_momenta + time * drive)

    def _kicked(self, phase: Phase, time: float) -> Phase:
        """Return the phase after constant forces and strain rates have acted on the momenta."""
        rates = self._rates(phase)
        trace = rates.sum(axis=1, keepdims=True) / np.maximum(phase.degrees_of_freedom, 1)[:, None]
        x = -0.5 * time * (rates + trace)[phase.walker_index]  # (atoms, 3)
        momenta = phase.momenta * np.exp(2.0 * x) + time * phase.forces * np.exp(x) * _sinhc(x)
        return replace(phase, momenta=momenta)

    def _drifted(self, phase: Phase, time: float) -> Phase:
        """Return the phase after constant momenta and strain rates have moved atoms and cells."""
        rates = self._rates(phase)
        x = 0.5 * time * rates[phase.walker_index]  # (atoms, 3)
        drift = time * phase.momenta / phase.masses
        positions = phase.positions * np.exp(2.0 * x) + drift * np.exp(x) * _sinhc(x)
        cells = phase.cells * np.exp(time * rates)[:, None, :]
        return replace(phase, positions=positions, cells=cells)

    def _thermostatted(
        self, phase: Phase, timestep: float, kT: np.ndarray, noise: np.ndarray
    ) -> Phase:
        """Return the phase after atoms and cells have met the bath."""
        before = phase.kinetic_energy() + self._strain_energy(phase)
        kept = float(np.exp(-self.friction / units.fs * timestep))
        widths = np.sqrt((1.0 - kept**2) * kT[phase.walker_index, None] * phase.masses)
        momenta = (kept * phase.momenta + widths * noise) * phase.free
        rate = 1.0 / self.period_fs if self.piston_friction is None else self.piston_friction
        kept = float(np.exp(-rate / units.fs * timestep))
        widths = np.sqrt((1.0 - kept**2) * kT[:, None] * self._mass(phase))
        pushes = phase.strain_noise
        if self.shape == "isotropic":
            pushes = np.repeat(pushes[:, :1], 3, axis=1)
        strain_momenta = kept * phase.strain_momenta + widths * pushes
        phase = replace(phase, momenta=momenta, strain_momenta=strain_momenta)
        after = phase.kinetic_energy() + self._strain_energy(phase)
        return replace(phase, heat=phase.heat + after - before)


def _volumes(phase: Phase) -> np.ndarray:
    """Return (walkers,) volumes in A^3."""
    volumes: np.ndarray = np.abs(np.linalg.det(phase.cells))
    return volumes


def _sinhc(x: np.ndarray) -> np.ndarray:
    """Return sinh(x) / x."""
    small = np.abs(x) < 1e-4
    safe = np.where(small, 1.0, x)
    result: np.ndarray = np.where(small, 1.0 + x**2 / 6.0, np.sinh(safe) / safe)
    return result
