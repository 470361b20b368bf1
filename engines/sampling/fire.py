"""FIRE: a damped molecular dynamics that finds where forces vanish, gradient of something or not.

Bitzek, Koskinen, Gaehler, Moseler, Gumbsch, 10.1103/PhysRevLett.97.170201, with semi-implicit Euler
(10.1016/j.commatsci.2020.109584) and a cap on every step. Band forces are the gradient of nothing,
and quasi-Newton methods, tried on the same bands, ran away once in ten; FIRE did not.
"""

from typing import final

import numpy as np

_DELAY = 5
_GROW, _SHRINK = 1.1, 0.5
_MIXING, _MIXING_DECAY = 0.1, 0.99
_FIRST_TIMESTEP, _LARGEST_TIMESTEP = 0.1, 1.0


@final
class Fire:
    """One step after another from forces; it keeps only the velocity and three numbers.

    Parameters
    ----------
    largest_step
        No atom moves further in one step, in A.
    """

    def __init__(self, largest_step: float) -> None:
        self.largest_step = largest_step
        self.velocity: np.ndarray | None = None
        self.timestep = _FIRST_TIMESTEP
        self.mixing = _MIXING
        self.downhill_steps = 0

    def step(self, forces: np.ndarray) -> np.ndarray:
        """Return the (..., 3) displacement in A for (..., 3) forces in eV/A."""
        velocity = np.zeros_like(forces) if self.velocity is None else self.velocity
        if float((forces * velocity).sum()) > 0.0:
            along = forces * (np.linalg.norm(velocity) / np.linalg.norm(forces))
            velocity = (1.0 - self.mixing) * velocity + self.mixing * along
            if self.downhill_steps > _DELAY:
                self.timestep = min(self.timestep * _GROW, _LARGEST_TIMESTEP)
                self.mixing *= _MIXING_DECAY
            self.downhill_steps += 1
        else:
            if self.velocity is not None:
                self.timestep *= _SHRINK
            velocity = np.zeros_like(forces)
            self.mixing, self.downhill_steps = _MIXING, 0
        self.velocity = velocity + self.timestep * forces
        step = self.timestep * self.velocity
        largest = float(np.linalg.norm(step, axis=-1).max(initial=0.0))
        result: np.ndarray = step * min(1.0, self.largest_step / max(largest, 1e-12))
        return result
