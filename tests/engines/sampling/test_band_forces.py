import numpy as np
import pytest

from tace_al.engines.sampling.band_forces import (
    band_forces,
    improved_tangents,
    is_folded,
    path_coordinate,
    spring_constants,
    unfolded,
    without_rigid_motion,
)


def straight(num_images: int) -> np.ndarray:
    """One atom that walks along x."""
    path = np.zeros((num_images, 1, 3))
    path[:, 0, 0] = np.arange(num_images)
    return path


def test_arc_length() -> None:
    assert path_coordinate(straight(4)).tolist() == [0.0, 1.0, 2.0, 3.0]


def test_tangents_point_to_the_higher_neighbour() -> None:
    path = straight(4)
    path[2, 0, 1] = 1.0
    tangents = improved_tangents(path, np.array([0.0, 1.0, 2.0, 3.0]))
    assert tangents[1, 0] == pytest.approx(np.array([1.0, 1.0, 0.0]) / np.sqrt(2))
    tangents = improved_tangents(path, np.array([3.0, 2.0, 1.0, 0.0]))
    assert tangents[1, 0] == pytest.approx([1.0, 0.0, 0.0])
    assert np.linalg.norm(tangents, axis=(1, 2)) == pytest.approx(1.0)


def test_springs_stiffen_towards_the_top() -> None:
    springs = spring_constants(np.array([0.0, 0.5, 1.0, 0.5, 0.2]), stiff=1.0, soft=0.1)
    assert springs[1] == springs[2] == 1.0
    assert springs[0] < 1.0
    assert spring_constants(np.array([1.0, 0.5, 0.0]), stiff=1.0, soft=0.1).tolist() == [0.1, 0.1]


def test_even_images_feel_only_the_force_across_the_path() -> None:
    path, energies = straight(5), np.array([0.0, 1.0, 2.0, 1.0, 0.0])
    forces = np.tile([[3.0, -0.5, 0.2]], (5, 1, 1))
    springs = np.ones(4)
    found = band_forces(path, energies, forces, springs=springs, climbing=False, rigid_free=False)
    assert np.allclose(found, [[0.0, -0.5, 0.2]])
    climbing = band_forces(path, energies, forces, springs=springs, climbing=True, rigid_free=False)
    assert climbing[1, 0] == pytest.approx([-3.0, -0.5, 0.2])
    assert climbing[0, 0] == pytest.approx([0.0, -0.5, 0.2])


def test_springs_pull_images_apart_evenly() -> None:
    path = straight(3)
    path[1, 0, 0] = 0.4
    found = band_forces(
        path,
        np.array([0.0, 1.0, 0.0]),
        np.zeros((3, 1, 3)),
        springs=np.full(2, 2.0),
        climbing=False,
        rigid_free=False,
    )
    assert found[0, 0] == pytest.approx([2.0 * (1.6 - 0.4), 0.0, 0.0])


@pytest.mark.parametrize("linear", [False, True])
def test_rigid_motion_is_taken_out_and_nothing_else(linear: bool) -> None:
    rng = np.random.default_rng(0)
    positions = rng.normal(size=(2, 5, 3))
    if linear:
        positions[..., :2] = 0.0
    rotation = np.cross(np.array([0.3, -0.2, 0.5]), positions)
    rigid = rotation + np.array([1.0, 2.0, -1.0])
    assert np.allclose(without_rigid_motion(rigid, positions), 0.0, atol=1e-10)
    vectors = rng.normal(size=(2, 5, 3))
    clean = without_rigid_motion(vectors, positions)
    assert np.allclose(clean.sum(axis=1), 0.0)
    arms = positions - positions.mean(axis=1, keepdims=True)
    assert np.allclose(np.cross(arms, clean).sum(axis=1), 0.0, atol=1e-10)
    assert np.allclose(without_rigid_motion(clean, positions), clean)


def test_a_path_that_turns_back_is_straightened_and_a_sound_one_is_not() -> None:
    path = straight(6)
    path[2, 0, 0] = 3.5
    assert is_folded(path, 2)
    assert is_folded(path, 3)
    assert not is_folded(path, 5)
    repaired = unfolded(path)
    assert not any(is_folded(repaired, top) for top in range(1, 5))
    assert np.array_equal(repaired[[0, -1]], path[[0, -1]])
    assert np.array_equal(unfolded(straight(6)), straight(6))
