"""Parsl from start to stop: submit, tell when it is broken, and end within bounded time.

Parsl's weak spots, met here: when its interchange dies, futures hang for ever, sends block and
cleanup waits for an answer that never comes. So sends and commands get time limits, `failure` says
within a poll that something died, and `stop` gives the orderly way a few seconds in a thread of
its own before the lifeline kills what is left.
"""

import logging
import os
import re
import shutil
import signal
import tempfile
import threading
from concurrent.futures import Future, InvalidStateError
from pathlib import Path
from typing import Any, final

import zmq
from parsl.dataflow.dflow import DataFlowKernel
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from parsl.providers import LocalProvider

from tace_al.core.errors import DispatchError
from tace_al.dispatch.apps import run_request
from tace_al.dispatch.executors import LABEL, parsl_config
from tace_al.dispatch.lifeline import Lifeline
from tace_al.dispatch.machine import Machine
from tace_al.dispatch.request import Request

RUN_AGAIN = "run the same command again, finished work is kept"
_SEND_LIMIT_MS = 5_000
_ANSWER_LIMIT_MS = 20_000
_LOCAL_STOP_S = 3.0
# Parsl pastes its folder into shell lines without quotes.
_SAFE_FOLDER = re.compile(r"[A-Za-z0-9_./+=:@,-]+")

logger = logging.getLogger(__name__)


@final
class ParslSession:
    """One running Parsl with one executor.

    Parameters
    ----------
    machine
        Where work runs.
    directory
        The campaign's folder; logs go to `parsl/` in it, results to `results/`.

    Raises
    ------
    DispatchError
        Parsl or its interchange does not start.
    """

    def __init__(self, machine: Machine, directory: Path) -> None:
        self._machine = machine
        self._results_dir = directory / "results"
        self._run_dir = _safe_run_dir(directory / "parsl")
        self._log = _open_log(self._run_dir / "parsl.log")
        self._lifeline: Lifeline | None = None
        if machine.executor != "threads":
            lock_path = self._run_dir / f"driver-{os.getpid()}-{id(self):x}.lock"
            self._lifeline = Lifeline(directory, lock_path)
        try:
            config = parsl_config(machine, self._run_dir, self._lifeline)
            self._kernel = DataFlowKernel(config)
        except BaseException as error:
            if self._lifeline is not None:
                self._lifeline.release()
            _close_log(self._log)
            if not isinstance(error, Exception):
                raise
            raise DispatchError(
                f"the executor of machine {machine.name!r} does not start: {error}; "
                f"see the logs in {self._run_dir}"
            ) from error
        self._executor = self._kernel.executors[LABEL]
        if isinstance(self._executor, HighThroughputExecutor):
            _limit_waits(self._executor)

    def submit(self, request: Request) -> Future[dict[str, Any]]:
        """Give a request to Parsl; the future holds an envelope's dict or Parsl's own error."""
        arguments = (
            request.to_dict(),
            str(self._results_dir),
            self._machine.threads_per_worker,
            self._machine.executor != "threads",
        )
        future: Future[dict[str, Any]] = self._kernel.submit(
            run_request,
            app_args=arguments,
            executors=[LABEL],
            cache=False,
            ignore_for_cache=None,
            app_kwargs={},
        )
        return future

    def failure(self) -> str | None:
        """Return one sentence on what has died, or None while all is well."""
        executor = self._executor
        if not isinstance(executor, HighThroughputExecutor):
            return None
        if executor.bad_state_is_set:
            cause = " ".join(str(executor.executor_exception).split())
            return (
                f"the workers of machine {self._machine.name!r} do not start or stay up ({cause})"
            )
        interchange, results = executor.interchange_proc, executor._result_queue_thread
        if interchange is None or interchange.poll() is not None:
            return "Parsl's interchange process, which hands work to the workers, has died"
        if results is None or not results.is_alive():
            return "Parsl's result thread, which collects results, has died"
        return None

    def restart_pool(self) -> None:
        """Kill the pool of workers of this computer; Parsl notices and starts another."""
        executor = self._executor
        if not isinstance(executor, HighThroughputExecutor):
            return
        if isinstance(executor.provider, LocalProvider):
            for job in executor.provider.resources.values():
                try:
                    os.killpg(os.getpgid(job["remote_pid"]), signal.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    continue

    def give_up(self, reason: str) -> None:
        """Fail everything that is still with Parsl, so that none of its threads wait for it."""
        executor = self._executor
        if isinstance(executor, HighThroughputExecutor) and not executor.bad_state_is_set:
            try:
                executor.set_bad_state_and_fail_all(DispatchError(reason))
            except (InvalidStateError, RuntimeError):  # a result landed meanwhile
                logger.debug("a result landed while the executor was given up")

    def stop(self) -> None:
        """End Parsl and every process it started, within seconds."""
        executor = self._executor
        limit = _LOCAL_STOP_S
        if self._machine.slurm is not None:
            limit += self._machine.slurm.cancel_timeout_s
        if isinstance(executor, ThreadPoolExecutor):
            # Parsl would wait for running tasks here; a thread cannot be killed.
            executor.executor.shutdown(wait=False, cancel_futures=True)
        cleaner = threading.Thread(target=self._clean_up, name="parsl-cleanup", daemon=True)
        try:
            cleaner.start()
            cleaner.join(limit)
        finally:
            if self._lifeline is not None:
                self._lifeline.release()
            if isinstance(executor, HighThroughputExecutor):
                self._reap(executor)
            _close_log(self._log)
        if cleaner.is_alive():
            logger.info(
                "Parsl did not end by itself within %.0f s; its processes were killed", limit
            )
        if self._run_dir.name.startswith("tace-al-parsl-"):
            shutil.rmtree(self._run_dir, ignore_errors=True)

    def _clean_up(self) -> None:
        try:
            self._kernel.cleanup()
        except Exception as error:  # Parsl's own; the processes are killed by the lifeline
            logger.debug("Parsl's cleanup failed: %s", error)

    def _reap(self, executor: HighThroughputExecutor) -> None:
        """Collect the dead interchange and let Parsl's threads end."""
        executor._result_queue_thread_exit.set()
        if executor.interchange_proc is not None:
            executor.interchange_proc.wait(timeout=5)


def _open_log(path: Path) -> logging.Handler:
    """Send Parsl's warnings to a file; it reports lost workers with pages of traceback."""
    handler = logging.FileHandler(path, delay=True)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    parsl_logger = logging.getLogger("parsl")
    parsl_logger.addHandler(handler)
    parsl_logger.propagate = False
    return handler


def _close_log(handler: logging.Handler) -> None:
    logging.getLogger("parsl").removeHandler(handler)
    handler.close()


def _limit_waits(executor: HighThroughputExecutor) -> None:
    """Put time limits on sends and commands to the interchange, which else wait for ever."""
    executor.outgoing_q.zmq_socket.setsockopt(zmq.SNDTIMEO, _SEND_LIMIT_MS)
    commands = executor.command_client.zmq_socket
    commands.setsockopt(zmq.SNDTIMEO, _SEND_LIMIT_MS)
    commands.setsockopt(zmq.RCVTIMEO, _ANSWER_LIMIT_MS)


def _safe_run_dir(folder: Path) -> Path:
    """Return `folder`, or a temporary one when its name needs quotes in a shell."""
    folder = folder.resolve()
    if _SAFE_FOLDER.fullmatch(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    return Path(tempfile.mkdtemp(prefix="tace-al-parsl-"))
