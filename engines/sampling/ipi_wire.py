"""The client's side of i-PI's wire protocol, as a state machine on bytes.

The server leads. Each message begins with twelve bytes:

    STATUS     the client answers NEEDINIT, READY or HAVEDATA
    INIT       int32 id, int32 n, n bytes of parameters; "batch_size:8" in them turns on batches
    POSDATA    cell h and its inverse (9 float64 each), int32 atoms, positions (3 atoms float64);
               batched: int32 atoms, batch x 18 float64, batch x 3 atoms float64
    GETFORCE   the client answers FORCEREADY, energy, int32 atoms, forces, virial, int32 n, n bytes
               of extras; batched: all energies, int32 atoms, all forces, all virials, all extras
    EXIT       the run is over

Numbers are native-endian, in Hartree atomic units; the columns of h are the lattice vectors, and
the virial is -dE/dstrain = -V stress. POSDATA and GETFORCE may come in one piece, before any answer
(`consolidate_messages`), or apart with a STATUS between them, whose answer has to wait until the
forces are there: both orders are served.

Source: i-PI 3, ipi/interfaces/sockets.py (https://docs.ipi-code.org).
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from tace_al.core.errors import SamplerError
from tace_al.core.units import BOHR, HARTREE

HEADER = 12
MAX_ATOMS = 10_000_000
"""More than this is noise read as a number."""
_SHARED_MEMORY = b"ipi_shm_"


@dataclass(frozen=True, kw_only=True, slots=True)
class Structures:
    """What a server wants to know the forces of.

    Parameters
    ----------
    positions
        (structures, atoms, 3) in A.
    cells
        (structures, 3, 3) in A, lattice vectors in rows.
    """

    positions: np.ndarray
    cells: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What goes back about one structure.

    Parameters
    ----------
    energy
        eV.
    forces
        (atoms, 3) in eV/A.
    virial
        (3, 3) -dE/dstrain in eV; zero where there is no cell.
    extras
        JSON, or "".
    """

    energy: float
    forces: np.ndarray
    virial: np.ndarray
    extras: str


@final
class ClientProtocol:
    """One connection: bytes in by `feed`, structures out, answers in by `answer`, bytes out.

    Attributes
    ----------
    waiting
        The structures that the server waits for, None when it does not.
    finished
        The server has said EXIT.
    greeted
        The server has asked for something, so it has accepted this connection.
    """

    def __init__(self) -> None:
        self.waiting: Structures | None = None
        self.finished = False
        self.greeted = False
        self._buffer = bytearray()
        self._initialised = False
        self._batch_size = 1
        self._results: bytes | None = None
        self._status_owed = False
        self._forces_owed = False

    def feed(self, content: bytes) -> bytes:
        """Take what the server sent; return what to send at once.

        Raises
        ------
        SamplerError
            This is not the protocol of i-PI, or a part of it that is not spoken here.
        """
        self._buffer += content
        reply = b""
        while len(self._buffer) >= HEADER and not self.finished:
            name = bytes(self._buffer[:HEADER]).decode("ascii", errors="replace").strip()
            if name == "STATUS":
                reply += self._status()
            elif name == "INIT":
                if not self._take_init():
                    break
            elif name == "POSDATA":
                if not self._take_positions():
                    break
            elif name == "GETFORCE":
                reply += self._get_force()
            elif name == "EXIT":
                self.finished = True
            else:
                raise SamplerError(
                    f"the server sent {name!r}, which is no message of i-PI; "
                    "check that an i-PI 3 server listens at this address"
                )
        return reply

    def answer(self, answers: Sequence[Answer]) -> bytes:
        """Take what was computed for `waiting`; return what to send at once."""
        assert self.waiting is not None and len(answers) == len(self.waiting.positions)
        self.waiting = None
        self._results = _packed(answers)
        reply = b""
        if self._status_owed:
            self._status_owed = False
            reply += message("HAVEDATA")
        if self._forces_owed:
            self._forces_owed = False
            reply += self._results
            self._results = None
        return reply

    def _status(self) -> bytes:
        """Answer a STATUS, or remember it until the forces are there."""
        self._drop(HEADER)
        self.greeted = True
        if self.waiting is not None:
            self._status_owed = True
            return b""
        if self._results is not None:
            return message("HAVEDATA")
        return message("READY" if self._initialised else "NEEDINIT")

    def _get_force(self) -> bytes:
        """Answer a GETFORCE, or remember it."""
        self._drop(HEADER)
        if self._results is None:
            if self.waiting is None:
                raise SamplerError(
                    "the server asked for forces before it sent positions; "
                    "check that an i-PI 3 server listens at this address"
                )
            self._forces_owed = True
            return b""
        results, self._results = self._results, None
        return results

    def _take_init(self) -> bool:
        """Read an INIT if it is all there."""
        if len(self._buffer) < HEADER + 8:
            return False
        (length,) = struct.unpack_from("=i", self._buffer, HEADER + 4)
        end = HEADER + 8 + length
        if len(self._buffer) < end:
            return False
        parameters = bytes(self._buffer[HEADER + 8 : end]).decode(errors="replace")
        for token in parameters.split(","):
            name, _, value = token.partition(":")
            if name.strip() == "batch_size" and value.strip().isdigit():
                self._batch_size = int(value)
        self._initialised = True
        self._drop(end)
        return True

    def _take_positions(self) -> bool:
        """Read a POSDATA if it is all there."""
        batched = self._batch_size > 1
        place = HEADER if batched else HEADER + 144  # of the number of atoms
        known = bytes(self._buffer[HEADER + 8 : HEADER + 8 + len(_SHARED_MEMORY)])
        if known == _SHARED_MEMORY:
            raise SamplerError(
                "the server moves positions through shared memory (ffsocket mode='shm'), "
                "which this driver does not speak; write mode='unix' in its input"
            )
        if len(self._buffer) < place + 4:
            return False
        (num_atoms,) = struct.unpack_from("=i", self._buffer, place)
        if not 0 < num_atoms <= MAX_ATOMS:
            raise SamplerError(
                f"the server announces {num_atoms} atoms; check that an i-PI 3 server listens at "
                "this address, and that it runs on a machine of the same byte order"
            )
        size = self._batch_size
        end = place + 4 + 24 * num_atoms * size + (144 * size if batched else 0)
        if len(self._buffer) < end:
            return False
        first = place + 4 if batched else HEADER
        cells = np.frombuffer(self._buffer, np.float64, 18 * size, first).reshape(size, 2, 3, 3)
        start = first + 144 * size if batched else place + 4
        positions = np.frombuffer(self._buffer, np.float64, 3 * num_atoms * size, start)
        self.waiting = Structures(
            positions=positions.reshape(size, num_atoms, 3) * BOHR,
            cells=cells[:, 0].transpose(0, 2, 1) * BOHR,
        )
        self._results = None
        del cells, positions  # views hold the buffer
        self._drop(end)
        return True

    def _drop(self, count: int) -> None:
        """Forget what was read."""
        del self._buffer[:count]


def message(name: str) -> bytes:
    """Return a header of the protocol.

    >>> message("READY")
    b'READY       '
    """
    return name.ljust(HEADER).encode()


def _packed(answers: Sequence[Answer]) -> bytes:
    """Return a FORCEREADY with everything that follows it; one layout serves one and many."""
    num_atoms = len(answers[0].forces)
    energies = np.array([answer.energy for answer in answers], dtype=np.float64) / HARTREE
    forces = np.array([answer.forces for answer in answers], dtype=np.float64) * (BOHR / HARTREE)
    virials = np.array([answer.virial for answer in answers], dtype=np.float64) / HARTREE
    parts = [message("FORCEREADY"), energies.tobytes(), struct.pack("=i", num_atoms)]
    parts += [forces.tobytes(), virials.tobytes()]
    for answer in answers:
        extras = answer.extras.encode()
        parts += [struct.pack("=i", len(extras)), extras]
    return b"".join(parts)
