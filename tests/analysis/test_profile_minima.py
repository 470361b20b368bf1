import numpy as np
import pytest

from tace_al.analysis.profile_minima import basins
from tace_al.analysis.time_series import drift_and_noise, mean_and_error, slope


def test_wiggles_are_no_basins() -> None:
    x = np.linspace(-1.6, 1.6, 401)
    energies = 0.3 * (x**2 - 1.0) ** 2 + 0.05 * x + 0.005 * np.sin(60.0 * x)
    found = basins(x, energies, depth=0.03)
    assert found.places == pytest.approx([-1.0, 1.0], abs=0.1)
    assert found.energies == pytest.approx([0.0, 0.1], abs=0.02)
    assert found.barriers == pytest.approx([0.35], abs=0.02)
    assert len(basins(x, energies, depth=0.001).places) > 2


def test_a_slope_has_no_basin() -> None:
    x = np.linspace(0.0, 1.0, 50)
    assert basins(x, x, depth=0.01).places.size == 0


def test_error_of_a_mean_covers_white_noise() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        mean, error = mean_and_error(rng.normal(size=500))
        inside += abs(mean) < 2.0 * error
    assert 160 < inside < 196, "two errors of five blocks cover 88 per cent"
    assert np.isnan(mean_and_error(np.array([1.0]))[1])


def test_drift_is_told_from_noise() -> None:
    time = np.linspace(0.0, 10.0, 1000)
    noise = 0.1 * np.random.default_rng(1).normal(size=1000)
    rate, rms = drift_and_noise(time, 3.0 + 0.5 * time + noise)
    assert rate == pytest.approx(0.5, abs=0.01) and rms == pytest.approx(0.1, rel=0.1)
    assert np.isnan(slope(np.ones(3), np.arange(3.0)))
