"""A steady heat current between a hot and a cold slab of one periodic cell.

The cell is cut into slices along an axis. The atoms that start in slice 0 feel a hot Langevin bath,
those of the middle slice a cold one, and all others Newton's equations (`bath.py`). Heat flows both
ways round the periodic cell, so the current density is

    J = (Q_hot - Q_cold) / 2 / (2 A t),

Q what each bath has given in the time t (the cold one less than nothing), A the cross section; from
hot to cold it is positive. With the slope of the temperature profile between the slabs, Fourier's
law gives the conductivity kappa = J / |dT/dx|, of this cell: it falls short of the bulk's where the
slabs are nearer than phonons go.
"""

from dataclasses import KW_ONLY, dataclass, field
from typing import final

import numpy as np
from ase import Atoms, units

from tace_al.core.errors import ConfigError, StructureError
from tace_al.data.frames import fixed_mask
from tace_al.engines.sampling.bath import AtomBaths
from tace_al.engines.sampling.gathering import Gathering
from tace_al.engines.sampling.walkers import Snapshot, Stop

WATT_PER_M2 = 1.602176634e-19 / 1e-20 / 1e-15
"""1 eV/(A^2 fs)."""


@final
@dataclass(frozen=True, slots=True)
class HeatFlow:
    """Baths and slices of a structure.

    Parameters
    ----------
    atoms
        Periodic along the axis.
    _
        What follows is given by name.
    hot, cold
        Temperatures in K.
    axis
        0, 1 or 2: the lattice vector along which heat flows.
    slices
        An even number, at least 4.
    friction
        Of both baths, in 1/fs.
    """

    atoms: Atoms
    _: KW_ONLY
    hot: float
    cold: float
    axis: int = 2
    slices: int = 8
    friction: float = 0.01
    slice_of: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Cut the cell, or say why it cannot be."""
        if not (self.hot > 0.0 and self.cold > 0.0 and self.friction > 0.0):
            raise ConfigError(
                f"baths of {self.hot} and {self.cold} K with a friction of {self.friction} 1/fs "
                "are none; give positive numbers"
            )
        if self.axis not in (0, 1, 2) or self.slices < 4 or self.slices % 2:
            raise ConfigError(
                f"axis {self.axis} and {self.slices} slices do not cut a cell; give an axis of "
                "0, 1 or 2 and an even number of slices, at least 4"
            )
        if not self.atoms.pbc[self.axis]:
            raise StructureError(
                f"heat flows round the cell, which is not periodic along axis {self.axis}; choose "
                "another axis, or make it periodic"
            )
        if fixed_mask(self.atoms).any():
            raise StructureError("atoms that are held take part in no heat current; free them all")
        shares = self.atoms.get_scaled_positions(wrap=True)[:, self.axis]
        places = np.minimum((shares * self.slices + 1e-9).astype(int), self.slices - 1)
        object.__setattr__(self, "slice_of", places)
        counts = np.bincount(places, minlength=self.slices)
        if counts.min() == 0:
            raise StructureError(
                f"slice {int(counts.argmin())} of {self.slices} holds no atom; cut the cell into "
                "fewer slices, or make it longer"
            )

    @property
    def baths(self) -> AtomBaths:
        """The integrator."""
        hot, cold = self.slice_of == 0, self.slice_of == self.slices // 2
        bathed = np.where(hot | cold, self.friction, 0.0)
        middle = 0.5 * (self.hot + self.cold)
        temperatures = np.where(hot, self.hot, np.where(cold, self.cold, middle))
        return AtomBaths(
            frictions=tuple(bathed.tolist()),
            temperatures=tuple(temperatures.tolist()),
            cold=tuple(np.flatnonzero(cold).tolist()),
        )

    @property
    def width(self) -> float:
        """Width of a slice in A."""
        return float(abs(self.atoms.get_volume()) / self._area() / self.slices)

    def _area(self) -> float:
        """Return the area of the cell's face that the axis leaves."""
        first, second = (self.atoms.cell.array[i] for i in range(3) if i != self.axis)
        return float(np.linalg.norm(np.cross(first, second)))

    def slice_temperatures(self, momenta: np.ndarray, masses: np.ndarray) -> np.ndarray:
        """Return (slices,) kinetic temperatures in K of the atoms that started there."""
        kinetic = (momenta**2).sum(axis=1) / masses / (3.0 * units.kB)
        counts = np.bincount(self.slice_of, minlength=self.slices)
        sums = np.bincount(self.slice_of, weights=kinetic, minlength=self.slices)
        return np.asarray(sums / counts)

    def current(self, given: np.ndarray, time_fs: float) -> float:
        """Return J in W/m^2 from what both baths have given (hot, cold) in eV."""
        per_way = 0.5 * float(given[0] - given[1]) / (2.0 * self._area() * time_fs)
        return per_way * WATT_PER_M2

    def gradient(self, profile: np.ndarray) -> float:
        """Return the fall of temperature from hot to cold in K/A, of the slices between."""
        half = self.slices // 2
        folded = [profile[0]]
        folded += [0.5 * (profile[i] + profile[self.slices - i]) for i in range(1, half)]
        folded.append(profile[half])
        inner = np.array(folded[1:-1]) if half > 2 else np.array(folded)
        places = self.width * np.arange(len(inner))
        centred = places - places.mean()
        return -float((centred * inner).sum() / (centred**2).sum())

    def conductivity(self, given: np.ndarray, time_fs: float, profile: np.ndarray) -> float:
        """Return kappa in W/(m K), NaN where the profile does not fall."""
        fall = self.gradient(profile) * 1e10  # K/m
        return self.current(given, time_fs) / fall if fall > 0.0 else float("nan")


@final
class ProfileWatch:
    """A stop condition that only measures the temperature profile, step by step.

    Parameters
    ----------
    flow
        Its slices.
    settle
        Steps that do not count.
    gathering
        Asked at each step; its answer stops the walker.
    """

    def __init__(
        self, flow: HeatFlow, *, settle: int = 0, gathering: Gathering | None = None
    ) -> None:
        self.flow, self.settle, self.gathering = flow, settle, gathering
        self.count = 0
        self._sum = np.zeros(flow.slices)

    @property
    def profile(self) -> np.ndarray:
        """(slices,) mean temperatures in K."""
        return self._sum / max(self.count, 1)

    def clear(self) -> None:
        """Begin a new mean."""
        self.count, self._sum = 0, np.zeros(self.flow.slices)

    def __call__(self, snapshot: Snapshot) -> Stop | None:
        """Measure a step."""
        stop = None if self.gathering is None else self.gathering(snapshot)
        if stop is None and snapshot.step > self.settle:
            atoms = snapshot.atoms
            self._sum += self.flow.slice_temperatures(atoms.get_momenta(), atoms.get_masses())
            self.count += 1
        return stop
