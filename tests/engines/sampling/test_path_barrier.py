import numpy as np
import pytest

from tace_al.engines.sampling.path_barrier import highest_point


def test_a_cubic_is_met_exactly_between_images() -> None:
    s = np.array([0.0, 0.7, 2.0])
    energies, slopes = s**2 * (3.0 - 2.0 * s), 6.0 * s * (1.0 - s)
    assert highest_point(s, energies, -slopes) == pytest.approx(1.0)


def test_a_parabola_is_met_exactly() -> None:
    s = np.array([0.0, 1.5])
    assert highest_point(s, s * (1.0 - s), -(1.0 - 2.0 * s)) == pytest.approx(0.25)


def test_downhill_the_start_is_highest() -> None:
    s = np.linspace(0.0, 1.0, 5)
    assert highest_point(s, -s, np.ones(5)) == 0.0


def test_a_flat_path_and_images_on_top_of_each_other() -> None:
    assert highest_point(np.array([0.0, 0.0, 1.0]), np.full(3, 2.0), np.zeros(3)) == 2.0
