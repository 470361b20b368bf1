import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tace_al.dispatch.lifeline import (
    MARK_VARIABLE,
    Lifeline,
    folder_mark,
    kill_marked,
    marked_processes,
    sweep_orphans,
)


@pytest.fixture
def sleeper(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    mark = request.param.replace("FOLDER", folder_mark(tmp_path))
    process = subprocess.Popen(["sleep", "60"], env=os.environ | {MARK_VARIABLE: mark})
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline:  # a program just started has no environment for a moment
        if psutil.Process(process.pid).environ().get(MARK_VARIABLE) == mark:
            break
        time.sleep(0.005)
    yield process
    process.kill()
    process.wait()


def alive(process: subprocess.Popen[bytes]) -> bool:
    time.sleep(0.02)
    return process.poll() is None


HOST = os.uname().nodename
OWN = f"{os.getpid()}:{psutil.Process().create_time():.2f}"


@pytest.mark.parametrize(
    "sleeper", [f"FOLDER:{HOST}:{os.getpid()}:1.0"], indirect=True, ids=["of this process"]
)
def test_a_recycled_process_number_is_not_the_driver(
    sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    assert sweep_orphans(tmp_path) == 1
    assert not alive(sleeper)


@pytest.mark.parametrize(
    "sleeper",
    [f"FOLDER:{HOST}:{OWN}", "FOLDER:elsewhere:1:1.0", f"another:{HOST}:1:1.0"],
    indirect=True,
    ids=["alive", "another host", "another folder"],
)
def test_the_living_the_distant_and_the_foreign_are_left_alone(
    sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    assert sweep_orphans(tmp_path) == 0
    assert alive(sleeper)


def test_processes_without_a_mark_are_never_found() -> None:
    assert os.getpid() not in {process.pid for process, _ in marked_processes("")}
    assert kill_marked("") == 0


@pytest.mark.parametrize("in_main_thread", [True, False])
def test_releasing_kills_the_group_and_a_finished_thread_does_not(
    tmp_path: Path, in_main_thread: bool
) -> None:
    lifeline = Lifeline(tmp_path, tmp_path / "lock")
    started: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        started.append(subprocess.Popen(lifeline.command(["sleep", "60"])))

    if in_main_thread:
        start()
    else:
        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
    time.sleep(0.2)
    assert alive(started[0])
    assert os.getpgid(started[0].pid) == started[0].pid  # out of the terminal's reach
    lifeline.release()
    started[0].wait(timeout=3.0)
    assert not list(marked_processes(lifeline.mark))
    assert not (tmp_path / "lock").exists()
