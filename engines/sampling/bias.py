"""Energies added to a potential so that dynamics goes where it would not: hills and walls.

A `Bias` is a function of the structure with analytic forces, -dV/dx. `BiasedPotential` adds biases
to every member of a committee alike, so that the members' disagreement is that of the potential
alone, and can take them off a frame again.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from ase import Atoms

from tace_al.core.errors import ConfigError
from tace_al.engines.sampling.collective_variables import CollectiveVariable
from tace_al.engines.sampling.potential import Potential
from tace_al.model.prediction import Prediction


class Bias(ABC):
    """An energy of a structure that is not the potential's."""

    @abstractmethod
    def evaluate(self, atoms: Atoms) -> tuple[float, np.ndarray]:
        """Return the energy in eV and the (atoms, 3) forces -dV/dx in eV/A."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class UpperWall(Bias):
    """A half parabola that keeps a collective variable s small: k (s - limit)^2 / 2 above it.

    Parameters
    ----------
    variable
        s.
    limit
        In the unit of s.
    stiffness
        k in eV per unit of s squared.
    """

    variable: CollectiveVariable
    limit: float
    stiffness: float = 10.0

    def __post_init__(self) -> None:
        """Refuse a wall that pulls."""
        if not self.stiffness > 0.0:
            raise ConfigError(f"a wall has stiffness {self.stiffness}; give a positive number")

    def evaluate(self, atoms: Atoms) -> tuple[float, np.ndarray]:
        """Return energy and forces, zero below the limit."""
        value, gradient = self.variable.evaluate(atoms)
        beyond = max(value - self.limit, 0.0)
        return 0.5 * self.stiffness * beyond**2, -self.stiffness * beyond * gradient


@final
class HillBias(Bias):
    """A sum of Gaussians in collective variables, which grows.

    V(s) = sum_k h_k exp(-sum_c (s_c - c_kc)^2 / (2 w_c^2))

    Parameters
    ----------
    variables
        One or more.
    widths
        w of each, in its unit.
    """

    def __init__(self, variables: Sequence[CollectiveVariable], widths: Sequence[float]) -> None:
        if not variables or len(variables) != len(widths):
            raise ConfigError(
                f"there are {len(variables)} collective variables and {len(widths)} widths; give "
                "at least one variable and one width each"
            )
        if not min(widths) > 0.0:
            raise ConfigError(f"a hill has width {min(widths)}; give positive numbers")
        self.variables = tuple(variables)
        self.widths = np.array(widths, dtype=float)
        self._centres = np.zeros((16, len(variables)))
        self._heights = np.zeros(16)
        self.num_hills = 0

    @property
    def centres(self) -> np.ndarray:
        """(hills, variables)."""
        return self._centres[: self.num_hills]

    @property
    def heights(self) -> np.ndarray:
        """(hills,) in eV."""
        return self._heights[: self.num_hills]

    def add(self, centre: np.ndarray, height: float) -> None:
        """Add a hill."""
        if self.num_hills == len(self._heights):
            self._centres = np.concatenate([self._centres, np.zeros_like(self._centres)])
            self._heights = np.concatenate([self._heights, np.zeros_like(self._heights)])
        self._centres[self.num_hills] = centre
        self._heights[self.num_hills] = height
        self.num_hills += 1

    def values(self, atoms: Atoms) -> np.ndarray:
        """Return (variables,) values of a structure."""
        return np.array([variable.evaluate(atoms)[0] for variable in self.variables])

    def at(self, points: np.ndarray, *, num_hills: int | None = None) -> np.ndarray:
        """Return (points,) energies in eV at (points, variables), of the first hills or all."""
        centres, heights = self.centres[:num_hills], self.heights[:num_hills]
        total = np.zeros(len(points))
        for start in range(0, len(heights), 256):  # bounded memory on fine grids
            block = slice(start, start + 256)
            offsets = (points[:, None, :] - centres[None, block]) / self.widths
            total += np.exp(-0.5 * (offsets**2).sum(axis=2)) @ heights[block]
        return total

    def evaluate(self, atoms: Atoms) -> tuple[float, np.ndarray]:
        """Return energy and forces."""
        found = [variable.evaluate(atoms) for variable in self.variables]
        values = np.array([value for value, _ in found])
        offsets = (values - self.centres) / self.widths  # (hills, variables)
        hills = self.heights * np.exp(-0.5 * (offsets**2).sum(axis=1))
        slopes = -(hills[:, None] * offsets).sum(axis=0) / self.widths  # dV/ds
        forces = np.zeros((len(atoms), 3))
        for slope, (_, gradient) in zip(slopes, found, strict=True):
            forces -= slope * gradient
        return float(hills.sum()), forces


@final
class BiasedPotential(Potential):
    """A potential with biases on top; without stress, which they would change.

    Parameters
    ----------
    potential
        What is biased.
    biases
        Added to every member.
    """

    def __init__(self, potential: Potential, biases: Sequence[Bias]) -> None:
        self.potential = potential
        self.biases = tuple(biases)

    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        """Return one biased prediction a frame."""
        predictions = self.potential.predict(frames)
        return [
            self._biased(atoms, plain) for atoms, plain in zip(frames, predictions, strict=True)
        ]

    def bias(self, atoms: Atoms) -> tuple[float, np.ndarray]:
        """Return energy and forces of all biases together."""
        energy, forces = 0.0, np.zeros((len(atoms), 3))
        for bias in self.biases:
            own, pulls = bias.evaluate(atoms)
            energy, forces = energy + own, forces + pulls
        return energy, forces

    def unbias(self, frame: Atoms) -> None:
        """Take the biases as they are now off a predicted frame; `bias_energy` keeps theirs."""
        energy, forces = self.bias(frame)
        frame.info["energy"] -= energy
        frame.arrays["forces"] -= forces
        frame.info["bias_energy"] = energy

    def _biased(self, atoms: Atoms, plain: Prediction) -> Prediction:
        energy, forces = self.bias(atoms)
        return replace(
            plain,
            member_energies=plain.member_energies + energy,
            member_forces=plain.member_forces + forces,
            stress=None,
        )
