"""Levels of a reference checkpoint as heads."""

import pytest
import torch

from tace_al.core.errors import CheckpointError
from tace_al.model.reference.checkpoint import ReferenceCheckpoint
from tace_al.model.reference.settings import heads_of, per_layer

LEVEL = {"universal_embedding": {"invariant": {"level": {"enable": True}}}}


def checkpoint(**config: object) -> ReferenceCheckpoint:
    """Return a checkpoint with a table of three levels and some settings."""
    state = {"descriptor.uie_embedding.embeddings.level.weight": torch.zeros(3, 4)}
    return ReferenceCheckpoint(
        config=config, state=state, targets=("energy",), single_precision=False
    )


def test_levels_become_heads() -> None:
    """One head a level, under the names that are given."""
    levels = checkpoint(num_levels=2, use_multi_head=True)
    assert heads_of(levels, ()) == (("level_0", "level_1"), (0, 1))
    assert heads_of(levels, ["pbe", "r2scan"]) == (("pbe", "r2scan"), (0, 1))
    assert heads_of(checkpoint(), ()) == (("default",), (0,))
    with pytest.raises(CheckpointError, match="3 names"):
        heads_of(levels, ["a", "b", "c"])


def test_levels_that_only_enter_by_an_embedding_share_a_readout() -> None:
    """Each head has a copy of the one readout there is."""
    assert heads_of(checkpoint(**LEVEL), ())[1] == (0, 0, 0)


def test_settings_for_all_layers_or_each() -> None:
    """As the reference reads them."""
    assert per_layer(2, 3) == [2, 2, 2]
    assert per_layer([1, 2], 2) == [1, 2]
