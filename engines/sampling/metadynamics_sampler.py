"""Well-tempered metadynamics as a sampler: a campaign's walkers that climb over barriers.

One walker; its hills travel from chunk to chunk in `Chunk.state`, although the committee that
drives it is a better one each time. Frames come home with the bias taken off.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import final

import numpy as np
from ase import Atoms

from tace_al.core.errors import ConfigError
from tace_al.engines.sampling.bias import Bias, BiasedPotential, HillBias, UpperWall
from tace_al.engines.sampling.collective_variables import DEFAULT_WIDTHS, collective_variable
from tace_al.engines.sampling.gathering import Gathering
from tace_al.engines.sampling.integrators import Langevin
from tace_al.engines.sampling.metadynamics import Hills, Metadynamics
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.sampler import Chunk, Sampler, Thresholds
from tace_al.engines.sampling.walkers import Walker


def hill_bias(texts: tuple[str, ...], widths: tuple[float, ...], atoms: Atoms) -> HillBias:
    """Return an empty bias on the variables of some texts; without widths, the usual ones."""
    variables = [collective_variable(text, atoms) for text in texts]
    usual = [DEFAULT_WIDTHS[variable.name.partition(":")[0]] for variable in variables]
    return HillBias(variables, widths or usual)


def upper_walls(texts: tuple[str, ...], bias: HillBias) -> tuple[Bias, ...]:
    """Return the walls of texts "VARIABLE:LIMIT[:STIFFNESS]", variables counted from 0.

    >>> water = Atoms("OH2", [[0, 0, 0], [0.97, 0, 0], [0, 0.97, 0]])
    >>> (wall,) = upper_walls(("0:2.5",), hill_bias(("distance:0,1",), (), water))
    >>> wall.limit
    2.5
    """
    walls: list[Bias] = []
    for text in texts:
        parts = text.split(":")
        try:
            index, numbers = int(parts[0]), [float(part) for part in parts[1:]]
            variable = bias.variables[index] if index >= 0 else None
        except (ValueError, IndexError):
            variable, numbers = None, []
        if variable is None or not 1 <= len(numbers) <= 2:
            raise ConfigError(
                f"'{text}' is no wall; write VARIABLE:LIMIT or VARIABLE:LIMIT:STIFFNESS, the "
                f"variable as a number from 0 to {len(bias.variables) - 1}"
            )
        stiffness = numbers[1] if len(numbers) == 2 else 10.0
        walls.append(UpperWall(variable=variable, limit=numbers[0], stiffness=stiffness))
    return tuple(walls)


@final
@dataclass(frozen=True, slots=True)
class MetadynamicsSampler(Sampler):
    """One chunk of metadynamics.

    Parameters
    ----------
    potential, thresholds
        What drives the atoms, and which of its frames are worth a label.
    variables
        Texts such as "distance:0,1" (`collective_variables.py`).
    widths
        Of the hills, one a variable; empty for the usual ones.
    walls
        Texts "VARIABLE:LIMIT[:STIFFNESS]".
    height, pace, bias_factor, temperature
        As in `Hills`.
    timestep_fs, friction, steps
        In fs, 1/fs, and the length of the chunk.
    record_every, gap, max_uncertain, max_separation
        As in `Gathering`.
    seed
        Of first velocities and noise.
    """

    potential: Potential
    thresholds: Thresholds
    _: KW_ONLY
    variables: tuple[str, ...]
    widths: tuple[float, ...] = ()
    walls: tuple[str, ...] = ()
    height: float = 0.02
    pace: int = 50
    bias_factor: float = 10.0
    temperature: float = 300.0
    timestep_fs: float = 0.5
    friction: float = 0.01
    steps: int = 1000
    record_every: int = 100
    gap: int = 10
    max_uncertain: int = 10
    max_separation: float = 8.0
    seed: int = 0

    def run(self, atoms: Atoms) -> Chunk:
        """Return one chunk that starts without hills."""
        return self._chunk(atoms, {})

    def go_on(self, atoms: Atoms, state: Mapping[str, np.ndarray]) -> Chunk:
        """Return the chunk that goes on with the hills of the one before."""
        return self._chunk(atoms, state)

    def _chunk(self, atoms: Atoms, state: Mapping[str, np.ndarray]) -> Chunk:
        bias = hill_bias(self.variables, self.widths, atoms)
        walls = upper_walls(self.walls, bias)
        for centre, height in zip(state.get("centres", ()), state.get("heights", ()), strict=True):
            bias.add(centre, float(height))
        gathering = Gathering(
            atoms,
            self.thresholds,
            record_every=self.record_every,
            gap=self.gap,
            max_uncertain=self.max_uncertain,
            max_separation=self.max_separation,
            finish=BiasedPotential(self.potential, [bias, *walls]).unbias,
        )
        walker = Walker(
            atoms,
            steps=self.steps,
            temperature=self.temperature,
            seed=self.seed,
            stops=(gathering,),
        )
        hills = Hills(
            height=self.height,
            pace=self.pace,
            bias_factor=self.bias_factor,
            temperature=self.temperature,
        )
        run = Metadynamics(
            self.potential,
            [walker],
            hills,
            bias,
            integrator=Langevin(friction=self.friction),
            timestep_fs=self.timestep_fs,
            walls=walls,
        )
        run.advance(self.steps + 1)
        (walk,) = run.trajectories()
        observed = {"num_hills": bias.num_hills, "variables": list(self.variables)}
        kept = {"centres": bias.centres.copy(), "heights": bias.heights.copy()}
        return gathering.chunk(walk, observables=observed, state=kept)
