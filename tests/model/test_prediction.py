"""What a committee's disagreement is, on numbers one can check by hand."""

import numpy as np
import pytest

from tace_al.core.errors import ModelError
from tace_al.model.prediction import Prediction


def test_means_and_spreads() -> None:
    forces = np.zeros((2, 2, 3))
    forces[0, 0], forces[1, 0] = [3.0, 4.0, 0.0], [-3.0, -4.0, 0.0]
    prediction = Prediction(member_energies=np.array([1.0, 3.0]), member_forces=forces)
    assert prediction.energy == 2.0
    assert prediction.energy_spread == 1.0
    assert np.array_equal(prediction.forces, np.zeros((2, 3)))
    assert prediction.force_spread == pytest.approx([5.0, 0.0])


def test_one_member_agrees_with_itself() -> None:
    prediction = Prediction(member_energies=np.array([1.0]), member_forces=np.ones((1, 4, 3)))
    assert prediction.energy_spread == 0.0
    assert not prediction.force_spread.any()


def test_a_mean_alone_has_no_spread_of_forces() -> None:
    mean = np.arange(6.0).reshape(2, 3)
    prediction = Prediction(
        member_energies=np.array([1.0, 3.0]), member_forces=np.zeros((0, 2, 3)), mean_forces=mean
    )
    assert prediction.energy_spread == 1.0
    assert np.array_equal(prediction.forces, mean)
    with pytest.raises(ModelError, match="only their mean"):
        _ = prediction.force_spread
