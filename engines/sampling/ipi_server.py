"""An i-PI server as a child that never outlives its parent.

`IpiServer` starts `python -m tace_al.engines.sampling.ipi_server INPUT` in a folder of its own. The
child is i-PI itself, with one thread more: it reads from a pipe whose other end the parent holds,
and ends the process when the kernel closes that, however the parent died. The child's talk goes to
a log file, whose last lines explain a failure.

A child that is killed leaves two checkpoints, written in turns so that one of them is always whole;
`newest_state` finds what to go on from.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import final

from tace_al.core.errors import SamplerError
from tace_al.engines.sampling.ipi_address import UnixAddress, check_free
from tace_al.engines.sampling.ipi_state import BeadState, read_state

INPUT_FILE, LOG_FILE, RESTART_FILE = "input.xml", "server.log", "RESTART"
CHECKPOINTS = ("checkpoint_a", "checkpoint_b")
OUTPUT_FILE = "out"
SOCKET_NAME = "driver"
_MODULE = "tace_al.engines.sampling.ipi_server"
STOP_S = 10.0
"""How long a server may take to write its RESTART before it is killed."""
_LOG_LINES = 6


@final
class IpiServer:
    """A run of i-PI in a private folder, which holds its socket too.

    Parameters
    ----------
    folder
        Where input and output are.
    address
        Where drivers connect, instead of a socket in a private folder of /tmp.
    temporary
        The folder goes when this process is killed, as the socket's does.

    Raises
    ------
    SamplerError
        The address is taken.
    """

    def __init__(
        self, folder: Path, *, address: UnixAddress | None = None, temporary: bool = False
    ) -> None:
        if address is not None:
            check_free(address)
        self.folder, self._temporary = folder, temporary
        self._sockets = Path(tempfile.mkdtemp(prefix="tace-al-ipi-"))  # 0700
        self.address = address or UnixAddress(path=self._sockets / SOCKET_NAME)
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: int | None = None

    @property
    def pid(self) -> int | None:
        """Process number of the server, None when none runs."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if self._process is not None and running else None

    def start(self, input_text: str, *, fresh: bool = True) -> None:
        """Start a run from an input, or not `fresh` from a state of the run before."""
        self.stop()
        self.address.path.unlink(missing_ok=True)
        for name in (*CHECKPOINTS, OUTPUT_FILE) if fresh else ():
            (self.folder / name).unlink(missing_ok=True)
        (self.folder / INPUT_FILE).write_text(input_text)
        (self.folder / RESTART_FILE).unlink(missing_ok=True)
        reader, writer = os.pipe()
        command = [sys.executable, "-m", _MODULE, INPUT_FILE, str(reader), str(self._sockets)]
        command += [str(self.folder)] if self._temporary else []
        with (self.folder / LOG_FILE).open("ab") as log:
            try:
                self._process = subprocess.Popen(
                    command,
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=(reader,),
                    start_new_session=True,  # Ctrl-C reaches us, and we end it in order
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                )
            except OSError as error:
                os.close(writer)
                raise SamplerError(
                    f"i-PI cannot be started ({error}); check that {sys.executable} runs"
                ) from error
            finally:
                os.close(reader)
        self._lifeline = writer

    def wait_until_listening(self, timeout_s: float) -> None:
        """Wait for the socket of a server that was started.

        Raises
        ------
        SamplerError
            The server has ended instead, or takes too long.
        """
        give_up = time.monotonic() + timeout_s
        while not self.address.path.exists():
            if self.pid is None:
                raise SamplerError(
                    f"i-PI ended before it listened: {self.last_words()}; correct its input, "
                    f"{self.folder / INPUT_FILE}"
                )
            if time.monotonic() > give_up:
                raise SamplerError(
                    f"i-PI does not listen after {timeout_s:g} s: {self.last_words()}; "
                    "see whether the machine is overloaded"
                )
            time.sleep(0.02)

    def wait(self, timeout_s: float = STOP_S) -> int | None:
        """Wait for the end; return its exit status, None if it has not ended."""
        if self._process is None:
            return None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        """End the run: in order, with a RESTART, and by force where that fails."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)
                if self.wait() is None:
                    self._process.kill()
            self._process.wait()
            self._process = None
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None

    def close(self) -> None:
        """End the run and remove its socket's folder."""
        self.stop()
        shutil.rmtree(self._sockets, ignore_errors=True)

    def newest_state(self) -> BeadState | None:
        """Return the latest whole state that the run has left, None if there is none."""
        states = [read_state(self.folder / name) for name in (RESTART_FILE, *CHECKPOINTS)]
        whole = [state for state in states if state is not None]
        return max(whole, key=lambda state: state.step, default=None)

    def last_words(self) -> str:
        """Return the end of the log as one line."""
        try:
            text = (self.folder / LOG_FILE).read_text(errors="replace")
        except OSError:
            return "it left no log"
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return " | ".join(lines[-_LOG_LINES:]) or "it said nothing"


def main(arguments: list[str]) -> None:
    """Run i-PI on an input file for as long as a pipe is open; folders go with the parent."""
    input_file, lifeline, folders = arguments[0], int(arguments[1]), arguments[2:]
    threading.Thread(target=_end_with_parent, args=(lifeline, folders), daemon=True).start()
    from ipi.engine.simulation import Simulation
    from ipi.utils import softexit as soft_exits

    soft_exits.SOFTEXITLATENCY = 0.05  # a second of sleep at the end of each chunk is much
    with Path(input_file).open() as stream:
        simulation = Simulation.load_from_xml(stream, request_banner=False)
    soft_exits.softexit.hard_exit = True
    simulation.run()
    soft_exits.softexit.trigger(status=simulation.exit_status, message=simulation.exit_message)


def _end_with_parent(lifeline: int, folders: list[str]) -> None:
    """End this process when the parent's end of the pipe closes, and tidy up after both."""
    os.read(lifeline, 1)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
