"""Serves forces to an i-PI server: every bead that waits, in one call of a potential.

Two ways to many beads at once. Where the input says `<batch_size>8</batch_size>`, eight structures
come over one connection. Everywhere else each connection carries one bead, so the driver opens
several: `connections` at first, twice as many whenever all of them were busy. Whatever has arrived
on them is evaluated together. A round waits for as many beads as those before it had, because a
server hands them out one after the other: for `GATHER_S` after the latest, or for as long as the
last evaluation took, which is what a second call would cost.

Connections are opened one after the other, each when the server has greeted the one before: it
holds few in its queue, and blocks while it greets.

What a socket has is always read to its end before the forces are computed. A driver that is killed
while it computes then leaves no unread byte behind, and the server sees an orderly end of the
connection, on which it hands the beads to the next driver. An unread byte makes the kernel answer
with a reset, which ends i-PI 3.3's polling thread and hangs the run for ever.
"""

import logging
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from ase import Atoms

from tace_al.core.errors import SamplerError, StructureError
from tace_al.engines.sampling.ipi_address import Address, try_connect, wait_for_server
from tace_al.engines.sampling.ipi_extras import ExtrasKind, extras_text
from tace_al.engines.sampling.ipi_template import refuse_reordered
from tace_al.engines.sampling.ipi_wire import Answer, ClientProtocol, Structures
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.walkers import moving_copy
from tace_al.model.prediction import Prediction

logger = logging.getLogger(__name__)

GATHER_S, LONGEST_GATHER_S = 0.003, 0.2
RECENT_ROUNDS = 3
"""A connection that none of so many rounds needed is not waited for."""
GREETING_S = 10.0
"""A server that has taken a connection says so at once; whoever is silent for longer is none."""
_RECEIVE = 1 << 20
_SEND_TIMEOUT_S = 60.0

Observer = Callable[[Sequence[Atoms], Sequence[Prediction]], str | None]
"""Looks at each round before it is answered; a text stops the driver and says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DriverSettings:
    """How a driver serves.

    Parameters
    ----------
    connections, max_connections
        How many are opened at first and at most; what a server does not need stays idle.
    wait_s
        How long to wait for the server to come up.
    idle_s
        End when the server asks nothing for this long; None waits for ever.
    extras
        What the JSON extras hold, see `ipi_extras`.
    """

    connections: int = 8
    max_connections: int = 128
    wait_s: float = 60.0
    idle_s: float | None = None
    extras: ExtrasKind = "full"


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """How it ended.

    Parameters
    ----------
    ended
        "exit": the server said so; "lost": it vanished; "stopped": the observer; "idle": it was
        silent for too long.
    reason
        One clause.
    structures, rounds
        Structures evaluated, and calls of the potential that did it.
    seconds
        Spent in those calls.
    """

    ended: Literal["exit", "lost", "stopped", "idle"]
    reason: str
    structures: int
    rounds: int
    seconds: float


@final
class _Line:
    """One connection and the frames that travel on it, the same objects from round to round."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.protocol = ClientProtocol()
        self.frames: list[Atoms] = []
        self.last_round = -RECENT_ROUNDS


@final
class Driver:
    """A client of i-PI with as many connections as it needs.

    Parameters
    ----------
    potential
        What predicts; a stress in its predictions becomes the virial.
    template
        Species, charge, masses, periodicity of what the server moves: it sends positions and a
        cell, and nothing else.
    address
        Where the server listens.
    settings, observe
        How to serve, and who looks at each round.
    """

    def __init__(
        self,
        potential: Potential,
        template: Atoms,
        address: Address,
        *,
        settings: DriverSettings | None = None,
        observe: Observer | None = None,
    ) -> None:
        self.potential, self.template, self.address = potential, template, address
        self.settings = DriverSettings() if settings is None else settings
        self.observe = observe
        self._lines: list[_Line] = []
        self._selector = selectors.DefaultSelector()
        self._wanted = min(self.settings.connections, self.settings.max_connections)
        self._expected = 1
        self._gather_s = GATHER_S
        self._structures, self._rounds, self._seconds = 0, 0, 0.0

    def serve(self) -> Served:
        """Serve until the server is done or gone.

        Raises
        ------
        SamplerError
            No server comes, it is no i-PI, or its structures are not the template's (another number
            of atoms, or another order).
        StructureError
            It sends positions that are not finite, or atoms that coincide.
        """
        try:
            self._open(wait_for_server(self.address, self.settings.wait_s))
            return self._loop()
        finally:
            for line in self._lines:
                line.connection.close()
            self._lines.clear()
            self._selector.close()

    def _loop(self) -> Served:
        """Read, gather, evaluate, answer."""
        begin = last_word = time.monotonic()
        gather_until: float | None = None
        gathered = 0
        while True:
            waiting = [line for line in self._lines if line.protocol.waiting is not None]
            now = time.monotonic()
            if len(waiting) > gathered:
                gathered, gather_until = len(waiting), now + self._gather_s
            ready = self._selector.select(self._patience(len(waiting), gather_until))
            if ready:
                last_word = time.monotonic()
                for key, _ in ready:
                    ended = self._read(key.data)
                    if ended is not None:
                        return ended
                self._grow(len(waiting))
            elif waiting and (len(waiting) >= self._expected or now >= (gather_until or 0.0)):
                reason = self._round(waiting)
                gathered, gather_until, last_word = 0, None, time.monotonic()
                if reason is not None:
                    return self._served("stopped", reason)
            elif self._silent(now - last_word):
                return self._served("idle", f"nothing was asked for {self.settings.idle_s:g} s")
            else:
                self._check_greeted(now - begin)
                self._grow(len(waiting))

    def _check_greeted(self, seconds: float) -> None:
        """Refuse a server that has never said a word."""
        patience = max(self.settings.wait_s, GREETING_S)
        if seconds > patience and not any(line.protocol.greeted for line in self._lines):
            raise SamplerError(
                f"whoever listens at {self.address} has not said a word for {patience:g} s; check "
                "that it is an i-PI 3 server, and that its run is not over"
            )

    def _patience(self, num_waiting: int, gather_until: float | None) -> float:
        """Return how long to look for more, in s."""
        if num_waiting == 0:
            return 0.2
        if num_waiting >= self._expected or gather_until is None:
            return 0.0
        return max(gather_until - time.monotonic(), 0.0)

    def _silent(self, seconds: float) -> bool:
        return self.settings.idle_s is not None and seconds > self.settings.idle_s

    def _open(self, connection: socket.socket) -> None:
        """Take up a connection."""
        line = _Line(connection)
        self._lines.append(line)
        self._selector.register(connection, selectors.EVENT_READ, line)

    def _grow(self, num_waiting: int) -> None:
        """Open the next connection when the last is in use and more are wanted."""
        if num_waiting == len(self._lines) >= self._wanted:
            self._wanted = min(2 * self._wanted, self.settings.max_connections)
        batched = any(len(line.frames) > 1 for line in self._lines)
        if batched or len(self._lines) >= self._wanted or not self._lines:
            return
        if self._lines[-1].protocol.greeted:
            connection = try_connect(self.address)
            if connection is not None:
                self._open(connection)

    def _read(self, line: _Line) -> Served | None:
        """Read all there is on a connection and answer what can be answered at once."""
        try:
            content = line.connection.recv(_RECEIVE)
            reply = line.protocol.feed(content) if content else b""
            if reply:
                _send(line.connection, reply)
        except BlockingIOError:
            return None
        except OSError:
            content = b""
        if line.protocol.finished:
            return self._served("exit", "the server is done")
        if not content:
            self._selector.unregister(line.connection)
            line.connection.close()
            self._lines.remove(line)
            if not self._lines:
                return self._served("lost", "the server closed the connection without a word")
        return None

    def _round(self, lines: Sequence[_Line]) -> str | None:
        """Evaluate what waits on some connections; return why to stop, or None."""
        asked = []
        for line in lines:
            structures = line.protocol.waiting
            assert structures is not None
            asked.append(self._place(line, structures))
        frames = [atoms for group in asked for atoms in group]
        begin = time.perf_counter()
        predictions = self.potential.predict(frames)
        seconds = time.perf_counter() - begin
        self._gather_s = min(max(GATHER_S, seconds), LONGEST_GATHER_S)
        self._seconds += seconds
        self._structures += len(frames)
        self._rounds += 1
        reason = None if self.observe is None else self.observe(frames, predictions)
        if reason is not None:
            return reason
        answers = [
            self._answer(atoms, prediction)
            for atoms, prediction in zip(frames, predictions, strict=True)
        ]
        for line, group in zip(lines, asked, strict=True):
            own, answers = answers[: len(group)], answers[len(group) :]
            reply = line.protocol.answer(own)
            try:
                if reply:
                    _send(line.connection, reply)
            except OSError:
                logger.debug("a connection ended before its answer")  # its reader will notice
        # beads that came meanwhile belong to this round, and so may those of the rounds before
        late = sum(key.data not in lines for key, _ in self._selector.select(0.0))
        for line in lines:
            line.last_round = self._rounds
        recent = sum(line.last_round > self._rounds - RECENT_ROUNDS for line in self._lines)
        self._expected = min(max(len(lines) + late, recent), max(len(self._lines), 1))
        return None

    def _place(self, line: _Line, structures: Structures) -> list[Atoms]:
        """Return the line's own frames, moved to where the server has them."""
        count, num_atoms = structures.positions.shape[:2]
        if num_atoms != len(self.template):
            raise SamplerError(
                f"the server sends {num_atoms} atoms and the template has {len(self.template)} "
                f"({self.template.get_chemical_formula()}); give the structure that i-PI's input "
                "starts from, with its atoms in the same order"
            )
        if not np.isfinite(structures.positions).all():
            raise StructureError(
                f"the server sent positions that are not finite after {self._structures} "
                "structures: its dynamics has blown up; start from before that with a smaller "
                "time step"
            )
        if self._rounds == 0:
            for positions in structures.positions:
                refuse_reordered(self.template, positions)
        while len(line.frames) < count:
            line.frames.append(moving_copy(self.template))
        periodic = self.template.pbc.any()
        for index, atoms in enumerate(line.frames[:count]):
            atoms.set_positions(structures.positions[index], apply_constraint=False)
            if periodic:
                atoms.set_cell(structures.cells[index])
        return line.frames[:count]

    def _answer(self, atoms: Atoms, prediction: Prediction) -> Answer:
        """Return what goes back about a structure."""
        virial = np.zeros((3, 3))
        if prediction.stress is not None and atoms.pbc.all():
            virial = -atoms.get_volume() * prediction.stress
        energy, forces = prediction.energy, prediction.forces
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise SamplerError(
                f"the forces of structure {self._structures} are not finite; the dynamics has left "
                "what the potential knows: use a smaller time step, or retrain it"
            )
        return Answer(
            energy=energy,
            forces=forces,
            virial=virial,
            extras=extras_text(prediction, virial, self.settings.extras),
        )

    def _served(self, ended: Literal["exit", "lost", "stopped", "idle"], reason: str) -> Served:
        """Return the account."""
        return Served(
            ended=ended,
            reason=reason,
            structures=self._structures,
            rounds=self._rounds,
            seconds=self._seconds,
        )


def _send(connection: socket.socket, content: bytes) -> None:
    """Send everything, waiting where the server is slow to read."""
    connection.settimeout(_SEND_TIMEOUT_S)
    try:
        connection.sendall(content)
    finally:
        connection.setblocking(False)
