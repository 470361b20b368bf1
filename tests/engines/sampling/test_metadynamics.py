from collections.abc import Sequence
from typing import final

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.emt import EMT

from tace_al.engines.sampling.catalogue import sampler_from_name
from tace_al.engines.sampling.integrators import ConstantEnergy, Langevin
from tace_al.engines.sampling.metadynamics import (
    Hills,
    Metadynamics,
    free_energy,
    free_energy_with_error,
)
from tace_al.engines.sampling.metadynamics_sampler import hill_bias
from tace_al.engines.sampling.potential import CalculatorPotential, Potential
from tace_al.engines.sampling.sampler import Thresholds
from tace_al.engines.sampling.walkers import Walker
from tace_al.model.prediction import Prediction

BARRIER, MIDDLE, HALF = 0.25, 2.4, 0.5


def well(r: np.ndarray) -> np.ndarray:
    """Return U(r): minima at MIDDLE -+ HALF, the second higher, a barrier between."""
    x = (r - MIDDLE) / HALF
    energy: np.ndarray = BARRIER * (x**2 - 1.0) ** 2 + 0.03 * x
    return energy


@final
class DoubleWell(Potential):
    """Two atoms with U of their distance."""

    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        """Return all at once."""
        vectors = np.array([atoms.positions[1] - atoms.positions[0] for atoms in frames])
        lengths = np.linalg.norm(vectors, axis=1)
        x = (lengths - MIDDLE) / HALF
        slopes = (4.0 * BARRIER * x * (x**2 - 1.0) + 0.03) / HALF
        pulls = (-slopes / lengths)[:, None] * vectors
        return [
            Prediction(member_energies=np.array([energy]), member_forces=np.array([[-pull, pull]]))
            for energy, pull in zip(well(lengths), pulls, strict=True)
        ]


def pair() -> Atoms:
    return Atoms("Ar2", [[0, 0, 0], [0, 0, MIDDLE - HALF]])


def run_of(steps: int, walkers: int, hills: Hills, *, conserved: bool = False) -> Metadynamics:
    start = pair()
    start.set_masses([4.0, 4.0])
    return Metadynamics(
        DoubleWell(),
        [Walker(start, steps=steps, temperature=300.0, seed=i) for i in range(walkers)],
        hills,
        hill_bias(("distance:0,1",), (0.08,), start),
        integrator=ConstantEnergy() if conserved else Langevin(friction=0.02),
        timestep_fs=1.0 if conserved else 4.0,
        record_every=10 if conserved else 0,
    )


@pytest.mark.slow
def test_free_energy_of_a_double_well() -> None:
    """F(r) = U(r) - 2 kT ln r, within three times its own error and 0.8 kT at the most."""
    hills = Hills(height=0.01, pace=40, bias_factor=10.0, temperature=300.0)
    run = run_of(4000, 16, hills)
    run.advance(4000)
    grid = np.linspace(1.75, 3.1, 60)
    kT = units.kB * 300.0
    exact = well(grid) - 2.0 * kT * np.log(grid)
    exact -= exact.min()
    found, error = free_energy_with_error(run.bias, grid[:, None], hills)
    low = exact < 0.3
    assert run.bias.num_hills == 16 * 100
    shift = (found - exact)[low].mean()
    deviation = (found - exact - shift)[low]
    assert np.abs(deviation).max() < 0.8 * kT, np.abs(deviation).max() / kT
    assert np.sqrt((deviation**2).mean()) < 3.0 * max(float(error[low].mean()), 0.1 * kT)
    last = free_energy(run.bias, grid[:, None], hills.bias_factor)
    top, right = (np.abs(grid - MIDDLE).argmin(), np.abs(grid - MIDDLE - HALF).argmin())
    assert last[top] - last[right] == pytest.approx(exact[top] - exact[right], abs=kT)


def test_energy_is_kept_but_for_the_work_of_the_hills() -> None:
    hills = Hills(height=0.02, pace=20, bias_factor=5.0)
    run = run_of(400, 1, hills, conserved=True)
    frames = run.advance(400)
    conserved = np.array([frame.info["conserved"] for frame in frames])
    assert run.work[0] > 0.05, "hills were set where the walker was"
    assert conserved.std() < 0.003
    assert all(frame.info["collective_variables"].shape == (1,) for frame in frames)
    expected = DoubleWell().predict(frames)[-1]
    assert frames[-1].info["energy"] == pytest.approx(expected.energy), "the bias is taken off"


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened() -> None:
    hills = Hills(pace=20)
    whole, first, second = (run_of(100, 2, hills) for _ in range(3))
    whole.advance(100)
    first.advance(47)
    second.restore(first.state())
    second.advance(53)
    assert np.array_equal(second.bias.centres, whole.bias.centres)
    assert np.array_equal(second.bias.heights, whole.bias.heights)
    for a, b in zip(second.trajectories(), whole.trajectories(), strict=True):
        assert np.array_equal(a.final.positions, b.final.positions)


def test_the_sampler_carries_its_hills_on() -> None:
    sampler = sampler_from_name(
        "metadynamics",
        {"variables": ["distance:0,1"], "steps": 60, "pace": 10, "record_every": 20},
        potential=CalculatorPotential(EMT()),
        thresholds=Thresholds(low=0.1, high=1.0),
        seed=3,
    )
    first = sampler.run(molecule("H2O"))
    assert first.observables["num_hills"] in (5, 6) and len(first.frames) == 3
    second = sampler.go_on(first.final, first.state)
    assert second.observables["num_hills"] >= 2 * first.observables["num_hills"] - 1
    (expected,) = CalculatorPotential(EMT()).predict([first.frames[-1]])
    assert first.frames[-1].info["energy"] == pytest.approx(expected.energy)
