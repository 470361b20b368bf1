"""A run on disk: a trajectory and a table that grow, and a state from which the run goes on.

    trajectory.xyz   frames, extended XYZ, `walker` in their info
    log.csv          one row a frame: step, time, energies, temperature, pressure, error bar
    state.npz        everything needed to go on, and how long the two files were then

Frames are appended and flushed first, then the state replaces the old one at once. A run killed at
any instant goes on from its last state, the files cut to their lengths at that time, and ends with
the numbers of a run that was never interrupted.
"""

import fcntl
import io
import json
import os
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final
from zipfile import BadZipFile

import ase.io
import numpy as np
from ase import Atoms

from tace_al.core.atomic_write import require_free_space, write_bytes
from tace_al.core.errors import ConfigError, DataError
from tace_al.core.units import GPA
from tace_al.engines.sampling.batched_md import BatchedDynamics
from tace_al.engines.sampling.bond_events import BondTracker
from tace_al.engines.sampling.walkers import Trajectory

TRAJECTORY, LOG, STATE = "trajectory.xyz", "log.csv", "state.npz"
SAVE_SECONDS = 5.0
"""Wall time between two states; what a kill costs at most."""

COLUMNS = {
    "walker": "walker",
    "step": "step",
    "time_fs": "time_fs",
    "energy_ev": "energy",
    "conserved_ev": "conserved",
    "temperature_k": "temperature",
    "pressure_gpa": "pressure",
    "volume_a3": "volume",
    "uncertainty_ev_per_a": "uncertainty",
}
"""Columns of the table, and the entries of a frame's info they come from."""


class Resumable(ABC):
    """Something that advances step by step and can be taken up again."""

    @property
    @abstractmethod
    def running(self) -> bool:
        """Whether there is anything left to do."""

    @abstractmethod
    def advance(self, num_steps: int) -> Sequence[Atoms]:
        """Go on for at most some steps; return the frames to keep, in order."""

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """Return plain arrays from which `restore` goes on as if nothing had happened."""

    @abstractmethod
    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take up a state of a run with the same settings."""


@final
class WalkerRun(Resumable):
    """Batched dynamics with bond events in its frames.

    Parameters
    ----------
    dynamics
        With `record_every` above zero.
    scale
        Calibration of the committee: a frame's `uncertainty` becomes an error bar.
    """

    def __init__(self, dynamics: BatchedDynamics, *, scale: float = 1.0) -> None:
        self.dynamics = dynamics
        self.scale = scale
        self.bonds = tuple(BondTracker(walker.atoms) for walker in dynamics.walkers)

    @property
    def running(self) -> bool:
        """Whether a walker still moves."""
        return self.dynamics.num_moving > 0

    def advance(self, num_steps: int) -> Sequence[Atoms]:
        """Move every walker; return their frames in order of steps."""
        self.dynamics.run(num_steps)
        frames = []
        for index, frame in self.dynamics.take_frames():
            frame.info["walker"] = index
            frame.info["uncertainty"] *= self.scale
            self.bonds[index].look(frame).store(frame)
            frames.append(frame)
        return frames

    def trajectories(self) -> tuple[Trajectory, ...]:
        """Return how each walker stands; frames that `advance` returned are not in it."""
        return self.dynamics.trajectories()

    def state(self) -> dict[str, np.ndarray]:
        """Return the state of the dynamics and of the bonds."""
        bonds = {f"bonds_{i}": tracker.state() for i, tracker in enumerate(self.bonds)}
        return {**self.dynamics.state(), **bonds}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take up dynamics and bonds."""
        self.dynamics.restore(state)
        for index, tracker in enumerate(self.bonds):
            tracker.restore(state[f"bonds_{index}"])


def record_run(
    run: Resumable, folder: Path, *, settings: Mapping[str, Any], block: int = 50
) -> bool:
    """Carry a run to its end in a folder, going on where the folder's state says.

    Parameters
    ----------
    settings
        Plain values that decide the numbers of the run, without its length; a state of others is
        refused.
    block
        Steps from one look at the clock to the next.

    Returns
    -------
    bool
        Whether it went on from an earlier state.

    Raises
    ------
    ConfigError
        The folder holds a run with other settings, or another process runs in it.
    DataError
        The state or the files are damaged.
    """
    with _only_run(folder):
        return _carried(run, folder, settings, block)


@contextmanager
def _only_run(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system releases it when the process dies."""
    with (folder / "run.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another process is running in {folder}; wait for it, or name another folder with "
                "--out"
            ) from error
        yield


def _carried(run: Resumable, folder: Path, settings: Mapping[str, Any], block: int) -> bool:
    """Carry a run to its end; return whether it went on from an earlier state."""
    text = json.dumps(dict(settings), sort_keys=True, default=str)
    resumed = (folder / STATE).exists()
    if resumed:
        _take_up(run, folder, text)
    else:
        for name in (TRAJECTORY, LOG):
            (folder / name).unlink(missing_ok=True)
        _append(folder / LOG, (",".join(COLUMNS) + "\n").encode())
    saved = time.monotonic()
    waiting: list[Atoms] = []
    while run.running:
        waiting.extend(run.advance(block))
        if time.monotonic() - saved > SAVE_SECONDS:
            _save(run, folder, waiting, settings=text)
            waiting, saved = [], time.monotonic()
    _save(run, folder, waiting, settings=text)
    return resumed


def read_log(folder: Path) -> dict[str, np.ndarray]:
    """Return the columns of the table by name; what a row lacks is NaN."""
    content = np.genfromtxt(folder / LOG, delimiter=",", names=True, dtype=float, ndmin=1)
    return {name: np.atleast_1d(content[name]) for name in COLUMNS}


def _take_up(run: Resumable, folder: Path, settings: str) -> None:
    """Restore a run and cut its files to the lengths they had."""
    try:
        whole = io.BytesIO((folder / STATE).read_bytes())
        with np.load(whole, allow_pickle=False) as content:
            state = {name: content[name] for name in content.files}
        known = str(state["run_settings"])
        lengths = {TRAJECTORY: int(state["run_lengths"][0]), LOG: int(state["run_lengths"][1])}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise DataError(
            f"{folder / STATE} is no state of a run ({error}); remove it to begin anew"
        ) from error
    if known != settings:
        raise ConfigError(
            f"{folder} holds a run with other settings ({_difference(known, settings)}); name "
            f"another folder with --out, or remove {folder / STATE} to begin anew"
        )
    for name, length in lengths.items():
        path = folder / name
        size = path.stat().st_size if path.exists() else 0
        if size < length:
            raise DataError(
                f"{path} has {size} bytes, {length} are known to the run; it was changed, remove "
                f"{folder / STATE} to begin anew"
            )
        if path.exists():
            os.truncate(path, length)
    run.restore(state)


def _save(run: Resumable, folder: Path, frames: Sequence[Atoms], *, settings: str) -> None:
    """Append frames and rows, then replace the state."""
    require_free_space(folder.absolute())
    if frames:
        text = io.StringIO()
        ase.io.write(text, list(frames), format="extxyz")
        _append(folder / TRAJECTORY, text.getvalue().encode())
        _append(folder / LOG, "".join(_row(frame) for frame in frames).encode())
    paths = [folder / TRAJECTORY, folder / LOG]
    lengths = [path.stat().st_size if path.exists() else 0 for path in paths]
    buffer = io.BytesIO()
    arrays = {**run.state(), "run_settings": np.array(settings), "run_lengths": np.array(lengths)}
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_bytes(folder / STATE, buffer.getvalue())


def _row(frame: Atoms) -> str:
    """Return a frame's line of the table."""
    info = dict(frame.info)
    if "pressure" in info:
        info["pressure"] = info["pressure"] / GPA
    values = [info.get(name, 0 if name == "walker" else "") for name in COLUMNS.values()]
    return ",".join(str(value) if value == "" else repr(float(value)) for value in values) + "\n"


def _append(path: Path, content: bytes) -> None:
    """Append to a file and see it on disk."""
    with path.open("ab") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _difference(known: str, wanted: str) -> str:
    """Return the first setting that differs, for messages."""
    old, new = json.loads(known), json.loads(wanted)
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            return f"{name}: {old.get(name)}, not {new.get(name)}"
    return "in their order"
