from collections.abc import Sequence
from typing import final

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from tace_al.core.errors import ConfigError
from tace_al.engines.sampling.integrators import ConstantEnergy, NoseHooverChain
from tace_al.engines.sampling.md import DynamicsSampler, integrator_for
from tace_al.engines.sampling.potential import CalculatorPotential, Potential
from tace_al.engines.sampling.sampler import Thresholds
from tace_al.model.prediction import Prediction


@final
class Doubtful(Potential):
    """EMT twice, the second time with forces that are wrong by a share of the stretch."""

    def __init__(self, share: float) -> None:
        self.share, self.sure = share, CalculatorPotential(EMT())
        self.rest = molecule("H2O").positions

    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        """Return what both say."""
        answers = []
        for atoms, one in zip(frames, self.sure.predict(frames), strict=True):
            wrong = self.share * (atoms.positions - self.rest - atoms.positions.mean(axis=0))
            forces = np.stack([one.member_forces[0] + wrong, one.member_forces[0] - wrong])
            answers.append(Prediction(member_energies=np.full(2, one.energy), member_forces=forces))
        return answers


def test_uncertain_frames_come_home_with_their_bonds() -> None:
    sampler = DynamicsSampler(
        Doubtful(0.5),
        Thresholds(low=0.15, high=50.0),
        temperature=600.0,
        steps=300,
        gap=5,
        max_uncertain=3,
        record_every=20,
    )
    chunk = sampler.run(molecule("H2O"))
    assert chunk.outcome == "uncertain" and len(chunk.uncertain) == 3
    steps = [frame.info["step"] for frame in chunk.uncertain]
    assert np.diff(steps).min() >= 5
    assert all(frame.info["uncertainty"] >= 0.15 for frame in chunk.uncertain)
    assert all("bond_event" in frame.info for frame in chunk.frames)
    assert chunk.final.get_momenta().any()


def test_a_broken_frame_never_comes_home() -> None:
    sampler = DynamicsSampler(Doubtful(0.5), Thresholds(low=0.01, high=0.1), steps=300)
    chunk = sampler.run(molecule("H2O"))
    assert chunk.outcome == "broken" and "reject level" in chunk.reason
    assert all(frame.info["uncertainty"] < 0.1 for frame in chunk.frames)


def test_pressure_in_a_chunk() -> None:
    crystal = bulk("Cu", cubic=True)
    sampler = DynamicsSampler(
        CalculatorPotential(EMT()),
        Thresholds(low=0.1, high=1.0),
        ensemble="npt",
        temperature=10.0,
        pressure_gpa=0.0,
        pressure_end_gpa=20.0,
        pressure_period_fs=300.0,
        timestep_fs=4.0,
        steps=150,
    )
    chunk = sampler.run(crystal)
    assert chunk.outcome == "known"
    assert 0.80 < chunk.final.get_volume() / crystal.get_volume() < 0.95


def test_integrators_by_ensemble() -> None:
    assert integrator_for("nve") == ConstantEnergy()
    assert integrator_for("nvt", thermostat="nose-hoover", period_fs=30.0) == NoseHooverChain(
        period_fs=30.0
    )
    assert integrator_for("npt", shape="axes").moves_cell
    with pytest.raises(ConfigError, match="Langevin"):
        integrator_for("npt", thermostat="nose-hoover")
