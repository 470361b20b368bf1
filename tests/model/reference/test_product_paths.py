"""Every product path of the reference is a combination of ours."""

from functools import partial

import numpy as np
import pytest

from tace_al.core.errors import CheckpointError
from tace_al.model import cartesian
from tace_al.model.reference.product_paths import (
    ReferenceProduct,
    path_projections,
    precomputed_values,
    reference_couplings,
    reference_values,
)


@pytest.mark.parametrize(("l_max", "order"), [(1, 4), (2, 3), (3, 3), (3, 2)])
def test_all_paths_are_spanned(l_max: int, order: int) -> None:
    """The projection raises if a path is left over."""
    product = ReferenceProduct(l_max=l_max, outputs=range(l_max + 1), correlation=order)
    matrices = path_projections(
        partial(reference_values, product), l_in=l_max, l_out=l_max, correlation=order
    )
    assert {n for n, _ in matrices} == set(range(1, order + 1))
    if (l_max, order) == (3, 3):  # the paper's count
        assert sum(matrix.shape[1] for (n, _), matrix in matrices.items() if n == 3) == 137


def test_paths_of_a_smaller_product_fit_into_a_larger_one() -> None:
    """Layers may differ in the reference; ours has the largest of everything."""
    product = ReferenceProduct(l_max=1, outputs=(0,), correlation=2)
    matrices = path_projections(partial(reference_values, product), l_in=2, l_out=1, correlation=3)
    counts = {key: matrix.shape[1] for key, matrix in matrices.items()}
    assert counts[1, 0] == 1
    assert counts[2, 0] == 2  # m0 m0 and m1 . m1


def test_restrictions_leave_paths_out() -> None:
    """Comparisons of degrees as the reference reads them; unknown ones are refused."""
    everything = ReferenceProduct(l_max=2, outputs=(0, 1), correlation=2)
    assert (2, 1, 1) in reference_couplings(everything)[0]
    ordered = ReferenceProduct(l_max=2, outputs=(0, 1), correlation=2, l1l2="<=")
    assert (2, 1, 1) not in reference_couplings(ordered)[0]
    with pytest.raises(CheckpointError, match="unknown"):
        reference_couplings(ReferenceProduct(l_max=1, outputs=(0,), correlation=2, l1l2="~"))


def test_pseudo_tensors_are_refused() -> None:
    """(1, 2, 2) through the Levi-Civita symbol changes sign under inversion of the wrong kind."""
    odd = cartesian.contraction(1, 2, 2)  # packed (3, 5, 5)
    inputs = np.zeros((9, 13, 13))
    full = np.einsum(
        "xa,yb,abc,zc->zxy",
        cartesian.packing(1),
        cartesian.packing(2),
        odd,
        cartesian.packing(2),
    )
    inputs[:, 1:4, 4:13] = full
    with pytest.raises(CheckpointError, match="inversion"):
        path_projections(
            partial(precomputed_values, {(2, 2): inputs[..., None]}),
            l_in=2,
            l_out=2,
            correlation=2,
        )
