"""Checkpoints of the reference package `tace==0.1.0`, read without executing anything in them.

- `tace-export --backend state_dict`: state_dict, cfg, target_property, embedding_property,
  statistics;
- its trainer's `.ckpt`: state_dict, hyper_parameters (cfg, statistics), ema_state_dict;
- a whole pickled model (`whole_model`).

All are pickles. `torch.load(weights_only=True)` reads them with a closed list of names; classes of
the reference package are replaced by inert stand-ins that keep attributes and run nothing.
"""

import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from zipfile import BadZipFile

import torch
from torch import Tensor

from tace_al.core.errors import CheckpointError
from tace_al.model.reference.whole_model import read_whole_model, stand_ins

_PREFIX = "readout_fn."
_BUFFERS = re.compile(
    r"num_layers|atomic_numbers|cutoff|avg_num_neighbors|num_elements|prefactor|p|start|c|q|a|b|n|"
    r"covalent_radii|atomic_energy|scale|shift|bessel_weights|gaussian_weights|zeros|normalizer|_mean|"
    r"_inv_std|a_exp|a_prefactor|weights_\w+_zeroed|U_matrix_\d+|D\d+|D_\d+_\d+_1"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceCheckpoint:
    """What a checkpoint says, as plain values.

    Parameters
    ----------
    config
        The model's configuration, by the names of the reference package.
    state
        Parameters and buffers; floating-point ones in float64.
    targets
        Properties it was trained for.
    single_precision
        The weights were stored as float32.
    """

    config: Mapping[str, Any]
    state: Mapping[str, Tensor]
    targets: tuple[str, ...]
    single_precision: bool


def read_reference_checkpoint(path: str | Path) -> ReferenceCheckpoint:
    """Return the content of a checkpoint.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, or not one of the three formats.
    """
    content = _read(Path(path))
    state: Mapping[str, Any]
    if "hyper_parameters" in content:
        hyper = _mapping(content["hyper_parameters"], path)
        training = _mapping(hyper.get("cfg"), path)
        config = _mapping(_mapping(training.get("model"), path).get("config"), path)
        state = _averaged(content, training, path)
        targets = hyper.get("target_property", ())
    else:
        config = _mapping(content.get("cfg"), path)
        config = _mapping(config["model"], path)["config"] if "model" in config else config
        state = _mapping(content.get("state_dict"), path)
        targets = content.get("target_property", ())
    if not isinstance(targets, Sequence) or isinstance(targets, str):
        raise _unlike(path)
    tensors = {
        name.removeprefix(_PREFIX): tensor.detach()
        for name, tensor in state.items()
        if isinstance(name, str) and isinstance(tensor, Tensor)
    }
    floating = [tensor for tensor in tensors.values() if tensor.is_floating_point()]
    if not floating or "descriptor.node_embedding.mlp.0.weight" not in tensors:
        raise _unlike(path)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in floating):
        raise CheckpointError(f"{path} holds weights that are not finite; train that model again")
    return ReferenceCheckpoint(
        config=config,
        state={
            name: tensor.double() if tensor.is_floating_point() else tensor
            for name, tensor in tensors.items()
        },
        targets=tuple(str(name) for name in targets),
        single_precision=all(tensor.dtype != torch.float64 for tensor in floating),
    )


def _read(path: Path) -> Mapping[str, Any]:
    """Return the unpickled content, made of plain values, tensors and stand-ins only."""
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        if any(name.startswith("tace.models.") for name in foreign):
            return read_whole_model(path, foreign)
        with torch.serialization.safe_globals(cast(Any, stand_ins(foreign))):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"no checkpoint at {path}; check the path") from error
    except (pickle.UnpicklingError, BadZipFile, EOFError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(
            f"{path} is not a checkpoint of tace==0.1.0 that can be read safely ({reason[0]}); "
            "nothing in it was executed"
        ) from error
    return _mapping(content, path)


def _averaged(
    content: Mapping[str, Any], training: Mapping[str, Any], path: str | Path
) -> dict[str, Tensor]:
    """Return the weights of a `.ckpt`: their moving average where one was kept, as the reference.

    The average is a list in the order of the parameters, without names; buffers have known names.
    """
    state = {
        name.removeprefix("model."): tensor
        for name, tensor in _mapping(content.get("state_dict"), path).items()
        if name.startswith("model.")
    }
    if "ema_state_dict" not in content or "swa" in (training.get("callbacks") or {}):
        return state
    shadows = _mapping(content["ema_state_dict"], path).get("shadow_params", [])
    floating = [name for name, tensor in state.items() if tensor.is_floating_point()]
    names = [name for name in floating if not _is_buffer(name)]
    shapes = [state[name].shape for name in names]
    if [shadow.shape for shadow in shadows] != shapes:
        raise CheckpointError(
            f"the averaged weights in {path} do not fit its parameters; export it in an "
            "environment with tace==0.1.0 (tace-export --backend state_dict) and import that"
        )
    return {**state, **dict(zip(names, shadows, strict=True))}


def _is_buffer(name: str) -> bool:
    """Tell buffers from parameters by their names in the reference package."""
    return _BUFFERS.fullmatch(name.rsplit(".", 1)[-1]) is not None


def _mapping(content: object, path: str | Path) -> Mapping[str, Any]:
    """Return the content if it is a mapping with names for keys."""
    if not isinstance(content, Mapping):
        raise _unlike(path)
    return content


def _unlike(path: str | Path) -> CheckpointError:
    """Return the error for a file of another making."""
    return CheckpointError(
        f"{path} is not laid out as a checkpoint of tace==0.1.0 with the Cartesian network; later "
        "versions of that package are spherical and cannot be imported"
    )
