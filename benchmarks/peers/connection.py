"""The benchmark's end of a measured process (`benchmarks.peers.worker`)."""

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import psutil
from ase import Atoms

from benchmarks.peers.environments import PeerUnavailable, engine_module, interpreter
from benchmarks.peers.frames_text import frames_to_json
from benchmarks.peers.task import Task

REPOSITORY = Path(__file__).resolve().parents[2]
VARIABLES = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    # e3nn 0.4.4 stores constants as pickles of its own
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",
}


class RequestFailed(Exception):
    """The engine answered with an error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """What one call took, in seconds, and the number it returned."""

    wall: float
    cpu: float
    value: float


@final
class Connection:
    """A running engine.

    Parameters
    ----------
    name
        "tace-al" or one of `benchmarks.peers.environments`.
    core
        Processor core to stay on; -1 for any.

    Raises
    ------
    PeerUnavailable
        The engine cannot be installed or does not start.
    """

    def __init__(self, name: str, *, core: int = -1) -> None:
        self.name = name
        command = [str(interpreter(name)), "-W", "ignore", "-m", "benchmarks.peers.worker"]
        # a file, not a pipe: nobody empties it, and a full pipe would stop the engine
        self._complaints = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [*command, engine_module(name), str(core)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            cwd=REPOSITORY,
            env={**os.environ, **VARIABLES, "PYTHONPATH": ""},
        )
        greeting = self._read()
        self.versions: dict[str, str] = greeting["versions"]

    def prepare(self, name: str, task: Task, frames: Sequence[Atoms]) -> None:
        """Make a model for a task; `frames` are the structures it is first seen with."""
        content = {"name": name, "task": asdict(task), "frames": frames_to_json(frames)}
        self._request("prepare", content)

    def call(self, name: str, frames: Sequence[Atoms]) -> Timing:
        """Evaluate frames with what was prepared under a name."""
        reply = self._request("call", {"name": name, "frames": frames_to_json(frames)})
        return Timing(wall=reply["wall"], cpu=reply["cpu"], value=reply["value"])

    def forget(self, name: str) -> None:
        """Free what was prepared under a name."""
        self._request("forget", {"name": name})

    def memory(self) -> dict[str, int]:
        """Return resident memory and its peak since the last question in KiB."""
        found: dict[str, int] = self._request("memory", {})["memory"]
        return found

    def close(self) -> None:
        """End the process."""
        if self._process.poll() is None:
            try:
                self._process.communicate(json.dumps({"do": "stop"}) + "\n", timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.communicate()
        for stream in (self._process.stdin, self._process.stdout, self._complaints):
            if stream is not None and not stream.closed:
                stream.close()

    def _request(self, kind: str, content: dict[str, Any]) -> dict[str, Any]:
        """Send a request and return its answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": kind, **content}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise RequestFailed(f"{self.name} has ended") from error
        return self._read()

    def _read(self) -> dict[str, Any]:
        """Return the next answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._complaints.seek(0)
            lines = self._complaints.read().splitlines()
            reason = lines[-1] if lines else f"exit status {code}"
            raise PeerUnavailable(f"{self.name} does not run here: {reason}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise RequestFailed(reply["error"])
        return reply


def quietest_core() -> int:
    """Return the core with the least to do at the moment, of those that may be used."""
    allowed = sorted(os.sched_getaffinity(0))
    load = psutil.cpu_percent(interval=0.5, percpu=True)
    return min(allowed, key=lambda core: load[core] if core < len(load) else 0.0)
