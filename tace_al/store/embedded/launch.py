"""Find the server of a folder, or start one.

Any number of processes may ask at once: they all start a server, one of those gets the folder's
lock, the others find the folder busy, and everybody connects to the one.
"""

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tace_al.core.errors import DatabaseUnreachable, StorageFull
from tace_al.store.embedded import wire
from tace_al.store.embedded.server import ADDRESS_FILE, IDLE_SECONDS, LOCK_FILE

# A computer full of workers, or a slow file system, takes its time over imports.
_START_SECONDS = 120.0
_BUSY_SECONDS = 30.0
_ANSWER_SECONDS = 10.0


def ensure_server(folder: Path, *, idle_seconds: float = IDLE_SECONDS) -> Path:
    """Return the socket of a running server for `folder`.

    Parameters
    ----------
    folder
        Private folder of the database, made when missing.
    idle_seconds
        How long a server that this call starts stays without clients.

    Raises
    ------
    DatabaseUnreachable
        No server can be started.
    StorageFull
        No server can be started because its disk is full.
    """
    folder = folder.resolve()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise DatabaseUnreachable(
            f"the database folder {folder} cannot be made private: {error}; choose a campaign "
            "directory that you own, or name a MongoDB server with --db"
        ) from error
    started, deadline = False, time.monotonic() + _BUSY_SECONDS
    while time.monotonic() < deadline:
        path = running_server(folder)
        if path is not None:
            return path
        news = _start(folder, idle_seconds)
        if "StorageFull" in news or "disk is full" in news:
            raise StorageFull(
                f"no room left for the embedded database in {folder}; free some space and run the "
                "same command again, nothing was lost"
            )
        if news.startswith("DatabaseError"):
            raise DatabaseUnreachable(
                f"the embedded database in {folder} cannot start: {news}; see "
                f"{folder / 'server.log'}. Its file is damaged: bring a backup back with `tace-al "
                f"db restore`, or move {folder} away and run the campaign's command again, which "
                "finds the labels and models on disk"
            )
        if news not in ("ready", "busy"):
            raise DatabaseUnreachable(
                f"the embedded database in {folder} cannot start: {news}; see "
                f"{folder / 'server.log'}, or name a MongoDB server with --db"
            )
        if news == "busy":
            time.sleep(0.05)
        elif not started:  # the time that its start took does not count
            started, deadline = True, time.monotonic() + _BUSY_SECONDS
    raise DatabaseUnreachable(
        f"the embedded database in {folder} does not answer{_owner(folder)}; run this command "
        "there, or name a MongoDB server with --db"
    )


def running_server(folder: Path) -> Path | None:
    """Return the socket of the folder's server if one answers a ping."""
    try:
        path = Path(json.loads((folder / ADDRESS_FILE).read_bytes())["socket"])
    except (OSError, ValueError, KeyError):
        return None
    return path if _asked(path, {"ping": 1, "$db": "admin"}) else None


def stop_server(folder: Path) -> None:
    """Ask the folder's server, if there is one, to end, and wait until it has."""
    path = running_server(folder.resolve())
    if path is None:
        return
    _asked(path, {"shutdown": 1, "$db": "admin"})
    deadline = time.monotonic() + _ANSWER_SECONDS
    while (path.exists() or _is_locked(folder)) and time.monotonic() < deadline:
        time.sleep(0.02)


def _is_locked(folder: Path) -> bool:
    """Tell whether a server still has the folder: it folds its log after its last answer."""
    try:
        with (folder / LOCK_FILE).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _asked(path: Path, command: dict[str, Any]) -> bool:
    """Send one command and tell whether an answer came.

    An answer, because a server that was just killed may still let somebody connect.
    """
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    probe.settimeout(_ANSWER_SECONDS)
    try:
        probe.connect(str(path))
        probe.sendall(wire.write_command(command))
        return bool(probe.recv(wire.HEADER.size))
    except OSError:
        return False
    finally:
        probe.close()


def _start(folder: Path, idle_seconds: float) -> str:
    """Start a server in the background; return "ready", "busy" or what went wrong."""
    command = [sys.executable, "-P", "-m", "tace_al.store.embedded.server", str(folder)]
    try:
        finished = subprocess.run(
            [*command, "--idle-seconds", str(idle_seconds)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_START_SECONDS,
            check=False,
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )
    except subprocess.TimeoutExpired:
        return f"it was not ready within {_START_SECONDS:.0f} s"
    lines = finished.stdout.split("\n")
    return lines[0].strip() or (finished.stderr.strip().splitlines() or ["no reason given"])[-1]


def _owner(folder: Path) -> str:
    """Say which process and machine published the folder's address."""
    try:
        address = json.loads((folder / ADDRESS_FILE).read_bytes())
    except (OSError, ValueError):
        return ""
    return f" (held by process {address.get('pid')} on {address.get('host')})"
