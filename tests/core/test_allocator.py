"""The allocator can be told to keep freed memory, and tensors survive it."""

import numpy as np

from tace_al.core.allocator import keep_freed_memory


def test_arrays_work_after_the_thresholds_are_raised() -> None:
    assert isinstance(keep_freed_memory(), bool)
    blocks = [np.full(1 << 18, float(number)) for number in range(4)]
    assert [block.mean() for block in blocks] == [0.0, 1.0, 2.0, 3.0]
