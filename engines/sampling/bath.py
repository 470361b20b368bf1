"""Langevin dynamics with a bath of its own for each atom: reservoirs of unequal temperature.

BAOAB as `Langevin`, with friction gamma_a and temperature T_a of atom a:

    p_a <- c_a p_a + sqrt((1 - c_a^2) m_a k T_a) x,      c_a = exp(-gamma_a dt).

An atom without friction follows Newton's equations. With two reservoirs, hot and cold, the energy
that each has given is counted; in the steady state one gives what the other takes, and the heat
current is that energy over time (and over the cross section for its density).

All walkers of a run are copies of one structure: frictions and temperatures are lists over its
atoms.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, final

import numpy as np
from ase import units

from tace_al.core.errors import ConfigError
from tace_al.engines.sampling.integrators import Integrator, Phase, drifted, kicked


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class AtomBaths(Integrator):
    """Friction and temperature atom by atom.

    Parameters
    ----------
    frictions
        1/fs of each atom of a walker; 0 for an atom without a bath.
    temperatures
        K of each atom's bath, or None for the walker's own temperature everywhere.
    cold
        Indices of the atoms of the second reservoir; what it gives is counted apart.
    """

    stochastic: ClassVar[bool] = True
    frictions: tuple[float, ...]
    temperatures: tuple[float, ...] | None = None
    cold: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse baths that are none."""
        if not self.frictions or min(self.frictions) < 0.0:
            raise ConfigError("`frictions` must be 0 or more, one an atom; none may be negative")
        if self.temperatures is not None and len(self.temperatures) != len(self.frictions):
            raise ConfigError(
                f"{len(self.frictions)} frictions and {len(self.temperatures)} temperatures; give "
                "one of each an atom"
            )

    @property
    def links(self) -> int:
        """One place a walker, for what the two reservoirs have given: no chain is there."""
        return 1

    def given(self, phase: Phase) -> np.ndarray:
        """Return (walkers, 2) energies in eV that all other baths and the cold one have given."""
        return phase.chain[:, :, 0]

    def before_forces(
        self, phase: Phase, timestep: float, kT: np.ndarray, noise: np.ndarray | None
    ) -> Phase:
        """Kick, drift half a step, exchange momentum with the baths, drift half a step."""
        assert noise is not None
        halfway = drifted(kicked(phase, 0.5 * timestep), 0.5 * timestep)
        kept = np.exp(-self._per_atom(phase, self.frictions) / units.fs * timestep)[:, None]
        if self.temperatures is None:
            bath = kT[phase.walker_index, None]
        else:
            bath = units.kB * self._per_atom(phase, self.temperatures)[:, None]
        widths = np.sqrt((1.0 - kept**2) * bath * phase.masses)
        momenta = (kept * halfway.momenta + widths * noise) * phase.free
        gained = 0.5 * ((momenta**2 - halfway.momenta**2) / phase.masses).sum(axis=1)
        cold = self._per_atom(phase, self._is_cold())
        taken = np.stack([phase.summed(gained * (1.0 - cold)), phase.summed(gained * cold)], axis=1)
        exchanged = replace(
            halfway,
            momenta=momenta,
            heat=phase.heat + taken.sum(axis=1),
            chain=phase.chain + taken[:, :, None],
        )
        return drifted(exchanged, 0.5 * timestep)

    def after_forces(self, phase: Phase, timestep: float, kT: np.ndarray) -> Phase:
        """Kick half a step."""
        return kicked(phase, 0.5 * timestep)

    def bath_energy(self, phase: Phase, kT: np.ndarray) -> np.ndarray:
        """Return what the baths have lost."""
        return -phase.heat

    def _is_cold(self) -> tuple[float, ...]:
        """Return 1 for each atom of the cold reservoir, else 0."""
        cold = set(self.cold)
        return tuple(float(index in cold) for index in range(len(self.frictions)))

    def _per_atom(self, phase: Phase, values: tuple[float, ...]) -> np.ndarray:
        """Return (atoms,) values of every walker's atoms end to end."""
        number, left_over = divmod(len(phase.positions), len(values))
        if left_over or number != phase.num_walkers:
            raise ConfigError(
                f"the baths are of {len(values)} atoms; every walker must have as many"
            )
        return np.tile(values, number)
