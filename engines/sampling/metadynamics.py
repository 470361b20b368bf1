"""Well-tempered metadynamics: hills where the walkers have been, until they walk freely.

Every `pace` steps each walker leaves a hill at its collective variables s, of height

    h exp(-V(s) / ((gamma - 1) kT)),

V the bias so far, gamma the bias factor. V then converges to -(1 - 1/gamma) F(s) plus a constant
(Barducci, Bussi, Parrinello, 10.1103/PhysRevLett.100.020603), F the free energy at temperature T.
Several walkers build one bias (Raiteri et al., 10.1021/jp054359r) in one batch.

What stays constant: the energy of `batched_md.py` less the work of the hills, dV at each walker's
place when they are set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from ase import Atoms, units

from tace_al.core.errors import ConfigError
from tace_al.engines.sampling.batched_md import BatchedDynamics
from tace_al.engines.sampling.bias import Bias, BiasedPotential, HillBias
from tace_al.engines.sampling.bond_events import BondTracker
from tace_al.engines.sampling.integrators import Integrator
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.recorded_run import Resumable
from tace_al.engines.sampling.walkers import Trajectory, Walker


@dataclass(frozen=True, kw_only=True, slots=True)
class Hills:
    """How hills are set.

    Parameters
    ----------
    height
        Of the first, in eV; about kT / 2.
    pace
        Steps between two hills of a walker.
    bias_factor
        gamma > 1: barriers are flattened up to about gamma kT.
    temperature
        Of the dynamics in K.
    """

    height: float = 0.02
    pace: int = 50
    bias_factor: float = 10.0
    temperature: float = 300.0

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if not (self.height > 0.0 and self.pace >= 1 and self.bias_factor > 1.0):
            raise ConfigError(
                f"hills of {self.height} eV every {self.pace} steps with bias factor "
                f"{self.bias_factor} make no metadynamics; give a positive height, a pace of at "
                "least 1 and a bias factor above 1"
            )
        if not self.temperature > 0.0:
            raise ConfigError(f"`temperature` is {self.temperature} K; give more than 0")

    def tempered(self, bias: float) -> float:
        """Return the height in eV of a hill where the bias has some energy."""
        scale = (self.bias_factor - 1.0) * units.kB * self.temperature
        return self.height * float(np.exp(-bias / scale))


@final
class Metadynamics(Resumable):
    """Walkers in flight that build one bias.

    Parameters
    ----------
    potential
        What is biased.
    walkers
        Their starts.
    hills, bias
        How hills are set, and where they go; the bias may hold some already.
    integrator, timestep_fs, record_every
        As in `BatchedDynamics`.
    walls
        Further biases, constant in time.

    Attributes
    ----------
    potential
        The biased one.
    """

    def __init__(
        self,
        potential: Potential,
        walkers: Sequence[Walker],
        hills: Hills,
        bias: HillBias,
        *,
        integrator: Integrator,
        timestep_fs: float = 0.5,
        record_every: int = 0,
        walls: Sequence[Bias] = (),
    ) -> None:
        self.hills, self.bias = hills, bias
        self.potential = BiasedPotential(potential, [bias, *walls])
        self.dynamics = BatchedDynamics(
            self.potential,
            walkers,
            integrator,
            timestep_fs=timestep_fs,
            record_every=record_every,
        )
        self.bonds = tuple(BondTracker(walker.atoms) for walker in walkers)
        self.work = np.zeros(len(walkers))
        self.scale = 1.0
        self._since_hill = 0

    @property
    def running(self) -> bool:
        """Whether a walker still moves."""
        return self.dynamics.num_moving > 0

    def advance(self, num_steps: int) -> Sequence[Atoms]:
        """Go on for some steps, setting hills on the way; return the frames kept, unbiased."""
        kept: list[Atoms] = []
        left = num_steps
        while left > 0 and self.running:
            stretch = min(left, self.hills.pace - self._since_hill)
            self.dynamics.run(stretch)
            left -= stretch
            self._since_hill += stretch
            kept.extend(self._taken())
            if self._since_hill == self.hills.pace:
                self._since_hill = 0
                self._set_hills()
        return kept

    def trajectories(self) -> tuple[Trajectory, ...]:
        """Return how each walker stands."""
        return self.dynamics.trajectories()

    def state(self) -> dict[str, np.ndarray]:
        """Return dynamics, hills, work and bonds."""
        bonds = {f"bonds_{i}": tracker.state() for i, tracker in enumerate(self.bonds)}
        return {
            **self.dynamics.state(),
            **bonds,
            "hill_centres": self.bias.centres.copy(),
            "hill_heights": self.bias.heights.copy(),
            "hill_work": self.work.copy(),
            "since_hill": np.array(self._since_hill),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take up dynamics, hills, work and bonds."""
        self.dynamics.restore(state)
        self.bias.num_hills = 0
        for centre, height in zip(state["hill_centres"], state["hill_heights"], strict=True):
            self.bias.add(centre, float(height))
        self.work = np.array(state["hill_work"])
        self._since_hill = int(state["since_hill"])
        for index, tracker in enumerate(self.bonds):
            tracker.restore(state[f"bonds_{index}"])

    def _taken(self) -> list[Atoms]:
        """Return the frames recorded since the last hill, with variables and without bias."""
        frames = []
        for index, frame in self.dynamics.take_frames():
            frame.info["walker"] = index
            frame.info["uncertainty"] *= self.scale
            frame.info["conserved"] -= self.work[index]
            frame.info["collective_variables"] = self.bias.values(frame)
            self.potential.unbias(frame)
            self.bonds[index].look(frame).store(frame)
            frames.append(frame)
        return frames

    def _set_hills(self) -> None:
        """Let every walker that got this far leave a hill, all judged by the bias before."""
        walks = [(i, walk) for i, walk in enumerate(self.trajectories()) if walk.steps]
        places = np.array([self.bias.values(walk.final) for _, walk in walks])
        if not len(places):
            return
        furthest = max(walk.steps for _, walk in walks)
        before = self.bias.at(places)
        for (_, walk), place, energy in zip(walks, places, before, strict=True):
            if walk.outcome in ("running", "done") and walk.steps == furthest:
                self.bias.add(place, self.hills.tempered(float(energy)))
        after = self.bias.at(places)
        for (index, _), change in zip(walks, after - before, strict=True):
            self.work[index] += change


def free_energy(bias: HillBias, points: np.ndarray, bias_factor: float) -> np.ndarray:
    """Return (points,) F in eV at (points, variables), zero at the lowest."""
    values = -bias_factor / (bias_factor - 1.0) * bias.at(points)
    result: np.ndarray = values - values.min()
    return result


def free_energy_with_error(
    bias: HillBias, points: np.ndarray, hills: Hills, *, num_estimates: int = 6
) -> tuple[np.ndarray, np.ndarray]:
    """Return F and its spread over the second half of the run, (points,) in eV.

    Estimates after more and more hills are shifted onto each other where F is within 10 kT of the
    lowest; F is their mean, the error their standard deviation.
    """
    counts = np.unique(np.linspace(bias.num_hills / 2, bias.num_hills, num_estimates).astype(int))
    factor = -hills.bias_factor / (hills.bias_factor - 1.0)
    estimates = factor * np.stack([bias.at(points, num_hills=count) for count in counts])
    last = estimates[-1] - estimates[-1].min()
    low = last < 10.0 * units.kB * hills.temperature
    weights = np.exp(-np.where(low, last, np.inf) / (2.0 * units.kB * hills.temperature))
    estimates -= (estimates @ weights / weights.sum())[:, None]
    mean: np.ndarray = estimates.mean(axis=0)
    return mean - mean.min(), estimates.std(axis=0)
