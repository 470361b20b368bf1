"""Hands requests to workers and brings back envelopes, whatever dies on the way.

A request waits here until a worker is free, so what has not started can be cancelled and no worker
holds a queue that is lost with it. One thread serves: it submits, repeats what the machine lost
(after a growing wait) and watches Parsl. `wait` returns envelopes and is the only place that
raises, when the executor itself is beyond repair; then running the same command again goes on,
since every finished result lies on disk under its key.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

from tace_al.core.errors import DispatchError
from tace_al.dispatch.apps import (
    TIMED_OUT,
    died_envelope,
    failure_envelope,
    timeout_envelope,
)
from tace_al.dispatch.executors import FIRST
from tace_al.dispatch.lifeline import sweep_orphans
from tace_al.dispatch.machine import LABELLER_TASKS, BlockName, Machine
from tace_al.dispatch.parsl_session import RUN_AGAIN, ParslSession
from tace_al.dispatch.request import Envelope, Request
from tace_al.dispatch.result_files import has_started, read_failure, read_result, sweep_scratch
from tace_al.dispatch.retry import RetryPolicy
from tace_al.dispatch.slurm_commands import cancel_orphans, check_slurm

OnEvent = Callable[[str, dict[str, Any]], None]

_POLL_S = 0.5
_DAY_S = 86_400.0

logger = logging.getLogger(__name__)


@final
@dataclass(kw_only=True, slots=True)
class _Flight:
    """A request between `submit` and its envelope."""

    request: Request
    running: bool = False
    landed: bool = False
    not_before: float = 0.0  # monotonic
    sent: float = 0.0  # unix
    num_losses: int = 0
    spent: float = 0.0


@final
class Dispatcher:
    """Runs requests on a machine; a context manager.

    Parameters
    ----------
    machine
        Where work runs.
    directory
        The campaign's folder: results go to `results/`, Parsl's logs to `parsl/`.
    on_event
        Called as `on_event(name, fields)` in the caller's thread, from `submit`, `wait` and
        `close`, with "orphans_swept", "blocks_cancelled", "retried", "quarantined",
        "pool_replaced", "blocks_wait", "executor_lost".
    retry
        Price of infrastructure errors.
    stall_s
        Seconds after which a task that a free worker has not begun means that the pool is stuck.
    """

    def __init__(
        self,
        machine: Machine,
        directory: Path,
        on_event: OnEvent | None = None,
        *,
        retry: RetryPolicy | None = None,
        stall_s: float = 60.0,
    ) -> None:
        self._machine = machine
        self._directory = directory.resolve()
        self._on_event = on_event
        self._retry = retry or RetryPolicy()
        self._changed = threading.Condition()
        self._flights: dict[str, _Flight] = {}
        # What each pool of workers has been given and has not brought back.
        self._num_running: dict[BlockName, int] = {"labels": 0, "models": 0}
        self._finished: list[Envelope] = []
        self._events: list[tuple[str, dict[str, Any]]] = []
        self._broken: str | None = None
        self._session: ParslSession | None = None
        self._server: threading.Thread | None = None
        self._closing = False
        self._stall_s = stall_s
        self._next_stall_check = 0.0
        self._pool_works = False

    def __enter__(self) -> Self:
        """Start the executor."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the executor and every running task."""
        self.close()

    @property
    def results_dir(self) -> Path:
        """Root folder of all results."""
        return self._directory / "results"

    @property
    def capacity(self) -> int:
        """Most tasks that ever run at once."""
        return self._machine.capacity

    @property
    def idle_workers(self) -> int:
        """How many more tasks that run a model would start at once."""
        block = self._machine.block_of("train")
        with self._changed:
            busy = sum(
                not flight.landed and self._machine.block_of(flight.request.kind) == block
                for flight in self._flights.values()
            )
            return max(0, self._machine.workers_in(block) - busy)

    @property
    def in_flight(self) -> dict[str, Request]:
        """Requests whose envelope `wait` has not returned yet, by key."""
        with self._changed:
            return {key: flight.request for key, flight in self._flights.items()}

    @property
    def waiting_for(self) -> str:
        """Slurm's reasons where all blocks of a kind wait in its queue, "" elsewhere."""
        return "" if self._session is None else self._session.waiting_for()

    def start(self) -> None:
        """Clear away what a killed driver left, and start the executor.

        Raises
        ------
        DispatchError
            The executor does not start, or this dispatcher was started before.
        ConfigError
            Slurm would never run the machine's blocks.
        """
        if self._session is not None or self._closing:
            raise DispatchError("a dispatcher starts once; make a new one")
        check_slurm(self._machine)
        self.results_dir.mkdir(parents=True, exist_ok=True)
        orphans = sweep_orphans(self._directory)
        if orphans:
            logger.info("ended %d processes that a killed run had left", orphans)
            self._events.append(("orphans_swept", {"count": orphans}))
        if self._machine.slurm is not None:
            blocks = cancel_orphans(self._directory, self._machine.slurm.cancel_timeout_s)
            if blocks:
                logger.info("cancelled %d blocks that a killed run had left", blocks)
                self._events.append(("blocks_cancelled", {"count": blocks}))
        # Blocks of a cluster may still finish what a killed driver gave them.
        sweep_scratch(self.results_dir, _DAY_S if self._machine.slurm is not None else 0.0)
        self._session = ParslSession(self._machine, self._directory)
        self._server = threading.Thread(target=self._serve, name="dispatcher", daemon=True)
        self._server.start()

    def submit(self, request: Request) -> None:
        """Have a request run, once: a key in flight is ignored, a finished one is looked up.

        Raises
        ------
        DispatchError
            The executor has died, or the dispatcher is not running.
        """
        if self._session is None or self._closing:
            raise DispatchError("the dispatcher is not running; use it in a `with` block")
        finished = self.harvest(request)
        with self._changed:
            if self._broken is not None:
                raise DispatchError(self._broken)
            if request.key in self._flights:
                return
            flight = _Flight(request=self._placed(request))
            self._flights[request.key] = flight
            if finished is not None:
                self._land(flight, finished)
            self._changed.notify_all()
        self._tell()

    def _placed(self, request: Request) -> Request:
        """Return a request as its machine runs it: on which device, and how long at most.

        Neither is part of the key: the same question has the same answer everywhere. No task runs
        longer than blocks count on, so that no block's end cuts one off.
        """
        device = self._machine.device_of(request.kind)
        if device != "cpu" and request.kind not in LABELLER_TASKS:
            request = replace(request, payload={**request.payload, "device": device})
        if self._machine.slurm is None:
            return request
        settings = self._machine.blocks[self._machine.block_of(request.kind)]
        longest = float(settings.longest_task_s)
        return replace(request, timeout_s=min(request.timeout_s or longest, longest))

    def harvest(self, request: Request) -> Envelope | None:
        """Return the finished result of a request from disk, or None; runs nothing."""
        return read_result(self.results_dir, request.kind, request.key)

    def wait(self, timeout_s: float) -> list[Envelope]:
        """Return the envelopes of finished requests; wait for the first at most `timeout_s`.

        Returns at once when nothing is in flight. A request that failed comes back too, with
        `ok` False.

        Raises
        ------
        DispatchError
            The executor has died; what it had finished was returned before.
        """
        give_up = time.monotonic() + timeout_s
        with self._changed:
            while not self._finished and self._flights and self._broken is None:
                remaining = give_up - time.monotonic()
                if remaining <= 0:
                    break
                self._changed.wait(min(remaining, _POLL_S))
            finished, self._finished = self._finished, []
            for envelope in finished:
                self._flights.pop(envelope.key, None)
            broken = self._broken
        self._tell()
        if broken is not None and not finished:
            raise DispatchError(broken)
        return finished

    def cancel_pending(self) -> list[Request]:
        """Forget the requests that have not started, and return them."""
        with self._changed:
            pending = [
                flight.request
                for flight in self._flights.values()
                if not flight.running and not flight.landed
            ]
            for request in pending:
                del self._flights[request.key]
        return pending

    def close(self) -> None:
        """Stop at once: running tasks are killed, finished results stay on disk."""
        with self._changed:
            already, self._closing = self._closing, True
            self._changed.notify_all()
        if already or self._session is None:
            return
        try:
            if self._server is not None:
                self._server.join(2.0)
            running = self._all_running if self._machine.executor == "threads" else 0
            if running:
                logger.warning(
                    "%d tasks run in threads, which cannot be stopped: "
                    "this process ends when they do",
                    running,
                )
        finally:
            self._session.stop()
        self._tell()

    @property
    def _all_running(self) -> int:
        return sum(self._num_running.values())

    def _tell(self) -> None:
        with self._changed:
            events, self._events = self._events, []
        if self._on_event is not None:
            for name, fields in events:
                self._on_event(name, fields)

    # What follows runs in the serving thread and in Parsl's callbacks.

    def _serve(self) -> None:
        """Submit, repeat and watch; a bug here becomes an error of `wait`, never a silent hang."""
        assert self._session is not None
        try:
            self._serve_until_broken()
        except Exception as error:
            logger.exception("the dispatcher's thread failed")
            with self._changed:
                self._break(f"the dispatcher's own thread failed ({error})")
        if self._broken is not None:
            self._session.give_up(self._broken)

    def _serve_until_broken(self) -> None:
        assert self._session is not None
        while True:
            failure = self._session.failure()
            with self._changed:
                if self._closing:
                    return
                if failure is not None:
                    self._break(failure)
                if self._broken is not None:
                    return
                if self._machine.executor == "threads":
                    self._expire_threads()
                else:
                    self._unstick()
                    if reasons := self._session.waiting_news():
                        logger.warning("blocks wait in Slurm's queue: %s", reasons)
                        self._events.append(("blocks_wait", {"reasons": reasons}))
                ready = self._take_ready()
                if not ready:
                    self._changed.wait(_POLL_S)
                    continue
            for flight in ready:
                self._send(flight)

    def _take_ready(self) -> list[_Flight]:
        """Return the waiting flights that may start now, marked as running."""
        now = time.monotonic()
        ready = []
        free = {
            block: self._machine.workers_in(block) - self._num_running[block]
            for block in self._machine.blocks or (FIRST,)
        }
        for flight in self._flights.values():
            if not any(free.values()):
                break
            block = self._machine.block_of(flight.request.kind)
            waiting = not flight.running and not flight.landed and flight.not_before <= now
            if waiting and free[block] > 0:
                flight.running, flight.sent = True, time.time()
                free[block] -= 1
                self._num_running[block] += 1
                ready.append(flight)
        return ready

    def _send(self, flight: _Flight) -> None:
        assert self._session is not None
        try:
            future = self._session.submit(flight.request)
        except Exception as error:  # Parsl refuses work: it would refuse it again
            with self._changed:
                self._break(self._session.failure() or f"Parsl takes no work ({error})")
            return
        future.add_done_callback(lambda done: self._receive(flight, done))

    def _receive(self, flight: _Flight, future: Future[dict[str, Any]]) -> None:
        """Take what Parsl brings for a flight; must not raise."""
        try:
            error: BaseException | None = future.exception()
        except CancelledError as cancelled:
            error = cancelled
        with self._changed:
            self._num_running[self._machine.block_of(flight.request.kind)] -= 1
            flight.running = False
            # After a lost pool the next one must prove itself first.
            self._pool_works = error is None
            if not (flight.landed or self._closing or self._broken is not None):
                try:
                    if error is None:
                        self._land(flight, Envelope.from_dict(future.result()))
                    else:
                        self._judge(flight, error)
                except Exception as odd:  # a damaged result file, a worker of another version
                    request = flight.request
                    self._land(
                        flight, failure_envelope(request.kind, request.key, odd, flight.sent)
                    )
            self._changed.notify_all()

    def _judge(self, flight: _Flight, error: BaseException) -> None:
        """Decide about a task that brought no envelope: look on disk, repeat, or give it up."""
        request = flight.request
        finished = self._left_on_disk(flight)
        if finished is not None:
            self._land(flight, finished)
            return
        assert self._session is not None
        failure = self._session.failure()
        if failure is not None:
            self._break(failure)
            return
        cost = self._retry.cost(error)
        if cost is None:
            envelope = failure_envelope(request.kind, request.key, error, flight.sent)
            self._land(flight, envelope)
            return
        flight.num_losses += 1
        flight.spent += cost
        fields = {"key": request.key, "kind": request.kind, "losses": flight.num_losses}
        if self._retry.condemned(flight.spent):
            self._events.append(("quarantined", fields))
            self._land(flight, died_envelope(request, flight.num_losses, str(error), flight.sent))
            return
        wait_s = self._retry.wait_s(flight.num_losses)
        flight.not_before = time.monotonic() + wait_s
        self._events.append(("retried", fields | {"wait_s": wait_s, "error": str(error)}))

    def _left_on_disk(self, flight: _Flight) -> Envelope | None:
        """Return what a lost worker had written: its result, or that it ran past its deadline."""
        request = flight.request
        finished = self.harvest(request)
        if finished is None and request.timeout_s is not None:
            failure = read_failure(self.results_dir, request.kind, request.key)
            # A second's grace for clocks of other machines.
            recent = failure is not None and failure.ended >= flight.sent - 1.0
            if failure is not None and recent and failure.error_kind == TIMED_OUT:
                return failure
        return finished

    def _expire_threads(self) -> None:
        """Give up on threads past their deadline; they hold their worker until they end."""
        for flight in self._flights.values():
            limit = flight.request.timeout_s
            if flight.running and not flight.landed and limit and time.time() - flight.sent > limit:
                self._land(flight, timeout_envelope(flight.request.to_dict(), flight.sent))

    def _unstick(self) -> None:
        """Help a pool whose queues are locked for ever by a worker that was killed while idle.

        Its tasks then never start, or their results never arrive, and Parsl does not notice.
        Results are taken from disk; a local pool that runs nothing any more is replaced.
        """
        now = time.time()
        # A pool that has not yet brought a result may just be slow to start.
        if now < self._next_stall_check or not self._pool_works:
            return
        self._next_stall_check = now + self._stall_s / 6
        flights = [flight for flight in self._flights.values() if flight.running]
        overdue = [f for f in flights if not f.landed and now - f.sent > self._stall_s]
        # Those whose result was taken from disk before and whose worker never reported.
        silent = self._all_running - len(flights)
        if not overdue and not silent:
            return
        for flight in overdue:
            finished = self.harvest(flight.request)
            if finished is not None and now - finished.ended > self._stall_s:
                self._land(flight, finished)
        idle = not any(
            has_started(self.results_dir, f.request.kind, f.request.key, f.sent - 1.0)
            for f in flights
            if not f.landed
        )
        if idle and self._machine.executor == "processes":
            assert self._session is not None
            logger.warning("the pool of workers is stuck and is replaced")
            self._events.append(("pool_replaced", {"waiting": len(overdue)}))
            self._session.restart_pool()
            self._pool_works = False

    def _land(self, flight: _Flight, envelope: Envelope) -> None:
        flight.landed = True
        self._finished.append(envelope)

    def _break(self, failure: str) -> None:
        if self._broken is not None:
            return
        self._broken = f"{failure}; {RUN_AGAIN}"
        self._events.append(("executor_lost", {"reason": failure}))
        self._changed.notify_all()
