"""Grids fit fast transforms and the symmetry of a slab."""

import numpy as np
import pytest

from tace_al.engines.labelling.grids import grid_points, kpoint_grid, parsed_grid


@pytest.mark.parametrize("spacing", [0.1, 0.16, 0.18, 0.22, 0.3])
def test_points_are_close_enough_and_fast(spacing: float) -> None:
    """Every direction has points no further apart than asked, a multiple of four of them."""
    cell = np.array([[5.16, 0.0, 0.0], [2.58, 4.47, 0.0], [0.0, 0.0, 11.3]])
    for size, length in zip(grid_points(cell, spacing), np.linalg.norm(cell, axis=1), strict=True):
        assert length / size <= spacing + 1e-9
        assert size % 4 == 0
        for prime in (2, 3, 5):
            while size % prime == 0:
                size //= prime
        assert size == 1


def test_a_longer_cell_needs_fewer_kpoints() -> None:
    """Points times length stay above the density; vacuum gets one point."""
    pbc = np.array([True, True, False])
    assert kpoint_grid(np.diag([2.5, 2.5, 20.0]), pbc, 3.0) == (8, 8, 1)
    assert kpoint_grid(np.diag([5.0, 10.0, 20.0]), pbc, 3.0) == (4, 2, 1)


@pytest.mark.parametrize("text", ["2x2", "2x2x0", "2x-1x1", "ax2x2", "2 2 2"])
def test_what_is_no_grid_is_said(text: str) -> None:
    """A grid is three positive numbers."""
    with pytest.raises(ValueError, match="2x2x1"):
        parsed_grid(text)
