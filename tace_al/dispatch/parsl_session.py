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
import time
from concurrent.futures import Future, InvalidStateError
from pathlib import Path
from typing import Any, final

import zmq
from parsl.dataflow.dflow import DataFlowKernel
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from parsl.jobs.states import JobState
from parsl.providers import LocalProvider

from tace_al.core.errors import DispatchError
from tace_al.dispatch.apps import run_request
from tace_al.dispatch.executors import parsl_config
from tace_al.dispatch.lifeline import Lifeline
from tace_al.dispatch.machine import Machine
from tace_al.dispatch.request import Request
from tace_al.dispatch.slurm_commands import cancel_own
from tace_al.dispatch.slurm_executor import BLOCK_FAILURES, last_line
from tace_al.dispatch.slurm_provider import SlurmBlocks

RUN_AGAIN = "run the same command again, finished work is kept"
_SEND_LIMIT_MS = 5_000
_ANSWER_LIMIT_MS = 20_000
_LOCAL_STOP_S = 3.0
# A wait in Slurm's queue is mentioned after so long.
_QUEUE_PATIENCE_S = 60.0
# Parsl pastes its folder into shell lines without quotes.
_SAFE_FOLDER = re.compile(r"[A-Za-z0-9_./+=:@,-]+")

logger = logging.getLogger(__name__)


@final
class ParslSession:
    """One running Parsl, with one executor or, on a cluster, one for each kind of block.

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
        self._machine, self._directory = machine, directory
        self._results_dir = directory / "results"
        self._run_dir = _safe_run_dir(directory / "parsl", shared=machine.slurm is not None)
        self._log = _open_log(self._run_dir / "parsl.log")
        self._waiting_since: float | None = None  # monotonic
        self._reasons_told = ""
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
        self._pools = [
            executor
            for executor in self._kernel.executors.values()
            if isinstance(executor, HighThroughputExecutor)
        ]
        for pool in self._pools:
            _limit_waits(pool)

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
            executors=[self._machine.block_of(request.kind)],
            cache=False,
            ignore_for_cache=None,
            app_kwargs={},
        )
        return future

    def failure(self) -> str | None:
        """Return one sentence on what has died, or None while all is well."""
        for pool in self._pools:
            reason = self._failure_of(pool)
            if reason is not None:
                return reason
        return None

    def waiting_for(self) -> str:
        """Return Slurm's reasons where all blocks of a kind wait, "" where none of them does."""
        providers = (pool.provider for pool in self._pools)
        found = {each.waiting_for for each in providers if isinstance(each, SlurmBlocks)}
        return "; ".join(sorted(found - {""}))

    def waiting_news(self) -> str:
        """Return the reasons once they have stood for a while and each time they change."""
        reasons, now = self.waiting_for(), time.monotonic()
        if not reasons:
            self._waiting_since, self._reasons_told = None, ""
            return ""
        if self._waiting_since is None:
            self._waiting_since = now
        if reasons == self._reasons_told or now - self._waiting_since < _QUEUE_PATIENCE_S:
            return ""
        self._reasons_told = reasons
        return reasons

    def _failure_of(self, pool: HighThroughputExecutor) -> str | None:
        if pool.bad_state_is_set:
            where = f"the workers of machine {self._machine.name!r} do not start or stay up"
            return f"{where} ({self._why_blocks_fail(pool)})"
        interchange, results = pool.interchange_proc, pool._result_queue_thread
        if interchange is None or interchange.poll() is not None:
            return "Parsl's interchange process, which hands work to the workers, has died"
        if results is None or not results.is_alive():
            return "Parsl's result thread, which collects results, has died"
        return None

    def _why_blocks_fail(self, pool: HighThroughputExecutor) -> str:
        """Return what the last failed block said, in one line."""
        failed = [
            status
            for status in pool.status_facade.values()
            if status.state in (JobState.FAILED, JobState.MISSING)
        ]
        if not failed:
            return " ".join(str(pool.executor_exception).split())[:500]
        last = failed[-1]
        said = last_line(last.stderr_summary or last.stdout_summary or last.message)
        line = said or f"nothing, not even to its log: do the compute nodes see {self._directory}?"
        place = f"; see {last.stderr_path}" if said and last.stderr_path else ""
        return f"{BLOCK_FAILURES} blocks in a row failed, the last said: {line}{place}"

    def restart_pool(self) -> None:
        """Kill the pool of workers of this computer; Parsl notices and starts another."""
        for pool in self._pools:
            if not isinstance(pool.provider, LocalProvider):
                continue
            for job in pool.provider.resources.values():
                try:
                    os.killpg(os.getpgid(job["remote_pid"]), signal.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    continue

    def give_up(self, reason: str) -> None:
        """Fail everything that is still with Parsl, so that none of its threads wait for it."""
        for pool in self._pools:
            if pool.bad_state_is_set:
                continue
            try:
                pool.set_bad_state_and_fail_all(DispatchError(reason))
            except (InvalidStateError, RuntimeError):  # a result landed meanwhile
                logger.debug("a result landed while the executor was given up")
        # Parsl leaves the blocks of a bad executor running, and its cleanup may hang before them.
        self._cancel_blocks()

    def stop(self) -> None:
        """End Parsl, every process it started and every block, within seconds."""
        limit = _LOCAL_STOP_S
        if self._machine.slurm is not None:
            limit += self._machine.slurm.cancel_timeout_s
        for executor in self._kernel.executors.values():
            if isinstance(executor, ThreadPoolExecutor):
                # Parsl would wait for running tasks here; a thread cannot be killed.
                executor.executor.shutdown(wait=False, cancel_futures=True)
        cleaner = threading.Thread(target=self._clean_up, name="parsl-cleanup", daemon=True)
        try:
            cleaner.start()
            cleaner.join(limit)
        finally:
            self._cancel_blocks()
            if self._lifeline is not None:
                self._lifeline.release()
            for pool in self._pools:
                _reap(pool)
            _close_log(self._log)
        if cleaner.is_alive():
            logger.info(
                "Parsl did not end by itself within %.0f s; its processes were killed", limit
            )
        if self._run_dir.name.startswith("tace-al-parsl-"):
            shutil.rmtree(self._run_dir, ignore_errors=True)

    def _cancel_blocks(self) -> None:
        """Cancel the blocks that Slurm still has, by their names and without Parsl."""
        slurm = self._machine.slurm
        if slurm is None or self._lifeline is None:
            return
        try:
            cancel_own(self._directory, self._lifeline.mark, slurm.cancel_timeout_s)
        except DispatchError as error:
            logger.warning("%s; blocks end by themselves when they hear nothing", error)

    def _clean_up(self) -> None:
        try:
            self._kernel.cleanup()
        except Exception as error:  # Parsl's own; the processes are killed by the lifeline
            logger.debug("Parsl's cleanup failed: %s", error)


def _reap(pool: HighThroughputExecutor) -> None:
    """Collect the dead interchange and let Parsl's threads end."""
    pool._result_queue_thread_exit.set()
    if pool.interchange_proc is not None:
        pool.interchange_proc.wait(timeout=5)


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


def _safe_run_dir(folder: Path, *, shared: bool) -> Path:
    """Return `folder`, or a temporary one when its name needs quotes in a shell.

    Raises
    ------
    DispatchError
        Other computers must see the folder, which a temporary one cannot give them.
    """
    folder = folder.resolve()
    if _SAFE_FOLDER.fullmatch(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    if shared:
        raise DispatchError(
            f"{folder} has characters that scripts of Slurm blocks do not survive; choose a folder "
            "of letters, digits and _./+=:@,- with --dir"
        )
    return Path(tempfile.mkdtemp(prefix="tace-al-parsl-"))
