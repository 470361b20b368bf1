"""No process outlives its driver: a lock that the kernel drops, and a mark in the environment.

The driver holds an exclusive lock on a file (`flock(2)`). Beside every process group that it starts
waits a shell for a shared lock on the same file; the kernel grants it in the instant the driver
ends, however it ends, and the shell kills its own group. Unlike a parent-death signal this needs no
particular parent or thread, reaches whole groups, and cannot miss a driver that died before the
group was up. Groups live in sessions of their own, so Ctrl-C reaches the driver alone.

Every process carries `TACE_AL_DISPATCH=<folder>:<host>:<pid>:<start time>` in its environment and
passes it on to its children, so what escaped into another group (a quantum chemistry program) is
found too. A process that retitles itself, as Parsl's interchange does where setproctitle is
installed, wipes its mark and is reached through its group alone. The start time keeps a recycled
process number from being taken for the driver's.
"""

import fcntl
import hashlib
import logging
import os
import shlex
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import final

import psutil

MARK_VARIABLE = "TACE_AL_DISPATCH"
_WATCH = '( flock --shared "$LIFELINE" true && kill -9 0 ) </dev/null >/dev/null 2>&1 &'

logger = logging.getLogger(__name__)


@final
class Lifeline:
    """Binds the processes of one dispatcher to the life of this process.

    Parameters
    ----------
    campaign_dir
        Folder whose work is done; names the mark.
    lock_path
        File to lock, on this computer; created and, at the end, deleted.
    """

    def __init__(self, campaign_dir: Path, lock_path: Path) -> None:
        self.mark = f"{folder_mark(campaign_dir)}:{_own_identity()}"
        self._lock_path = lock_path
        self._handle: int | None = os.open(lock_path, os.O_RDWR | os.O_CREAT, 0o600)
        self._watched = all(shutil.which(tool) for tool in ("bash", "flock", "setsid"))
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX)
        except OSError as error:
            self._watched = False
            logger.warning(
                "%s cannot be locked (%s): heartbeats alone end workers", lock_path, error
            )

    def command(self, command: Sequence[str]) -> list[str]:
        """Return `command` as it runs in its own session, marked and watched."""
        marked = ["env", f"{MARK_VARIABLE}={self.mark}"]
        if not self._watched:
            return [*marked, *command]
        marked += [f"LIFELINE={self._lock_path}", "setsid"]
        # A second rope, should the watcher be killed. It breaks with the thread that starts the
        # command, so it is only used from the thread that lasts as long as the process.
        if shutil.which("setpriv") and threading.current_thread() is threading.main_thread():
            marked += ["setpriv", "--pdeathsig", "KILL"]
        return [*marked, "bash", "-c", f'{_WATCH} exec "$@"', "bash", *command]

    def shell_lines(self) -> str:
        """Return shell lines that mark and watch the group of the script they stand in."""
        lines = f"export {MARK_VARIABLE}={shlex.quote(self.mark)}\n"
        if self._watched:
            lines += f"export LIFELINE={shlex.quote(str(self._lock_path))}\n{_WATCH}\n"
        return lines

    def release(self) -> None:
        """Let go: every group that is still alive is killed, at once."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        kill_marked(self.mark)
        self._lock_path.unlink(missing_ok=True)


def folder_mark(campaign_dir: Path) -> str:
    """Return the part of the mark that names a campaign's folder."""
    return hashlib.sha256(str(campaign_dir.resolve()).encode()).hexdigest()[:16]


def marked_processes(mark_prefix: str) -> Iterator[tuple[psutil.Process, str]]:
    """Yield this computer's live processes whose mark begins so, with their marks."""
    for process in psutil.process_iter():
        try:
            mark = process.environ().get(MARK_VARIABLE, "")
            if mark and mark.startswith(mark_prefix) and process.status() != psutil.STATUS_ZOMBIE:
                yield process, mark
        except (psutil.Error, OSError):
            continue


def kill_marked(mark: str, within_s: float = 3.0) -> int:
    """Kill every process with exactly this mark; return how many were found.

    Looks again until none is left, since a process may have been starting another.
    """
    killed: set[int] = set()
    give_up = time.monotonic() + within_s
    while time.monotonic() < give_up:
        found = [process for process, own in marked_processes(mark) if own == mark]
        found = [process for process in found if process.pid != os.getpid()]
        if not found:
            break
        for process in found:
            killed.add(process.pid)
            try:
                process.kill()
            except psutil.Error:
                continue
        psutil.wait_procs(found, timeout=0.5)
    return len(killed)


def sweep_orphans(campaign_dir: Path) -> int:
    """Kill processes that work for a dead driver of this folder; return how many."""
    folder = folder_mark(campaign_dir)
    orphaned = {mark for _, mark in marked_processes(f"{folder}:") if not driver_may_live(mark)}
    return sum(kill_marked(mark) for mark in orphaned)


def _own_identity() -> str:
    process = psutil.Process()
    return f"{socket.gethostname()}:{process.pid}:{process.create_time():.2f}"


def on_this_computer(mark: str) -> bool:
    """Return True when the driver in the mark runs, or ran, on this computer."""
    return mark.rsplit(":", 3)[1] == socket.gethostname()


def driver_may_live(mark: str) -> bool:
    """Return False only when the driver in the mark was on this computer and is dead."""
    pid, created = mark.rsplit(":", 2)[1:]
    if not on_this_computer(mark):
        return True
    try:
        driver = psutil.Process(int(pid))
        same = abs(driver.create_time() - float(created)) < 1.0
        return same and driver.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
