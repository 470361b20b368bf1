"""Steady shear: SLLOD equations of motion in a cell that deforms with the flow.

For a flow u_x = g y (rate g), with p the momenta relative to it,

    dr/dt = p / m + g y e_x,        dp/dt = F - g p_y e_x - alpha p,

and lattice vectors that go along, dh/dt = g h_y e_x (Lees and Edwards' boundaries; Evans and
Morriss, 10.1103/PhysRevA.30.1528). alpha keeps the kinetic energy of p at its temperature: momenta
are scaled to it after each step. Viscosity and pressure tensor:

    eta = -<P_xy> / g,              P_xy = (sum p_x p_y / m) / V - sigma_xy,

sigma the potential's stress (compressed < 0). The flow does work -P_xy V g, the thermostat takes it
away; energy less work and heat is conserved.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import ClassVar, final

import numpy as np
from ase import Atoms, units

from tace_al.core.errors import ConfigError, StructureError
from tace_al.core.units import GPA
from tace_al.data.frames import fixed_mask
from tace_al.engines.sampling.batched_md import BatchedDynamics
from tace_al.engines.sampling.integrators import Integrator, Phase
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.walkers import Snapshot, Stop, StopCondition, Trajectory, Walker

LARGEST_LEAN = 0.5
"""Strain of the cell, from where its image that leans the other way takes over."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class ShearFlow(Integrator):
    """SLLOD at constant kinetic temperature.

    Parameters
    ----------
    rate
        g in 1/fs; 0 is ordinary dynamics at constant kinetic temperature.
    """

    moves_cell: ClassVar[bool] = True
    rate: float

    @property
    def links(self) -> int:
        """One place a walker, for the work of the flow: no chain is there."""
        return 1

    def before_forces(
        self, phase: Phase, timestep: float, kT: np.ndarray, noise: np.ndarray | None
    ) -> Phase:
        """Work, couple and kick half a step, then drift with the flow."""
        rate, half = self.rate / units.fs, 0.5 * timestep
        phase = self._coupled(self._worked(phase, half), half)
        phase = replace(phase, momenta=phase.momenta + half * phase.forces)
        velocities = phase.momenta / phase.masses
        positions = phase.positions + timestep * velocities
        heights = phase.positions[:, 1] + 0.5 * timestep * velocities[:, 1]
        positions[:, 0] += rate * timestep * heights
        cells = phase.cells.copy()
        cells[:, :, 0] += rate * timestep * cells[:, :, 1]
        return replace(phase, positions=positions, cells=cells)

    def after_forces(self, phase: Phase, timestep: float, kT: np.ndarray) -> Phase:
        """Kick, couple and work half a step, then scale the momenta."""
        half = 0.5 * timestep
        phase = replace(phase, momenta=phase.momenta + half * phase.forces)
        phase = self._worked(self._coupled(phase, half), half)
        before = phase.kinetic_energy()
        wanted = 0.5 * phase.degrees_of_freedom * kT
        scale = np.sqrt(wanted / np.maximum(before, 1e-300))
        momenta = phase.momenta * scale[phase.walker_index, None]
        scaled = replace(phase, momenta=momenta)
        return replace(scaled, heat=phase.heat + scaled.kinetic_energy() - before)

    def bath_energy(self, phase: Phase, kT: np.ndarray) -> np.ndarray:
        """Return what thermostat and flow have lost."""
        return -phase.heat - phase.chain[:, 0, 0]

    def _coupled(self, phase: Phase, time: float) -> Phase:
        """Return the phase after the flow alone has acted on the momenta, its work counted."""
        momenta = phase.momenta.copy()
        momenta[:, 0] -= self.rate / units.fs * time * momenta[:, 1]
        coupled = replace(phase, momenta=momenta)
        return _with_work(coupled, coupled.kinetic_energy() - phase.kinetic_energy())

    def _worked(self, phase: Phase, time: float) -> Phase:
        """Return the phase with the work that straining the cell does on the potential."""
        volumes = np.abs(np.linalg.det(phase.cells))
        power = self.rate / units.fs * volumes * phase.stress[:, 0, 1]
        return _with_work(phase, time * power)


def _with_work(phase: Phase, work: np.ndarray) -> Phase:
    """Return the phase with more work of the flow counted."""
    chain = phase.chain.copy()
    chain[:, 0, 0] += work
    return replace(phase, chain=chain)


@final
@dataclass(frozen=True, slots=True)
class Shear:
    """A steady shear flow of one structure, cell by cell.

    Parameters
    ----------
    potential
        What drives the atoms; it must predict stresses.
    _
        What follows is given by name.
    rate_per_ps
        g in 1/ps.
    temperature
        Of the momenta relative to the flow, in K.
    timestep_fs
        fs.
    seed
        Of first momenta.
    """

    potential: Potential
    _: KW_ONLY
    rate_per_ps: float
    temperature: float
    timestep_fs: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what does not flow."""
        if not (self.rate_per_ps > 0.0 and self.temperature > 0.0 and self.timestep_fs > 0.0):
            raise ConfigError(
                f"a shear rate of {self.rate_per_ps} 1/ps at {self.temperature} K in steps of "
                f"{self.timestep_fs} fs does not flow; give positive numbers"
            )

    @property
    def steps_per_turn(self) -> int:
        """Steps until the cell leans as far as it may and its image takes over."""
        return max(1, int(2.0 * LARGEST_LEAN / (self.rate_per_ps * 1e-3 * self.timestep_fs)))

    def run(
        self,
        atoms: Atoms,
        steps: int,
        *,
        stops: tuple[StopCondition, ...] = (),
        record_every: int = 0,
    ) -> Trajectory:
        """Go on from a structure for some steps, at most until its cell must be turned.

        A walker that leans beyond half its width is turned first: `atoms` may be any trajectory's
        final frame.
        """
        start = turned_cell(atoms)
        walker = Walker(
            start, steps=steps, temperature=self.temperature, seed=self.seed, stops=stops
        )
        flow = ShearFlow(rate=self.rate_per_ps * 1e-3)
        dynamics = BatchedDynamics(
            self.potential,
            [walker],
            flow,
            timestep_fs=self.timestep_fs,
            record_every=record_every,
        )
        (walk,) = dynamics.run(min(steps, self.steps_per_turn))
        return walk


def check_flow(atoms: Atoms) -> None:
    """Refuse a structure that cannot be sheared.

    Raises
    ------
    StructureError
        It is not periodic in three directions, its first lattice vector does not lie along x or its
        second leaves the xy plane, or atoms are held.
    """
    cell = atoms.cell.array
    if not atoms.pbc.all():
        raise StructureError("shear needs a structure that is periodic in three directions")
    lengths = np.linalg.norm(cell, axis=1)
    flat = np.abs([cell[0, 1], cell[0, 2], cell[1, 2], cell[2, 0], cell[2, 1]])
    if flat.max() > 1e-6 * lengths.max():
        raise StructureError(
            "shear flows along x with its gradient along y: the first lattice vector must lie "
            "along x, the second in the xy plane, the third along z; turn the cell so"
        )
    if fixed_mask(atoms).any():
        raise StructureError("atoms that are held cannot flow; free them all")


def turned_cell(atoms: Atoms) -> Atoms:
    """Return the same periodic structure in the cell that leans least, its atoms wrapped."""
    turned = atoms.copy()
    cell = turned.cell.array.copy()
    cell[1] -= np.round(cell[1, 0] / cell[0, 0]) * cell[0]
    turned.set_cell(cell, scale_atoms=False)
    turned.wrap()
    return turned


@final
class FlowWatch:
    """A stop condition that only measures the pressure tensor, step by step and turn by turn.

    Parameters
    ----------
    guard
        Asked at each step, counted from this watch's first; its answer stops the walker.

    Attributes
    ----------
    shear_pressure, pressure
        P_xy and the mean of the diagonal in eV/A^3, one entry a step.
    drift
        Change of the conserved energy in eV since the walker's start.
    """

    def __init__(self, guard: Callable[[Snapshot], Stop | None] | None = None) -> None:
        self.guard = guard
        self.shear_pressure: list[float] = []
        self.pressure: list[float] = []
        self.drift = 0.0
        self._conserved: float | None = None

    def __call__(self, snapshot: Snapshot) -> Stop | None:
        """Measure a step."""
        if self._conserved is None or snapshot.step == 0:
            self._conserved = snapshot.conserved
        done = len(self.shear_pressure)
        if snapshot.step == 0 and done:  # the last frame again, in a cell that was turned
            return None
        if snapshot.step > 0:
            time_fs = snapshot.time_fs / snapshot.step * (done + 1)
            snapshot = replace(snapshot, step=done + 1, time_fs=time_fs)
        stop = None if self.guard is None else self.guard(snapshot)
        if stop is not None or snapshot.step == 0:
            return stop
        self.drift = snapshot.conserved - self._conserved
        tensor = pressure_tensor(snapshot)
        self.shear_pressure.append(float(tensor[0, 1]))
        self.pressure.append(float(np.trace(tensor)) / 3.0)
        return None


def pressure_tensor(snapshot: Snapshot) -> np.ndarray:
    """Return (3, 3) P in eV/A^3, momenta relative to the flow."""
    momenta, masses = snapshot.atoms.get_momenta(), snapshot.atoms.get_masses()
    stress = snapshot.prediction.stress
    assert stress is not None  # the integrator has asked for it
    kinetic = np.einsum("ax,ay,a->xy", momenta, momenta, 1.0 / masses)
    return np.asarray(kinetic / snapshot.atoms.get_volume() - stress)


def viscosity_mpa_s(shear_pressure: np.ndarray, rate_per_ps: float) -> np.ndarray:
    """Return -P_xy / g in mPa s: 1 GPa ps = 1 mPa s.

    Parameters
    ----------
    shear_pressure
        P_xy in eV/A^3.
    """
    return -np.asarray(shear_pressure) / GPA / rate_per_ps
