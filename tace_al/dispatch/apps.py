"""The one function that workers run: `run_request`, which never raises and never repeats work.

Parsl's result thread dies, and every later result with it, when an exception does not unpickle on
the other side. So everything is caught here and goes back as an envelope of builtins. A task past
its deadline cannot be stopped from inside (blocking calls ignore exceptions), so the worker
process writes down why and kills itself; Parsl starts another.
"""

import errno
import importlib
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import psutil

from tace_al.core.allocator import keep_freed_memory
from tace_al.core.errors import DispatchError, LabelFailed, StorageFull
from tace_al.dispatch.request import FUNCTION_PREFIX, Envelope, Request, placed
from tace_al.dispatch.result_files import (
    commit_result,
    keep_failure,
    make_scratch,
    plain,
    read_result,
)

TaskFunction = Callable[[dict[str, Any], Path], dict[str, Any]]

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
TIMED_OUT = "TimedOut"
WORKER_DIED = "WorkerDied"


def thread_environment(num_threads: int) -> dict[str, str]:
    """Return the environment that gives a process `num_threads` threads that sleep when idle."""
    environment = {name: str(num_threads) for name in THREAD_VARIABLES}
    # Waiting threads that spin make two threads on a busy core tens of times slower than one.
    environment["OMP_WAIT_POLICY"] = "passive"
    return environment


def pin_threads(num_threads: int) -> None:
    """Limit torch, when it is loaded, to `num_threads` threads in the calling thread."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != num_threads:
        torch.set_num_threads(num_threads)


def run_request(
    request: dict[str, Any],
    results_dir: str,
    num_threads: int,
    own_process: bool,
) -> dict[str, Any]:
    """Run one request, or find its result; return its envelope as a dict. Never raises.

    Parameters
    ----------
    request
        What `Request.to_dict` gave.
    results_dir
        Root of the results in the campaign's folder, on a file system shared with the campaign.
    num_threads
        Threads the task may use.
    own_process
        True where the worker is a process of its own, which a deadline may kill.
    """
    root, kind, key = Path(results_dir), request["kind"], request["key"]
    started = time.time()
    scratch: Path | None = None
    deadline = _Deadline(request, root) if own_process and request["timeout_s"] else None
    try:
        if own_process:
            keep_freed_memory()
        pin_threads(num_threads)
        finished = read_result(root, kind, key)
        if finished is not None:
            return finished.to_dict()
        scratch = make_scratch(root, kind, key)
        if deadline is not None:
            deadline.start(scratch)
        function = task_function(request["function"])
        pin_threads(num_threads)
        result = plain(function(placed(request["payload"], root.parent), scratch))
        if deadline is not None:
            deadline.stop()
        envelope = Envelope(
            key=key,
            kind=kind,
            ok=True,
            result=result,
            folder="",
            worker=worker_name(),
            started=started,
            ended=time.time(),
        )
        return commit_result(root, scratch, envelope).to_dict()
    except BaseException as error:  # a worker that raises takes every later result with it
        if deadline is not None:
            deadline.stop()
        envelope = failure_envelope(kind, key, error, started)
        return keep_failure(root, scratch, envelope).to_dict()


def task_function(name: str) -> TaskFunction:
    """Return the function called "module:function".

    Raises
    ------
    DispatchError
        There is no such function in the package on this worker.
    """
    module_name, _, function_name = name.partition(":")
    if not module_name.startswith(FUNCTION_PREFIX):
        raise DispatchError(f"{name!r} is no function of tace_al; workers run nothing else")
    try:
        function: TaskFunction = getattr(importlib.import_module(module_name), function_name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise DispatchError(
            f"the worker {worker_name()} has no {name!r} ({error}); "
            "install the same version of tace-al on every machine"
        ) from error
    return function


def worker_name() -> str:
    """Return "host:pid" of this process (and the thread's name, where threads are workers)."""
    name = f"{socket.gethostname()}:{os.getpid()}"
    thread = threading.current_thread()
    number = thread.name.rpartition("_")[2]
    return f"{name}:{number}" if thread.name.startswith("ThreadPoolExecutor") else name


def failure_envelope(kind: str, key: str, error: BaseException, started: float) -> Envelope:
    """Return the envelope of a task that ended with `error`."""
    try:
        message = str(error)
    except Exception:  # an error whose text cannot be made is still an error
        message = "(the error has no readable text)"
    return Envelope(
        key=key,
        kind=kind,
        ok=False,
        result=None,
        folder="",
        error_kind=error_kind(error),
        error_message=message,
        traceback="".join(traceback.format_exception(error)),
        worker=worker_name(),
        started=started,
        ended=time.time(),
    )


def error_kind(error: BaseException) -> str:
    """Return a short name for an error: a label's own kind, "StorageFull", or the class."""
    if isinstance(error, LabelFailed):
        return error.kind
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull.__name__
    return type(error).__name__


@final
class _Deadline:
    """Kills this process, and what it started, when a task takes too long."""

    def __init__(self, request: dict[str, Any], results_dir: Path) -> None:
        self._request = request
        self._results_dir = results_dir
        self._lock = threading.Lock()
        self._stopped = False
        self._timer: threading.Timer | None = None

    def start(self, scratch: Path) -> None:
        """Start the clock."""
        started = time.time()
        self._timer = threading.Timer(self._request["timeout_s"], self._fire, (scratch, started))
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        """Stop the clock; waits while the process is being killed."""
        with self._lock:
            self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _fire(self, scratch: Path, started: float) -> None:
        with self._lock:
            if self._stopped:
                return
            envelope = timeout_envelope(self._request, started)
            keep_failure(self._results_dir, scratch, envelope)
            end_descendants()
            os.kill(os.getpid(), signal.SIGKILL)


def end_descendants(grace_s: float = 2.0) -> None:
    """End every program this process started: SIGTERM, and after a grace SIGKILL to whole groups.

    Programs are asked first, so that they may remove their files from a node's disk; a program's
    group reaches also what has lost its parent.
    """
    descendants = psutil.Process().children(recursive=True)
    groups = set()
    for process in descendants:
        try:
            groups.add(os.getpgid(process.pid))
            process.terminate()
        except (psutil.Error, ProcessLookupError):
            continue
    _, alive = psutil.wait_procs(descendants, timeout=grace_s)
    for group in groups - {os.getpgrp()}:
        try:
            os.killpg(group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    for process in alive:
        try:
            process.kill()
        except psutil.Error:
            continue


def timeout_envelope(request: dict[str, Any], started: float) -> Envelope:
    """Return the envelope of a task that ran past its deadline."""
    return Envelope(
        key=request["key"],
        kind=request["kind"],
        ok=False,
        result=None,
        folder="",
        error_kind=TIMED_OUT,
        error_message=(
            f"the task ran longer than its limit of {request['timeout_s']:g} s and was stopped; "
            "raise the limit (labeller.max_seconds of labels; longest_task_s of a Slurm machine, "
            "with its walltime), or make the task smaller"
        ),
        worker=worker_name(),
        started=started,
        ended=time.time(),
    )


def died_envelope(request: Request, num_deaths: int, last: str, started: float) -> Envelope:
    """Return the envelope of a task whose workers kept dying."""
    return Envelope(
        key=request.key,
        kind=request.kind,
        ok=False,
        result=None,
        folder="",
        error_kind=WORKER_DIED,
        error_message=(
            f"{num_deaths} workers died while they ran this task (last: {last}), so it is not "
            "tried again; look for a crash or too little memory in it"
        ),
        started=started,
        ended=time.time(),
    )
