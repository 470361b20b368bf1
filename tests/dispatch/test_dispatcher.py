"""The dispatcher on threads and on local processes: results, reuse, failures, deaths."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tace_al.core.errors import DispatchError
from tace_al.dispatch.dispatcher import Dispatcher
from tace_al.dispatch.lifeline import folder_mark, marked_processes
from tace_al.dispatch.machine import machine_from_name
from tace_al.dispatch.request import Envelope, Request
from tace_al.dispatch.retry import RetryPolicy

pytestmark = pytest.mark.parsl
QUICK = RetryPolicy(first_wait_s=0.05)


def probe(timeout_s: float | None = None, **payload: Any) -> Request:
    function = "tace_al.dispatch.tasks.probe:run"
    return Request.build("probe", function, payload, timeout_s=timeout_s)


def collect(dispatcher: Dispatcher, within_s: float = 30.0) -> dict[str, Envelope]:
    envelopes: dict[str, Envelope] = {}
    give_up = time.monotonic() + within_s
    while dispatcher.in_flight:
        assert time.monotonic() < give_up, f"still in flight: {list(dispatcher.in_flight)}"
        for envelope in dispatcher.wait(1.0):
            assert envelope.key not in envelopes, "delivered twice"
            envelopes[envelope.key] = envelope
    return envelopes


@pytest.fixture
def threads(tmp_path: Path) -> Iterator[Dispatcher]:
    with Dispatcher(machine_from_name("threads", workers=2), tmp_path, retry=QUICK) as dispatcher:
        yield dispatcher


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dispatcher]:
    folder = tmp_path_factory.mktemp("pool") / "a campaign's folder"
    others = set(psutil.Process().children(recursive=True))  # of fixtures that a session keeps
    with Dispatcher(machine_from_name("local", workers=2), folder, retry=QUICK) as dispatcher:
        yield dispatcher
    assert set(psutil.Process().children(recursive=True)) <= others
    assert list(marked_processes(f"{folder_mark(folder)}:")) == []  # nor any that left the family


def test_results_come_back(threads: Dispatcher) -> None:
    requests = [probe(value=value) for value in range(20)]
    for request in requests:
        threads.submit(request)
        threads.submit(request)  # in flight already: runs once
    envelopes = collect(threads)
    assert [envelopes[request.key].result["value"] for request in requests] == list(range(20))  # type: ignore[index]
    assert threads.idle_workers == threads.capacity == 2
    assert threads.wait(5.0) == []  # nothing in flight: at once


def test_finished_work_is_found_not_repeated(threads: Dispatcher, tmp_path: Path) -> None:
    request = probe(value=1)
    assert threads.harvest(request) is None
    threads.submit(request)
    first = collect(threads)[request.key]
    found = threads.harvest(request)
    assert found is not None
    assert found.reused
    with Dispatcher(machine_from_name("threads"), tmp_path) as later:
        later.submit(request)
        assert later.wait(0.0)[0].started == first.started


def test_no_more_run_than_there_are_workers_and_the_rest_can_be_cancelled(
    threads: Dispatcher,
) -> None:
    for value in range(5):
        threads.submit(probe(action="sleep", seconds=0.4, value=value))
    time.sleep(0.2)
    assert threads.idle_workers == 0
    assert len(threads.cancel_pending()) == 3
    assert len(collect(threads)) == 2


def test_a_thread_past_its_deadline_is_given_up(threads: Dispatcher) -> None:
    request = probe(action="sleep", seconds=1.2, timeout_s=0.1)
    started = time.monotonic()
    threads.submit(request)
    assert collect(threads)[request.key].error_kind == "TimedOut"
    assert time.monotonic() - started < 1.1


def test_use_outside_its_block_is_refused(tmp_path: Path) -> None:
    dispatcher = Dispatcher(machine_from_name("threads"), tmp_path)
    with pytest.raises(DispatchError, match="not running"):
        dispatcher.submit(probe())
    with dispatcher:
        pass
    with pytest.raises(DispatchError, match="not running"):
        dispatcher.submit(probe())
    with pytest.raises(DispatchError, match="starts once"):
        dispatcher.start()


@pytest.mark.slow
def test_processes_work_pinned(pool: Dispatcher) -> None:
    requests = [probe(action="sleep", seconds=0.3, value=value) for value in range(4)]
    for request in requests:
        pool.submit(request)
    envelopes = collect(pool)
    assert all(envelope.ok for envelope in envelopes.values())
    results = [envelope.result for envelope in envelopes.values()]
    assert {result["threads"] for result in results if result} == {"1"}
    assert len({envelope.worker for envelope in envelopes.values()}) == 2


@pytest.mark.slow
def test_odd_errors_come_back_and_later_results_too(pool: Dispatcher) -> None:
    bad, good = probe(action="raise", value="pool"), probe(value="after")
    pool.submit(bad)
    pool.submit(good)
    envelopes = collect(pool)
    assert envelopes[bad.key].error_kind == "OddError"
    assert envelopes[good.key].ok


@pytest.mark.slow
def test_a_task_that_keeps_killing_its_worker_is_given_up_others_finish(pool: Dispatcher) -> None:
    killers = [probe(action="kill"), probe(action="exit")]
    others = [probe(action="sleep", seconds=0.2, value=value) for value in range(6)]
    for request in [*killers, *others]:
        pool.submit(request)
    envelopes = collect(pool, within_s=40.0)
    for request in killers:
        assert envelopes[request.key].error_kind == "WorkerDied"
        assert "3 workers died" in envelopes[request.key].error_message
    assert all(envelopes[request.key].ok for request in others)


@pytest.mark.slow
def test_a_task_whose_worker_died_once_is_repeated(pool: Dispatcher, tmp_path: Path) -> None:
    request = probe(action="kill", once=str(tmp_path / "once"), value="second time")
    pool.submit(request)
    assert collect(pool)[request.key].ok


@pytest.mark.slow
def test_a_process_past_its_deadline_is_killed_with_its_children(pool: Dispatcher) -> None:
    request = probe(action="spawn", seconds=61.5, timeout_s=0.7)
    pool.submit(request)
    envelope = collect(pool)[request.key]
    assert envelope.error_kind == "TimedOut"
    assert "0.7 s" in envelope.error_message
    commands = [process.cmdline() for process in psutil.Process().children(recursive=True)]
    assert not [command for command in commands if "61.5" in " ".join(command)]


@pytest.mark.slow
def test_closing_kills_running_tasks_soon(tmp_path: Path) -> None:
    with Dispatcher(machine_from_name("local", workers=1), tmp_path) as dispatcher:
        dispatcher.submit(probe(action="spawn", seconds=62.5))
        give_up = time.monotonic() + 15
        while not list(tmp_path.glob("results/probe/*/.scratch-*")):
            assert time.monotonic() < give_up
            time.sleep(0.05)
        started = time.monotonic()
    assert time.monotonic() - started < 5.0
    assert list(marked_processes(f"{folder_mark(tmp_path)}:")) == []


def test_a_bug_in_the_dispatcher_is_an_error_not_a_hang(
    threads: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(threads, "_take_ready", fail)
    with pytest.raises(DispatchError, match=r"a bug.*finished work is kept"):
        threads.submit(probe(value=1))
        threads.wait(5.0)
    with pytest.raises(DispatchError, match="a bug"):
        threads.submit(probe(value=2))


def test_an_answer_that_is_no_envelope_is_a_failed_task(
    threads: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tace_al.dispatch.parsl_session.run_request", lambda *arguments: {"a": 1})
    request = probe(value="odd")
    threads.submit(request)
    assert collect(threads)[request.key].error_kind == "TypeError"


def test_tasks_learn_what_their_model_runs_on(tmp_path: Path) -> None:
    machine = machine_from_name("threads", device="cuda")
    with Dispatcher(machine, tmp_path) as dispatcher:
        plain = probe(value=1)
        dispatcher.submit(plain)
        (sent,) = dispatcher.in_flight.values()
        assert (sent.key, sent.payload["device"]) == (plain.key, "cuda")
        collect(dispatcher)
        assert dispatcher.harvest(plain) is not None
    block = {"cores_per_node": 4, "workers_per_node": 4, "address": "localhost"}
    gpus = block | {"gpus_per_node": 2, "device": "cuda"}
    cluster = machine_from_name("slurm", slurm=block, models=gpus)
    assert [cluster.device_of(kind) for kind in ("label", "train")] == ["cpu", "cuda"]
