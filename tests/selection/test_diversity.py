import numpy as np
import pytest

from tace_al.selection.diversity import (
    nearest_distances,
    spread_out,
    structure_descriptor,
    typical_distance,
)


def test_every_cluster_is_visited_before_any_twice():
    rng = np.random.default_rng(0)
    centres = 10.0 * np.eye(5)
    points = np.concatenate([centre + 0.1 * rng.normal(size=(40, 5)) for centre in centres])
    picked = spread_out(points, count=5, covered=np.zeros((0, 5)))
    assert sorted(index // 40 for index in picked.chosen) == [0, 1, 2, 3, 4]


def test_covered_regions_are_left_for_last():
    points = np.array([[0.0, 0.0], [0.5, 0.0], [5.0, 0.0], [9.0, 0.0]])
    picked = spread_out(points, count=4, covered=np.array([[9.5, 0.0]]))
    assert picked.chosen == (0, 2, 1, 3)


def test_greedy_cover_is_within_twice_the_best_radius():
    rng = np.random.default_rng(1)
    points = rng.normal(size=(12, 2))
    chosen = spread_out(points, count=3, covered=np.zeros((0, 2))).chosen
    radius = nearest_distances(points, points[list(chosen)]).max()
    triples = [(a, b, c) for a in range(12) for b in range(a) for c in range(b)]
    best = min(nearest_distances(points, points[list(triple)]).max() for triple in triples)
    assert radius <= 2 * best + 1e-12


def test_near_duplicates_of_covered_and_chosen_are_rejected():
    rng = np.random.default_rng(2)
    points = rng.normal(size=(20, 4))
    points[7] = points[3] + 1e-6
    picked = spread_out(points, count=20, covered=points[11:12])
    assert set(picked.duplicates) == {11, 7} and 3 in picked.chosen
    assert len(picked.chosen) == 18


def test_weight_decides_where_nothing_is_covered_and_breaks_equal_distances():
    points = np.array([[0.0], [1.0], [2.0]])
    picked = spread_out(points, count=2, covered=np.zeros((0, 1)), weights=np.array([1, 3, 2.0]))
    assert picked.chosen == (1, 2)


def test_order_is_deterministic_and_prefixes_agree():
    points = np.random.default_rng(3).normal(size=(50, 3))
    whole = spread_out(points, count=50, covered=points[:1]).chosen
    assert spread_out(points, count=10, covered=points[:1]).chosen == whole[:10]


def test_no_candidates_and_one_candidate():
    assert spread_out(np.zeros((0, 3)), count=5, covered=np.zeros((0, 3))).chosen == ()
    assert spread_out(np.ones((1, 3)), count=5, covered=np.zeros((0, 3))).chosen == (0,)
    assert spread_out(np.ones((1, 3)), count=5, covered=np.ones((1, 3))).duplicates == (0,)


def test_outliers_do_not_move_the_typical_distance():
    points = np.random.default_rng(4).normal(size=(200, 3))
    far = np.concatenate([points, np.full((5, 3), 1e4)])
    assert typical_distance(far) == pytest.approx(typical_distance(points), rel=0.1)


def test_descriptor_ignores_order_and_repetition_of_atoms_but_not_species():
    rng = np.random.default_rng(5)
    features, numbers = rng.normal(size=(6, 4)), np.array([8, 1, 1, 8, 1, 6])
    order = rng.permutation(6)
    species = (1, 6, 7, 8)
    one = structure_descriptor(features, numbers, species=species)
    assert one.shape == (32,)
    other = structure_descriptor(features[order], numbers[order], species=species)
    assert other == pytest.approx(one, abs=1e-14)
    twice = structure_descriptor(np.tile(features, (2, 1)), np.tile(numbers, 2), species=species)
    assert twice == pytest.approx(one, abs=1e-14)
    assert one[16:24] == pytest.approx(np.zeros(8))  # no nitrogen
    swapped = structure_descriptor(features, np.array([1, 8, 1, 8, 1, 6]), species=species)
    assert np.abs(swapped - one).max() > 0.1
    with pytest.raises(ValueError, match=r"\[8\] are not among"):
        structure_descriptor(features, numbers, species=(1, 6))


def test_weights_must_be_positive_numbers():
    with pytest.raises(ValueError, match="positive"):
        spread_out(np.ones((1, 2)), count=1, covered=np.zeros((0, 2)), weights=np.array([np.nan]))
