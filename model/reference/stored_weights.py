"""The tensors of a reference checkpoint, each to be read once: what nobody reads is an error.

Both networks store a linear map as W and apply it times a constant. `applied` is the map that acts;
our modules divide by the square root of their number of inputs, so `storable` multiplies by it.
"""

import math
import re
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from tace_al.core.errors import CheckpointError

_CONSTANTS = re.compile(
    r"(^|\.)(num_layers|atomic_numbers|cutoff|num_elements|prefactor|p|start|D_\d+_\d+_1|D\d+|"
    r"bessel_weights|avg_num_neighbors|U_matrix_\d+|weights_\w+_zeroed)$"
)


@final
class StoredWeights:
    """The state of a checkpoint, struck off as it is read."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self._state = dict(state)

    def __contains__(self, name: str) -> bool:
        return name in self._state

    def take(self, name: str) -> Tensor:
        """Return a tensor and strike it off.

        Raises
        ------
        CheckpointError
            It is not there.
        """
        tensor = self.look(name)
        del self._state[name]
        return tensor

    def look(self, name: str) -> Tensor:
        """Return a tensor that will be taken later.

        Raises
        ------
        CheckpointError
            It is not there.
        """
        if name not in self._state:
            raise CheckpointError(
                f"the checkpoint has no {name}; its weights do not fit its configuration"
            )
        return self._state[name]

    def check_all_read(self) -> None:
        """Refuse what is left, unless it follows from the configuration.

        Raises
        ------
        CheckpointError
            There is more.
        """
        left = [name for name in self._state if not _CONSTANTS.search(name)]
        if left:
            raise CheckpointError(
                f"this checkpoint has weights that have no place here ({', '.join(left[:3])}); it "
                "is not imported, since its energies would differ"
            )


def storable(applied: Tensor, inputs: int) -> Tensor:
    """Return what one of our linear maps with so many inputs must store to act as `applied`."""
    return applied * math.sqrt(inputs)


def padded(tensor: Tensor, *shape: int) -> Tensor:
    """Return a tensor filled up with zeros at the end of each axis."""
    if tensor.shape == shape:
        return tensor
    result = torch.zeros(shape, dtype=tensor.dtype)
    result[tuple(slice(size) for size in tensor.shape)] = tensor
    return result
