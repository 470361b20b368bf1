import numpy as np

from tace_al.engines.sampling.fire import Fire


def test_it_finds_the_bottom_of_a_stiff_and_a_soft_well_together() -> None:
    stiffness = np.array([[0.5, 5.0, 40.0], [1.0, 10.0, 20.0]])
    positions = np.ones((2, 3))
    fire = Fire(0.1)
    for _ in range(200):
        positions = positions + fire.step(-stiffness * positions)
    assert np.abs(positions).max() < 1e-3


def test_no_atom_moves_further_than_it_may() -> None:
    fire = Fire(0.05)
    rng = np.random.default_rng(0)
    for _ in range(20):
        step = fire.step(100.0 * rng.normal(size=(4, 3)))
        assert np.linalg.norm(step, axis=-1).max() <= 0.05 + 1e-12


def test_no_force_no_step() -> None:
    fire = Fire(0.05)
    assert not fire.step(np.zeros((2, 3))).any()
