import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tace_al.core.errors import LabelFailed
from tace_al.dispatch import apps
from tace_al.dispatch.apps import error_kind, run_request
from tace_al.dispatch.request import Envelope, Request

PROBE = "tace_al.dispatch.tasks.probe:run"


def run(results: Path, function: str = PROBE, **payload: Any) -> Envelope:
    request = Request.build("probe", function, payload)
    content = run_request(request.to_dict(), str(results), 1, False)
    json.dumps(content)  # builtins only
    return Envelope.from_dict(content)


def test_a_result_is_computed_once(tmp_path: Path) -> None:
    first = run(tmp_path, value=5)
    again = run(tmp_path, value=5)
    assert first.ok
    assert first.result is not None
    assert first.result["value"] == 5
    assert (Path(first.folder) / "echo.txt").read_text() == "5"
    assert not first.reused
    assert again.reused
    assert again.started == first.started


def test_an_error_that_does_not_pickle_is_data(tmp_path: Path) -> None:
    failed = run(tmp_path, action="raise")
    assert not failed.ok
    assert (failed.error_kind, failed.error_message) == ("OddError", "one and two")
    assert "probe.py" in failed.traceback
    assert not run(tmp_path, action="raise").reused  # failures are tried again


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), MemoryError()])
def test_nothing_gets_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def task(payload: dict[str, Any], folder: Path) -> dict[str, Any]:
        raise error

    monkeypatch.setattr(apps, "task_function", lambda name: task)
    assert run(tmp_path).error_kind == type(error).__name__


def test_an_error_without_text_is_still_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    def task(payload: dict[str, Any], folder: Path) -> dict[str, Any]:
        raise Mute

    monkeypatch.setattr(apps, "task_function", lambda name: task)
    failed = run(tmp_path)
    assert failed.error_kind == "Mute"
    assert "no readable text" in failed.error_message


def test_a_result_that_is_not_plain_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apps, "task_function", lambda name: lambda payload, folder: {"a": {1}})
    assert run(tmp_path).error_kind == "TypeError"


def test_missing_function_names_the_remedy(tmp_path: Path) -> None:
    failed = run(tmp_path, "tace_al.dispatch.tasks.probe:nothing")
    assert failed.error_kind == "DispatchError"
    assert "same version" in failed.error_message


def test_kinds() -> None:
    assert error_kind(LabelFailed("convergence", "x")) == "convergence"
    assert error_kind(OSError(errno.ENOSPC, "full")) == "StorageFull"
    assert error_kind(OSError(errno.ENOENT, "none")) == "FileNotFoundError"


def test_full_disk_is_an_envelope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(apps, "make_scratch", full)
    monkeypatch.setattr("tace_al.dispatch.result_files.write_bytes", full)
    assert run(tmp_path).error_kind == "StorageFull"


def test_threads_are_pinned_when_torch_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    class FakeTorch:
        threads = 8

        @classmethod
        def get_num_threads(cls) -> int:
            return cls.threads

        @classmethod
        def set_num_threads(cls, num_threads: int) -> None:
            cls.threads = num_threads

    monkeypatch.setitem(sys.modules, "torch", FakeTorch)
    apps.pin_threads(2)
    assert FakeTorch.threads == 2


STUBBORN = """
import subprocess, sys, time
from tace_al.dispatch.apps import end_descendants

# a program that ignores SIGTERM, with a process of its group that has lost its parent
line = 'trap "" TERM; (sleep 61.25 &); echo up; sleep 61.75'
program = subprocess.Popen(
    ["bash", "-c", line], stdout=subprocess.PIPE, start_new_session=True, text=True
)
program.stdout.readline()
polite = subprocess.Popen(
    ["bash", "-c", f"trap 'touch {sys.argv[1]}; exit' TERM; echo up; sleep 60 & wait"],
    stdout=subprocess.PIPE, start_new_session=True, text=True,
)
polite.stdout.readline()
end_descendants(grace_s=1.0)
print("survived")
"""


@pytest.mark.slow
def test_programs_are_asked_and_then_killed_with_their_groups(tmp_path: Path) -> None:
    cleaned = tmp_path / "cleaned"
    done = subprocess.run(
        [sys.executable, "-c", STUBBORN, str(cleaned)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "survived\n", done.stderr
    assert cleaned.exists()
    lines = [
        " ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])
    ]
    assert not [line for line in lines if line in ("sleep 61.25", "sleep 61.75")]
