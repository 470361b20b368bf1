from itertools import product

import numpy as np
from ase import Atoms
from ase.build import bulk

from tace_al.analysis.supercell_shapes import supercell_shapes
from tace_al.analysis.supercells import heights, primitive_cell


def waves_held(cell: Atoms, supercell: Atoms, grid: int) -> set[tuple[int, ...]]:
    """Return the points of a grid of q whose waves fit into the supercell."""
    repeats = supercell.cell.array @ np.linalg.inv(cell.cell.array)
    points = product(range(grid), repeat=3)
    return {q for q in points if np.allclose((repeats @ q / grid) % 1.0 % 1.0, 0.0, atol=1e-6)}


def test_shapes_hold_more_waves_than_a_block_of_their_size() -> None:
    copper = bulk("Cu", a=3.6)
    block = waves_held(copper, copper.repeat(2), 4)
    shapes = supercell_shapes(copper, 8, number=12, seed=0)
    held = set().union(*(waves_held(copper, shape, 4) for shape in shapes))
    assert len(block) == 8 and held > block
    assert len(held) > 24


def test_shapes_are_crystals_of_one_size_and_none_is_a_needle() -> None:
    silicon = primitive_cell(bulk("Si", cubic=True))
    assert len(silicon) == 2
    shapes = supercell_shapes(silicon, 8, number=8, seed=3)
    assert len(shapes) == 8
    for shape in shapes:
        assert len(shape) == 16 and np.linalg.det(shape.cell.array) > 0
        np.testing.assert_allclose(shape.get_volume(), 8 * silicon.get_volume())
        distances = shape.get_all_distances(mic=True) + 10 * np.eye(16)
        np.testing.assert_allclose(distances.min(axis=1), 2.3513, atol=1e-3)
    thickness = [heights(shape).min() for shape in shapes]
    assert thickness[0] == max(thickness) and min(thickness) > 0.6 * thickness[0]


def test_few_cells_have_few_shapes() -> None:
    assert len(supercell_shapes(bulk("Cu"), 1, number=8)) == 1
