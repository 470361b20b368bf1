"""Named streams: repeatable, independent of each other, fit for torch and numpy."""

import numpy as np

from tace_al.core.random_generators import random_generator, random_seed


def test_a_stream_repeats() -> None:
    first, again = random_generator(3, "md", 7), random_generator(3, "md", 7)
    assert np.array_equal(first.random(5), again.random(5))


def test_streams_differ_by_seed_and_by_name() -> None:
    seeds = {random_seed(0), random_seed(1), random_seed(0, "a"), random_seed(0, "b")}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_streams_are_uncorrelated() -> None:
    draws = np.array([random_generator(0, "walker", i).normal(size=2000) for i in range(4)])
    correlation = np.corrcoef(draws) - np.eye(4)
    assert np.abs(correlation).max() < 0.1
