"""Machines as files: YAML or TOML with the fields of `Machine`, one file a machine.

A file is named by its path, or by its name alone when it lies in the user's folder
`~/.config/tace-al/machines/` (below `$XDG_CONFIG_HOME` where that is set).
"""

import os
import tomllib
from pathlib import Path
from typing import Any

import yaml

from tace_al.core.errors import ConfigError

SUFFIXES = (".yaml", ".yml", ".toml")


def machines_folder() -> Path:
    """Return the user's folder of machine files, which need not exist."""
    root = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(root) / "tace-al" / "machines"


def is_machine_file(name: str) -> bool:
    """Return True when a machine is named by the path of a file."""
    return Path(name).suffix in SUFFIXES or "/" in name


def machine_files() -> dict[str, Path]:
    """Return the machine files of the user's folder by name."""
    folder = machines_folder()
    if not folder.is_dir():
        return {}
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES}


def read_machine_file(path: Path) -> dict[str, Any]:
    """Return the content of a machine file.

    Raises
    ------
    ConfigError
        There is no such file, or it is no mapping in YAML or TOML.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no machine file {path}; give the path of one, or put it into "
            f"{machines_folder()} and give its name"
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError, tomllib.TOMLDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"the machine file {path} cannot be read: {reason}") from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"the machine file {path} holds no machine; write fields such as 'slurm:' as in "
            "docs/guides/slurm.md"
        )
    return {str(name): value for name, value in content.items()}
