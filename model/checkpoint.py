"""Checkpoints: one `.tace` file, safetensors with a JSON header. No pickle is ever read.

The header holds the configuration that rebuilds the network and the metadata of its training
(seed, parents, training-set hash, versions). A file from a later format version is refused; one
from an earlier version is brought up to date step by step (`MIGRATIONS`) and means the same model:

    1   one scale and shift a head
    2   scale and shift of every species
"""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from tace_al.core.atomic_write import write_bytes
from tace_al.core.errors import CheckpointError, ConfigError
from tace_al.model.config import TaceConfig
from tace_al.model.tace import Tace

FORMAT = "tace"
FORMAT_VERSION = 2


def _scales_of_species(config: TaceConfig, state: dict[str, Tensor]) -> None:
    """Repeat the one scale and shift of every head for each species."""
    num_species = len(config.elements)
    for name in list(state):
        if name.startswith("heads.") and name.endswith((".scale", ".shift")):
            state[name] = state[name].reshape(1).expand(num_species).clone()


MIGRATIONS: dict[int, Callable[[TaceConfig, dict[str, Tensor]], None]] = {1: _scales_of_species}
"""What brings the weights of a version to the next, in place."""


def save(model: Tace, path: str | Path) -> None:
    """Write a model to `path`, whole or not at all."""
    header = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "config": model.config.to_dict(),
        "metadata": model.metadata,
    }
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    text = {"tace": json.dumps(header, sort_keys=True)}
    write_bytes(Path(path), safetensors.torch.save(state, metadata=text))


def read_header(path: str | Path) -> dict[str, Any]:
    """Return the JSON header of a checkpoint without reading its weights.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, not a checkpoint, or from a later version.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as content:
            header = json.loads((content.metadata() or {}).get("tace", "null"))
    except FileNotFoundError as error:
        raise CheckpointError(f"no model at {path}; check the path") from error
    except (OSError, safetensors.SafetensorError, struct.error, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path} is not a .tace checkpoint ({error}); nothing in it was executed. "
            "Use a file that `tace-al train` or a campaign wrote"
        ) from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CheckpointError(f"{path} is a safetensors file but not a TACE model")
    if not isinstance(header.get("version"), int):
        raise CheckpointError(
            f"{path} is damaged: its header has no version; train the model again"
        )
    if header["version"] > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has checkpoint version {header['version']}, this release reads up to "
            f"{FORMAT_VERSION}; install a newer tace-al"
        )
    return header


def load(path: str | Path, *, device: str = "cpu") -> Tace:
    """Return the model in `path`, exactly as it was saved.

    Raises
    ------
    CheckpointError
        See `read_header`; also when the weights do not fit the configuration.
    """
    header = read_header(path)
    try:
        config = TaceConfig.from_dict(header["config"])
        state = safetensors.torch.load_file(path)
        for version in range(header["version"], FORMAT_VERSION):
            MIGRATIONS[version](config, state)
        model = Tace(config)
        model.load_state_dict(state)
    except (RuntimeError, KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"the weights in {path} do not fit its header: {error}") from error
    model.metadata = header["metadata"]
    return model.to(device).eval()
