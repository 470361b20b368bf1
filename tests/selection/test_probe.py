import numpy as np
import pytest

from tace_al.selection.probe import not_worse


def test_a_better_generation_serves_and_a_clearly_worse_one_does_not():
    rng = np.random.default_rng(0)
    old = 0.2 + 0.05 * rng.random(30)
    assert not_worse(0.8 * old, old)
    assert not_worse(1.02 * old, old)
    assert not not_worse(1.3 * old, old)


def test_a_loss_within_its_own_noise_is_forgiven():
    old = np.full(9, 0.2)
    loss = np.array([0.3, -0.2, 0.25, -0.15, 0.3, -0.2, 0.1, -0.1, -0.1])
    assert loss.mean() > 0.05 * 0.2
    assert not_worse(old + loss, old)


def test_good_enough_is_always_accepted_and_broken_never():
    assert not_worse(np.full(5, 0.009), np.full(5, 0.001))
    assert not not_worse(np.array([0.1, np.nan]), np.array([0.1, 0.1]))
    assert not_worse(np.array([0.1, 0.1]), np.array([0.1, np.nan]))
    assert not_worse(np.zeros(0), np.zeros(0))


def test_probe_sets_must_match():
    with pytest.raises(ValueError, match="same structures"):
        not_worse(np.ones(2), np.ones(3))
