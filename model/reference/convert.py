"""A checkpoint of `tace==0.1.0` with the Cartesian network as a model of this package.

Energies, forces and stresses are the reference's to rounding; what cannot be had exactly is refused
by name (`refusals`). Two things differ on purpose: `pbc` means what it says, where the reference
makes whatever has a cell periodic in three directions, and a total charge must be an integer.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from tace_al.core.errors import CheckpointError
from tace_al.model.config import Dtype
from tace_al.model.reference.checkpoint import ReferenceCheckpoint, read_reference_checkpoint
from tace_al.model.reference.interaction_weights import (
    interaction_state,
    radial_state,
    residual_state,
)
from tace_al.model.reference.product_weights import product_state
from tace_al.model.reference.readout_weights import embedding_states, field_states, head_states
from tace_al.model.reference.settings import ReferenceNetwork, check_settings
from tace_al.model.reference.stored_weights import StoredWeights, padded
from tace_al.model.tace import Tace


def import_reference(
    path: str | Path, *, head_names: Sequence[str] = (), dtype: Dtype | None = None
) -> Tace:
    """Return the model in a checkpoint of the reference package.

    Parameters
    ----------
    path
        Written by `tace-export`, by the reference's trainer (`.ckpt`) or by `torch.save(model)`.
    head_names
        Names for its levels; "default", or "level_0", "level_1", ..., when empty.
    dtype
        "float32" or "float64"; the checkpoint's own precision by default.

    Raises
    ------
    CheckpointError
        The file cannot be read safely, or holds what has no exact counterpart.
    """
    checkpoint = read_reference_checkpoint(path)
    try:
        network = check_settings(checkpoint, head_names=head_names)
        model = Tace(network.config)
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        model.load_state_dict(our_state(checkpoint, network, shapes))
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"the weights in {path} do not fit its configuration ({error!r}); it is not a "
            "checkpoint of tace==0.1.0"
        ) from error
    own: Dtype = "float32" if checkpoint.single_precision else "float64"
    model = model.as_dtype(dtype or own)
    model.metadata = {"imported_from": "tace==0.1.0"}
    return model.eval()


def our_state(
    checkpoint: ReferenceCheckpoint, network: ReferenceNetwork, shapes: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """Return the weights of our network, by their names in it.

    Parameters
    ----------
    checkpoint, network
        What is imported.
    shapes
        Of every tensor in the state of our network; what the reference lacks is filled with zeros.

    Raises
    ------
    CheckpointError
        A tensor is missing, or one is left that has no place here.
    """
    stored = StoredWeights(checkpoint.state)
    embedding = stored.take("descriptor.node_embedding.mlp.0.weight")
    state = {"embedding": embedding / math.sqrt(len(embedding))}
    for index in range(network.config.num_layers):
        state |= interaction_state(stored, network, index)
        state |= radial_state(stored, network, index)
        state |= residual_state(stored, network, index)
        state |= product_state(stored, network, index)
    state |= head_states(stored, network)
    state |= embedding_states(stored, network)
    state |= field_states(stored, network)
    stored.check_all_read()
    return {name: padded(state[name], *shape) for name, shape in shapes.items()}
