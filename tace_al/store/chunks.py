"""Walkers, chunk by chunk: `running -> known | uncertain | broken`."""

from typing import Any, final

from tace_al.core.errors import StoreError, nearest_names
from tace_al.store.border import guarded
from tace_al.store.connection import Connection
from tace_al.store.records import CHUNK_STATES, ChunkRecord
from tace_al.store.table import Table, now


@final
class Chunks:
    """The chunks of one campaign."""

    def __init__(self, connection: Connection, campaign: str) -> None:
        self.connection = connection
        self._records = Table(ChunkRecord, connection, campaign)

    @guarded
    def add(self, key: str, **fields: Any) -> bool:
        """Store a chunk (fields of `ChunkRecord`); False when its key is there."""
        return self._records.insert(key=key, **{"created": now(), "updated": now(), **fields})

    @guarded
    def move(self, key: str, *, source: str | tuple[str, ...], target: str, **fields: Any) -> bool:
        """Move a chunk from a state (or one of several) to another; False if it was not there."""
        sources = (source,) if isinstance(source, str) else tuple(source)
        for state in (*sources, target):
            if state not in CHUNK_STATES:
                raise StoreError(
                    f"{state!r} is no state of a chunk.{nearest_names(state, CHUNK_STATES)}"
                )
        fields = {**fields, "state": target, "updated": now()}
        return self._records.move({"key": key}, sources, fields)

    @guarded
    def records(
        self,
        *,
        walker: str | None = None,
        state: str | None = None,
        kind: str | None = None,
        channel: str | None = None,
    ) -> list[ChunkRecord]:
        """Return chunks by walker and index; None means any."""
        where = {"walker": walker, "state": state, "kind": kind, "channel": channel}
        wanted = {name: value for name, value in where.items() if value is not None}
        return list(self._records.objects.filter(**wanted).order_by("walker", "index", "attempt"))

    @guarded
    def record(self, key: str) -> ChunkRecord:
        """Return one chunk."""
        return self._records.one(key=key)
