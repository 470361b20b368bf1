"""Results that do not fit one reply: batches under the 16 MB limit, the rest on request.

Bodies are never changed in place, so a cursor simply keeps the documents it found: a snapshot.
"""

import time
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, final

import bson

from tace_al.store.embedded.command_errors import CURSOR_NOT_FOUND, CommandError
from tace_al.store.embedded.wire import CODEC, MAX_DOCUMENT_BYTES

_FIRST_BATCH = 101
_MAX_IDLE_SECONDS = 600.0
_ENVELOPE_BYTES = 16 * 1024


@final
class _Cursor:
    """Documents still to be sent."""

    def __init__(self, namespace: str, bodies: Sequence[Mapping[str, Any]]) -> None:
        self.namespace = namespace
        self.bodies = bodies
        self.position = 0
        self.last_used = time.monotonic()


@final
class Cursors:
    """The open cursors of a server."""

    def __init__(self) -> None:
        self._open: dict[int, _Cursor] = {}
        self._numbers = count(1)

    def first(
        self,
        namespace: str,
        bodies: Sequence[Mapping[str, Any]],
        *,
        batch_size: int | None,
        single_batch: bool = False,
    ) -> dict[str, Any]:
        """Return the reply with the first batch, opening a cursor for the rest."""
        self._drop_idle()
        cursor = _Cursor(namespace, bodies)
        batch = _next_batch(cursor, _FIRST_BATCH if batch_size is None else batch_size)
        number = 0
        if cursor.position < len(bodies) and not single_batch:
            number = next(self._numbers)
            self._open[number] = cursor
        return {"cursor": {"id": bson.Int64(number), "ns": namespace, "firstBatch": batch}}

    def more(self, number: int, batch_size: int | None) -> dict[str, Any]:
        """Return the reply with the next batch.

        Raises
        ------
        CommandError
            No such cursor is open.
        """
        cursor = self._open.get(number)
        if cursor is None:
            raise CommandError(CURSOR_NOT_FOUND, f"cursor id {number} not found")
        cursor.last_used = time.monotonic()
        batch = _next_batch(cursor, batch_size or len(cursor.bodies))
        if cursor.position >= len(cursor.bodies):
            del self._open[number]
            number = 0
        return {"cursor": {"id": bson.Int64(number), "ns": cursor.namespace, "nextBatch": batch}}

    def kill(self, numbers: Sequence[int]) -> dict[str, Any]:
        """Forget cursors."""
        known = [number for number in numbers if self._open.pop(number, None) is not None]
        return {
            "cursorsKilled": known,
            "cursorsNotFound": [number for number in numbers if number not in known],
            "cursorsAlive": [],
            "cursorsUnknown": [],
        }

    def _drop_idle(self) -> None:
        """Forget cursors that nobody has read from for long."""
        oldest = time.monotonic() - _MAX_IDLE_SECONDS
        for number in [n for n, cursor in self._open.items() if cursor.last_used < oldest]:
            del self._open[number]


def _next_batch(cursor: _Cursor, batch_size: int) -> list[Mapping[str, Any]]:
    """Return as many documents as are asked for and fit; at least one if one is asked for."""
    batch: list[Mapping[str, Any]] = []
    room = MAX_DOCUMENT_BYTES - _ENVELOPE_BYTES
    while cursor.position < len(cursor.bodies) and len(batch) < batch_size:
        body = cursor.bodies[cursor.position]
        room -= len(bson.encode(body, codec_options=CODEC)) + 16
        if room < 0 and batch:
            break
        batch.append(body)
        cursor.position += 1
    return batch
