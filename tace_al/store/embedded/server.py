"""The server process: `python -m tace_al.store.embedded.server FOLDER`.

One process per folder (an exclusive `flock` on `server.lock`), in the background, listening on a
unix socket that only its owner can reach. It ends by itself when no client has been connected for
a while, so that nothing is left behind when the last `run`, `status` or `report` is done. Killed,
it leaves a stale socket that the next one replaces.

The command prints one line before it goes to the background: `ready`, `busy` (another server has
the folder) or what went wrong, which `server.log` tells at length.
"""

import argparse
import asyncio
import fcntl
import gc
import json
import logging
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, final

from tace_al.core.atomic_write import write_bytes

if TYPE_CHECKING:
    from tace_al.store.embedded.engine import Engine

ADDRESS_FILE = "address.json"
LOCK_FILE = "server.lock"
IDLE_SECONDS = 10.0
FLUSH_SECONDS = 0.05
_LOCK_WAIT_SECONDS = 5.0
_STREAM_BUFFER_BYTES = 1 << 20
_SOCKET_PATH_LIMIT = 100  # bytes; the kernel's is 107
_log = logging.getLogger("tace_al.store.embedded.server")


@final
class Server:
    """Answers clients on a unix socket until told to stop or idle for long enough.

    Parameters
    ----------
    engine
        What runs the commands.
    folder
        Where the address is published.
    idle_seconds
        How long to stay without a client.
    """

    def __init__(self, engine: "Engine", folder: Path, *, idle_seconds: float) -> None:
        self._engine = engine
        self._folder = folder
        self._idle_seconds = idle_seconds
        self._writers: set[asyncio.StreamWriter] = set()
        self._last_client = time.monotonic()
        self._stop = asyncio.Event()
        self._flushing: asyncio.Task[None] | None = None

    async def serve(self, announce: Callable[[], None]) -> None:
        """Listen; call `announce` once clients can connect."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        listener, path = _bind(self._folder)
        server = await asyncio.start_unix_server(
            self._answer, sock=listener, limit=_STREAM_BUFFER_BYTES
        )
        address = {"socket": str(path), "pid": os.getpid(), "host": socket.gethostname()}
        write_bytes(self._folder / ADDRESS_FILE, json.dumps(address).encode())
        announce()
        while not self._stop.is_set():
            try:
                await asyncio.wait_for(self._stop.wait(), timeout=self._idle_seconds / 4)
            except TimeoutError:
                idle = time.monotonic() - self._last_client
                if not self._writers and idle > self._idle_seconds:
                    break
        # First the address, so that newcomers start a server of their own (it waits for the
        # lock), then the door.
        (self._folder / ADDRESS_FILE).unlink(missing_ok=True)
        server.close()
        path.unlink(missing_ok=True)
        if path.parent != self._folder:
            path.parent.rmdir()
        for writer in list(self._writers):
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until it leaves."""
        from tace_al.store.embedded import wire  # late, as the engine

        self._writers.add(writer)
        try:
            while not self._stop.is_set():
                header = await reader.readexactly(wire.HEADER.size)
                body = await reader.readexactly(wire.body_length(header))
                request = wire.read_request(header, body)
                reply = {"ok": 1.0}
                if "shutdown" in request.command:
                    self._stop.set()
                else:
                    reply = self._engine.run(request.command)
                    if self._engine.unflushed and self._flushing is None:
                        self._flushing = asyncio.create_task(self._flush_soon())
                if request.wants_reply:
                    writer.write(wire.write_reply(request, reply))
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            _log.debug("a client left")
        except wire.ProtocolError as error:
            _log.warning("a client was turned away: %s", error)
        finally:
            self._writers.discard(writer)
            self._last_client = time.monotonic()
            writer.close()

    async def _flush_soon(self) -> None:
        """Force a moment's writes onto the disk together; end the server if the disk refuses."""
        await asyncio.sleep(FLUSH_SECONDS)
        self._flushing = None
        try:
            await asyncio.to_thread(self._engine.flush)
        except OSError as error:
            # Memory may be ahead of the disk now: the next server begins with what the disk has.
            _log.error("the disk refused what it had accepted (%s); stopping", error)
            self._stop.set()


def _bind(folder: Path) -> tuple[socket.socket, Path]:
    """Return a listening-to-be socket inside the folder, or in a private short one.

    The second is for paths too long for a socket and for file systems that have none.
    """
    path = folder / "mongo.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT:
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(path))
            return listener, path
        except OSError as error:
            listener.close()
            _log.warning("no socket in %s (%s); using a temporary folder", folder, error)
    path = Path(tempfile.mkdtemp(prefix="tace-al-")) / "mongo.sock"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    return listener, path


def _acquire_lock(folder: Path) -> int | None:
    """Return the locked file's descriptor, None when another server keeps it.

    A server that is about to end has taken its address away and lets go within moments.
    """
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + _LOCK_WAIT_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if (folder / ADDRESS_FILE).exists() or time.monotonic() > deadline:
                os.close(descriptor)
                return None
            time.sleep(0.02)


def _run(folder: Path, idle_seconds: float, tell: Callable[[str], None]) -> None:
    """Be the server; `tell` the starting process how it went."""
    logging.basicConfig(
        filename=folder / "server.log",
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
    )
    try:
        # Imported here: a process that loses the race for the lock need not pay for it.
        from tace_al.store.embedded.engine import Engine

        # Documents hold no cycles; looking for some in 10^5 of them would stop every client.
        gc.disable()
        engine = Engine(folder / "journal.sqlite")
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        gc.enable()
    except Exception as error:  # the border of the process: the starter must hear of anything
        _log.exception("the server cannot start")
        tell(f"{type(error).__name__}: {error}")
        return
    try:
        server = Server(engine, folder, idle_seconds=idle_seconds)
        asyncio.run(server.serve(lambda: tell("ready")))
    except Exception as error:
        _log.exception("the server has failed")
        tell(f"{type(error).__name__}: {error}")
    finally:
        engine.close()


def main() -> None:
    """Start a server in the background unless the folder has one."""
    parser = argparse.ArgumentParser(description="MongoDB-speaking server of one campaign")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--idle-seconds", type=float, default=IDLE_SECONDS)
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    os.umask(0o077)
    folder.mkdir(parents=True, exist_ok=True)
    if _acquire_lock(folder) is None:
        os.write(1, b"busy\n")
        return
    read_end, write_end = os.pipe()
    if os.fork():
        # The lock lives on in the child; this process only passes the news on.
        os.close(write_end)
        with os.fdopen(read_end, "rb") as news:
            os.write(1, news.read() or b"the server died while starting\n")
        os._exit(0)
    os.close(read_end)
    os.setsid()
    os.chdir(folder)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    told = False

    def tell(message: str) -> None:
        nonlocal told
        if not told:
            told = True
            os.write(write_end, message.encode() + b"\n")
            os.close(write_end)

    _run(folder, options.idle_seconds, tell)


if __name__ == "__main__":
    main()
