import errno
import subprocess
import sys
import time

import pytest

from tace_al.cli.main import system_error_text, without_passwords

COMMANDS = ("run", "status", "report", "lineage", "export", "train", "evaluate", "label")


def test_help_lists_every_command_and_is_quick() -> None:
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tace_al.cli.main", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = time.perf_counter() - start
    for command in COMMANDS:
        assert f"│ {command} " in done.stdout
    loaded = done.stderr
    for heavy in ("torch", "ase", "parsl", "mongoengine", "matplotlib", "scipy"):
        assert f" {heavy}\n" not in loaded, f"--help imports {heavy}"
    assert seconds < 5.0  # 0.4 s on a quiet machine; the imports above are what matters


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example(tace_al, command: str) -> None:
    outcome = tace_al(command, "--help")
    assert outcome.code == 0
    assert f"Example: tace-al {command}" in outcome.out


def test_version(tace_al) -> None:
    assert tace_al("--version").out.startswith("tace-al 0.")


def test_unknown_command_and_option_are_usage_errors(tace_al) -> None:
    assert tace_al("fly").code == 2
    assert tace_al("status", "--nonsense").code == 2


def test_passwords_are_masked() -> None:
    text = without_passwords("no answer from mongodb+srv://ann:p@ss:w@host:27017/db?x=1")
    assert text == "no answer from mongodb+srv://ann:***@host:27017/db?x=1"
    assert without_passwords("see a:b at http://host/x") == "see a:b at http://host/x"


def test_a_full_disk_is_one_sentence() -> None:
    text = system_error_text(OSError(errno.ENOSPC, "No space left on device"))
    assert "free some space and run the same command again" in text
    text = system_error_text(PermissionError(errno.EACCES, "Permission denied", "/x"))
    assert text == "/x: Permission denied; check the path and its permissions"
