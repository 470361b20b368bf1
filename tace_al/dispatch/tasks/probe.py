"""The task that does nothing useful: it checks a machine, and misbehaves on demand in tests.

Payload: `action` is "echo", "sleep", "raise", "exit", "kill" or "spawn"; `value` comes back;
`seconds` is how long; `once` (a path) makes the action happen only while that file is missing.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


class OddError(Exception):
    """An error that does not survive pickling, as many libraries have."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


def run(payload: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Do what the payload says; return `value` and where it was done."""
    once = payload.get("once")
    if once is None or not Path(once).exists():
        if once is not None:
            Path(once).touch()
        _act(payload, folder)
    return {
        "value": payload.get("value"),
        "pid": os.getpid(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def _act(payload: dict[str, Any], folder: Path) -> None:
    match payload.get("action", "echo"):
        case "echo":
            (folder / "echo.txt").write_text(str(payload.get("value")))
        case "sleep":
            time.sleep(payload["seconds"])
        case "raise":
            raise OddError("one", "two")
        case "exit":
            os._exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "spawn":
            command = [sys.executable, "-c", f"import time; time.sleep({payload['seconds']})"]
            subprocess.run(command, check=True, start_new_session=True)
        case action:
            raise ValueError(f"the probe knows no action {action!r}")
