"""Python environments in which other codes are measured, each built by one command on first use.

Their pinned dependencies exclude one another (e3nn of MACE is years older than everyone's), so each
code has a folder of its own under $TACE_AL_BENCH_ENVS, by default the user's cache. The same
release of PyTorch goes into all of them first, or a code would be measured with another PyTorch.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tace_al.core.errors import TaceError

FOLDER = "TACE_AL_BENCH_ENVS"
TORCH = "torch==2.13.0"
OWN = "tace-al"

logger = logging.getLogger(__name__)


class PeerUnavailable(TaceError):
    """Another code cannot be installed or started here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """What a code is installed from, and the module under `benchmarks.peers` that speaks to it."""

    requirements: tuple[str, ...]
    engine: str


ENVIRONMENTS: Mapping[str, Environment] = {
    "mace": Environment(requirements=("mace-torch==0.3.16",), engine="mace_engine"),
    "tensornet": Environment(requirements=("torchmd-net==3.1.0",), engine="tensornet_engine"),
    "mace-cuda": Environment(
        requirements=(
            "mace-torch==0.3.16",
            "cuequivariance-torch",
            "cuequivariance-ops-torch-cu12",
        ),
        engine="mace_engine",
    ),
}


def engine_module(name: str) -> str:
    """Return the module that speaks to a code."""
    engine = "own_engine" if name == OWN else ENVIRONMENTS[name].engine
    return f"benchmarks.peers.{engine}"


def interpreter(name: str) -> Path:
    """Return the Python of a code's environment, building it if it is not there.

    Raises
    ------
    PeerUnavailable
        It cannot be built.
    """
    if name == OWN:
        return Path(sys.executable)
    folder = environments_folder() / name
    python = folder / "bin" / "python"
    ready = folder / "ready"
    wanted = " ".join((TORCH, *ENVIRONMENTS[name].requirements))
    if ready.exists() and ready.read_text() == wanted:
        return python
    logger.info("building an environment for %s in %s", name, folder)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([sys.executable, "-m", "venv", str(folder)], name)
    run([*install, TORCH], name)
    run([*install, TORCH, *ENVIRONMENTS[name].requirements], name)
    ready.write_text(wanted)
    return python


def environments_folder() -> Path:
    """Return the folder of all environments."""
    chosen = os.environ.get(FOLDER)
    return Path(chosen) if chosen else Path.home() / ".cache" / "tace-al" / "benchmarks"


def run(command: Sequence[str], name: str) -> None:
    """Run one step of an installation."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise PeerUnavailable(f"{name} cannot be installed: {error}") from error
    if done.returncode:
        reason = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "")
        raise PeerUnavailable(f"{name} cannot be installed: {reason.strip()}")
