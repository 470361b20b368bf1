"""Extras are JSON, in i-PI's units under i-PI's names and in ours under ours."""

import json

import numpy as np
import pytest

from tace_al.core.units import BOHR, HARTREE
from tace_al.engines.sampling.ipi_extras import extras_text
from tace_al.model.prediction import Prediction


@pytest.fixture
def prediction() -> Prediction:
    rng = np.random.default_rng(3)
    return Prediction(
        member_energies=rng.standard_normal(4), member_forces=rng.standard_normal((4, 5, 3))
    )


def test_members_average_to_the_mean_in_atomic_units(prediction: Prediction) -> None:
    virial = np.arange(9.0).reshape(3, 3)
    found = json.loads(extras_text(prediction, virial, "full"))
    assert np.mean(found["committee_pot"]) == pytest.approx(prediction.energy / HARTREE)
    forces = np.mean(found["committee_force"], axis=0).reshape(5, 3)
    np.testing.assert_allclose(forces, prediction.forces * BOHR / HARTREE)
    np.testing.assert_allclose(
        np.reshape(found["committee_virial"], (4, 3, 3))[2], virial / HARTREE
    )


def test_spreads_are_there_for_each_atom(prediction: Prediction) -> None:
    found = json.loads(extras_text(prediction, np.zeros((3, 3)), "spread"))
    assert "committee_force" not in found
    np.testing.assert_allclose(
        found["force_spread_ev_per_angstrom"], prediction.force_spread, atol=1e-6
    )
    assert found["max_force_spread_ev_per_angstrom"] == pytest.approx(prediction.force_spread.max())
    assert found["energy_spread_ev"] == pytest.approx(prediction.energy_spread)
    assert "raw" not in found  # i-PI keeps that name for itself


def test_none_is_empty(prediction: Prediction) -> None:
    assert extras_text(prediction, np.zeros((3, 3)), "none") == ""


def test_a_single_model_has_no_committee_and_no_spread(prediction: Prediction) -> None:
    alone = Prediction(
        member_energies=prediction.member_energies[:1], member_forces=prediction.member_forces[:1]
    )
    found = json.loads(extras_text(alone, np.zeros((3, 3)), "full"))
    assert found["force_spread_ev_per_angstrom"] == [0.0] * 5
    assert found["energy_ev"] == pytest.approx(alone.energy)
    assert not any(name.startswith("committee") for name in found)
