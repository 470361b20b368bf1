"""One engine in a process of its own, pinned to one core: requests and answers are lines of JSON.

    python -m benchmarks.peers.worker MODULE CORE

Run by the Python of the engine's environment. Requests: {"do": "prepare", "name", "task", "frames"}
makes a model; {"do": "call", "name", "frames"} evaluates new frames and is answered with seconds of
the clock ("wall") and of the processor ("cpu"), frames having been unpacked before; {"do":
"memory"} tells KiB; {"do": "stop"} ends the process. What fails is answered with "error".

Standard output belongs to the answers; what libraries print goes to standard error.
"""

import contextlib
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO


def main() -> None:
    """Serve until the other side stops."""
    module, core = sys.argv[1], int(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if core >= 0 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    import torch

    torch.set_num_threads(1)
    engine = importlib.import_module(module)
    send(answers, {"ready": module, "versions": versions(engine.PACKAGES)})
    calls: dict[str, Any] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "stop":
            break
        try:
            send(answers, answer(request, engine.prepare, calls))
        except Exception as error:
            # whatever another code raises is a result to report, not the end of the run
            send(answers, {"error": f"{type(error).__name__}: {first_line(error)}"})


def answer(
    request: dict[str, Any], prepare: Callable[..., Any], calls: dict[str, Any]
) -> dict[str, Any]:
    """Return the answer to one request; `calls` holds what was prepared by name."""
    from benchmarks.peers.frames_text import frames_from_json
    from benchmarks.peers.task import Task

    kind = request["do"]
    if kind == "memory":
        return {"memory": memory()}
    if kind == "forget":
        calls.pop(request["name"], None)
        return {"forgotten": request["name"]}
    frames = frames_from_json(request["frames"])
    if kind == "prepare":
        task = Task(**{**request["task"], "elements": tuple(request["task"]["elements"])})
        calls[request["name"]] = (prepare(task, frames), synchronise(task.device))
        return {"prepared": request["name"]}
    call, wait = calls[request["name"]]
    wall, cpu = time.perf_counter(), time.process_time()
    value = call(frames)
    wait()
    return {
        "value": float(value),
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
    }


def synchronise(device: str) -> Callable[[], None]:
    """Return what waits for a device."""
    if device == "cpu":
        return lambda: None
    import torch

    return torch.cuda.synchronize


def memory() -> dict[str, int]:
    """Return resident memory now and its highest since the last such question, KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    entries = dict(line.split(":", 1) for line in lines)
    sizes = {name: int(entries[name].split()[0]) for name in ("VmRSS", "VmHWM")}
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return {"resident": sizes["VmRSS"], "peak": sizes["VmHWM"]}


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of what an engine runs on."""
    from importlib import metadata

    return {name: metadata.version(name) for name in packages}


def first_line(error: Exception) -> str:
    """Return a short reason."""
    return next(iter(str(error).splitlines()), "")[:300]


def send(stream: TextIO, content: dict[str, Any]) -> None:
    """Write one answer."""
    stream.write(json.dumps(content) + "\n")
    stream.flush()


if __name__ == "__main__":
    main()
