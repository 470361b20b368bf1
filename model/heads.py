"""Heads come and go on a trained trunk: add, remove, freeze.

None of these changes a number that another head predicts. A new head starts as a copy of one that
exists, so that a few labels of the new level are enough to tell the two apart; before it is trained
its E0 and shift are moved to the new level's labels (`tace_al.model.preparation`). Where the trunk
is told the level (the "fidelity" embedding), a new level starts with the embedding of the one it
copies.
"""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from tace_al.core.errors import ConfigError, ModelError, nearest_names
from tace_al.model.config import TRUNK
from tace_al.model.tace import Tace


def add_head(model: Tace, name: str, *, like: str | None = None) -> Tace:
    """Return the model with one more head, a copy of `like` (default: the first head).

    Raises
    ------
    ModelError
        There is no head `like`.
    ConfigError
        The model has a head of that name, or the name is no good.
    """
    if name in model.config.heads:
        raise ConfigError(f"the model has a head '{name}' already; choose another name")
    source = like or model.config.heads[0]
    model.head(source)
    heads = (*model.config.heads, name)
    return _with_heads(model, heads, {**{head: head for head in model.config.heads}, name: source})


def remove_head(model: Tace, name: str) -> Tace:
    """Return the model without one of its heads.

    Raises
    ------
    ModelError
        There is no such head, or it is the only one.
    """
    model.head(name)
    heads = tuple(head for head in model.config.heads if head != name)
    if not heads:
        raise ModelError(f"'{name}' is the model's only head; add another before removing it")
    return _with_heads(model, heads, {head: head for head in heads})


def trainable_parameters(model: Tace, frozen: Sequence[str]) -> list[nn.Parameter]:
    """Return the parameters that are neither of the frozen heads nor, if frozen, of the trunk.

    Raises
    ------
    ConfigError
        A name is neither "trunk" nor a head.
    """
    known = (TRUNK, *model.config.heads)
    for name in frozen:
        if name not in known:
            raise ConfigError(f"cannot freeze '{name}'.{nearest_names(name, known)}")
    kept = [parameter for path, parameter in model.named_parameters() if _owner(path) not in frozen]
    if not kept:
        raise ConfigError(f"freezing {', '.join(frozen)} leaves nothing to train")
    return kept


def _head_place(parts: Sequence[str]) -> int | None:
    """Return where a parameter's path names its head; None for the trunk's.

    "heads.<head>.linear.0" is a readout, "scalar_embeddings.levels.<head>" an embedding.
    """
    if parts[0] == "heads":
        return 1
    return len(parts) - 1 if "levels" in parts[:-1] else None


def _owner(path: str) -> str:
    """Return the head a parameter belongs to, or "trunk"."""
    parts = path.split(".")
    place = _head_place(parts)
    return TRUNK if place is None else parts[place]


def _with_heads(model: Tace, heads: tuple[str, ...], source: dict[str, str]) -> Tace:
    """Return a copy with other heads, each taken from a present one."""
    result = Tace(replace(model.config, heads=heads))
    present = model.state_dict()
    state: dict[str, Tensor] = {}
    for path in result.state_dict():
        parts = path.split(".")
        place = _head_place(parts)
        if place is not None:
            parts[place] = source[parts[place]]
        state[path] = present[".".join(parts)]
    result.load_state_dict(state)
    result.metadata = dict(model.metadata)
    return result.to(model.embedding.device).train(model.training)
