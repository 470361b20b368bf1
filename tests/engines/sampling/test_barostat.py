from collections.abc import Sequence
from typing import Literal, final

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT

from tace_al.core.errors import SamplerError
from tace_al.core.units import GPA
from tace_al.engines.sampling.barostat import LangevinPiston
from tace_al.engines.sampling.batched_md import BatchedDynamics
from tace_al.engines.sampling.potential import CalculatorPotential, Potential
from tace_al.engines.sampling.walkers import Walker
from tace_al.model.prediction import Prediction


@final
class NoForces(Potential):
    """Atoms that do not see each other."""

    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        """Return zeros."""
        return [
            Prediction(
                member_energies=np.zeros(1),
                member_forces=np.zeros((1, len(atoms), 3)),
                stress=np.zeros((3, 3)),
            )
            for atoms in frames
        ]


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["isotropic", "axes"])
def test_volume_of_an_ideal_gas(shape: Literal["isotropic", "axes"]) -> None:
    """V^N exp(-P V / kT): mean (N + 1) kT / P, variance (N + 1) (kT / P)^2."""
    num_atoms, temperature = 4, 300.0
    pressure = units.kB * temperature / 500.0
    gas = Atoms("Ar4", np.diag([3.0, 3.0, 3.0, 1.0])[:, :3] * 3.0, cell=[13.6] * 3, pbc=True)
    integrator = LangevinPiston(friction=0.02, period_fs=500.0, shape=shape)
    walkers = [
        Walker(gas, steps=2000, temperature=temperature, pressure=pressure, seed=seed)
        for seed in range(24)
    ]
    dynamics = BatchedDynamics(NoForces(), walkers, integrator, timestep_fs=8.0, record_every=10)
    volumes = np.array(
        [
            [frame.get_volume() for frame in walk.frames[len(walk.frames) // 4 :]]
            for walk in dynamics.run()
        ]
    )
    unit = units.kB * temperature / pressure
    error = volumes.mean(axis=1).std() / np.sqrt(len(walkers))
    assert error < 0.06 * volumes.mean()
    assert abs(volumes.mean() - (num_atoms + 1) * unit) < 3.5 * error
    assert volumes.var() == pytest.approx((num_atoms + 1) * unit**2, rel=0.25)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["isotropic", "axes"])
def test_energy_is_kept_with_that_of_cell_and_bath(shape: Literal["isotropic", "axes"]) -> None:
    """The error of the conserved energy falls with the square of the time step."""
    crystal = bulk("Cu", cubic=True)
    drifts = []
    for timestep in (4.0, 2.0):
        walker = Walker(crystal, steps=int(400 / timestep), temperature=300.0, pressure=GPA, seed=1)
        dynamics = BatchedDynamics(
            CalculatorPotential(EMT()),
            [walker],
            LangevinPiston(friction=1e-9, period_fs=300.0, piston_friction=1e-9, shape=shape),
            timestep_fs=timestep,
            record_every=1,
        )
        (walk,) = dynamics.run()
        conserved = np.array([frame.info["conserved"] for frame in walk.frames])
        volumes = np.array([frame.info["volume"] for frame in walk.frames])
        assert np.ptp(volumes) > 0.5, "the cell moves"
        drifts.append(conserved.std())
    assert drifts[1] < drifts[0] / 3.0
    assert drifts[1] < 2e-4 * len(crystal)


def test_the_cell_goes_on_from_a_state_and_needs_a_stress() -> None:
    crystal = bulk("Cu", cubic=True)

    def dynamics() -> BatchedDynamics:
        walker = Walker(crystal, steps=20, temperature=300.0, pressure=GPA, seed=3)
        return BatchedDynamics(
            CalculatorPotential(EMT()), [walker], LangevinPiston(), timestep_fs=2.0
        )

    whole, half, rest = dynamics(), dynamics(), dynamics()
    (expected,) = whole.run()
    half.run(7)
    rest.restore(half.state())
    (resumed,) = rest.run()
    assert np.array_equal(resumed.final.cell.array, expected.final.cell.array)
    assert np.array_equal(resumed.final.positions, expected.final.positions)
    slab = bulk("Cu", cubic=True)
    slab.pbc = (True, True, False)
    with pytest.raises(SamplerError, match="periodic in three"):
        BatchedDynamics(CalculatorPotential(EMT()), [Walker(slab, steps=1)], LangevinPiston()).run()
