"""What happens when the driver, Parsl's interchange or its pool dies: nothing may stay behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tace_al.dispatch.dispatcher import Dispatcher
from tace_al.dispatch.lifeline import folder_mark, marked_processes, sweep_orphans
from tace_al.dispatch.machine import machine_from_name
from tace_al.dispatch.request import Request

pytestmark = [pytest.mark.parsl, pytest.mark.slow]

DRIVER = """
import sys
from pathlib import Path
from tace_al.core.errors import DispatchError
from tace_al.dispatch import executors
from tace_al.dispatch.dispatcher import Dispatcher
from tace_al.dispatch.machine import machine_from_name
from tace_al.dispatch.request import Request

executors.LOCAL_HEARTBEAT_S, executors.LOCAL_HEARTBEAT_THRESHOLD_S = 1, 3  # a test's patience

def probe(**payload):
    return Request.build("probe", "tace_al.dispatch.tasks.probe:run", payload)

try:
    with Dispatcher(
        machine_from_name("local", workers=2), Path(sys.argv[1]),
        lambda name, fields: print(name, flush=True),
    ) as dispatcher:
        dispatcher.submit(probe(value="first"))
        dispatcher.submit(probe(action=sys.argv[2], seconds=float(sys.argv[3])))
        while dispatcher.in_flight:
            for envelope in dispatcher.wait(60.0):
                print("finished", envelope.ok, flush=True)
except DispatchError as error:
    print("DispatchError:", error, flush=True)
    sys.exit(3)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(130)
"""


def probe(**payload: object) -> Request:
    return Request.build("probe", "tace_al.dispatch.tasks.probe:run", payload)


def start_driver(
    folder: Path, action: str = "sleep", seconds: float = 300.0
) -> subprocess.Popen[str]:
    """Start a driver whose first task is done and whose second one runs."""
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(folder), action, str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_until(lambda: len(list(folder.glob("results/probe/*/*/result.json"))) == 1, 20.0)
    wait_until(lambda: len(list(folder.glob("results/probe/*/.scratch-*"))) == 1, 20.0)
    return driver


def wait_until(condition: Callable[[], bool], within_s: float) -> float:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < within_s, "it never happened"
        time.sleep(0.05)
    return time.monotonic() - started


# Parsl's interchange retitles itself, which wipes the mark: its watcher stands for it here.
def ours(folder: Path) -> list[psutil.Process]:
    return [process for process, _ in marked_processes(f"{folder_mark(folder)}:")]


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def finish(driver: subprocess.Popen[str], within_s: float) -> tuple[str, str]:
    try:
        return driver.communicate(timeout=within_s)
    finally:
        driver.kill()


def test_nothing_outlives_a_killed_driver(tmp_path: Path) -> None:
    driver = start_driver(tmp_path)
    assert len(ours(tmp_path)) >= 5  # interchange, pool, its manager, two workers, watchers
    driver.kill()
    driver.communicate()
    assert wait_until(lambda: not ours(tmp_path), 20.0) < 5.0


def test_an_interchange_without_its_watcher_dies_too(tmp_path: Path) -> None:
    driver = start_driver(tmp_path)
    (interchange,) = psutil.Process(driver.pid).children()
    for watcher in interchange.children(recursive=True):
        watcher.kill()
    driver.kill()
    driver.communicate()
    wait_until(lambda: not interchange.is_running(), 5.0)
    wait_until(lambda: not ours(tmp_path), 5.0)


def test_what_escaped_its_group_is_swept_at_the_next_start(tmp_path: Path) -> None:
    driver = start_driver(tmp_path, "spawn")
    wait_until(lambda: any("time.sleep" in command_of(p) for p in ours(tmp_path)), 10.0)
    assert sweep_orphans(tmp_path) == 0  # their driver lives
    driver.kill()
    driver.communicate()
    wait_until(lambda: len(ours(tmp_path)) == 1, 10.0)  # a program in its own session
    assert sweep_orphans(tmp_path) == 1
    assert ours(tmp_path) == []


def test_a_dead_interchange_is_one_clear_error(tmp_path: Path) -> None:
    driver = start_driver(tmp_path)
    (interchange,) = psutil.Process(driver.pid).children()
    interchange.kill()
    started = time.monotonic()
    output, errors = finish(driver, 20.0)
    assert time.monotonic() - started < 10.0
    assert driver.returncode == 3
    assert "interchange process" in output
    assert "run the same command again, finished work is kept" in output
    assert "executor_lost" in output
    assert errors == ""
    assert ours(tmp_path) == []


def test_ctrl_c_ends_everything_quietly(tmp_path: Path) -> None:
    driver = start_driver(tmp_path)
    started = time.monotonic()
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: to the whole foreground group
    output, errors = finish(driver, 20.0)
    assert time.monotonic() - started < 6.0
    assert driver.returncode == 130
    assert output.splitlines()[-1] == "interrupted"
    assert errors == ""
    assert ours(tmp_path) == []


def test_a_killed_pool_is_replaced_and_its_tasks_repeated(tmp_path: Path) -> None:
    driver = start_driver(tmp_path, seconds=3.0)
    pool = [p for p in ours(tmp_path) if "--block_id" in command_of(p)]
    os.killpg(os.getpgid(pool[0].pid), signal.SIGKILL)
    output, errors = finish(driver, 60.0)
    assert driver.returncode == 0, output + errors
    assert "retried" in output
    assert output.count("finished True") == 2


def test_work_that_outlives_its_pool_is_found_not_repeated(tmp_path: Path) -> None:
    driver = start_driver(tmp_path, seconds=1.0)
    (pool,) = [p for p in ours(tmp_path) if "--block_id" in command_of(p)]
    pool.kill()  # its workers finish what they do
    output, errors = finish(driver, 60.0)
    assert driver.returncode == 0, output + errors
    assert "retried" not in output
    assert output.count("finished True") == 2


def test_the_same_command_again_goes_on(tmp_path: Path) -> None:
    driver = start_driver(tmp_path, seconds=1.5)
    driver.kill()
    driver.communicate()
    again = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path), "sleep", "1.5"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("finished True") == 2
    assert list(tmp_path.glob("results/probe/*/.scratch-*")) == []


def test_a_pool_locked_by_an_idle_worker_that_was_killed_is_replaced(tmp_path: Path) -> None:
    events = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tace_al.dispatch.executors.LOCAL_HEARTBEAT_S", 1)
        patch.setattr("tace_al.dispatch.executors.LOCAL_HEARTBEAT_THRESHOLD_S", 3)
        machine = machine_from_name("local", workers=1)
        with Dispatcher(
            machine, tmp_path, lambda name, fields: events.append(name), stall_s=2.0
        ) as dispatcher:
            dispatcher.submit(probe(value=1))
            (first,) = dispatcher.wait(20.0)
            time.sleep(0.3)  # the worker now waits, holding the lock of the queue
            psutil.Process(int(first.worker.split(":")[1])).kill()
            dispatcher.submit(probe(value=2))
            wait_until(lambda: bool(dispatcher.wait(0.1)), 40.0)
    assert events == ["pool_replaced", "retried"]
