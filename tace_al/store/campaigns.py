"""The campaign's own record, its counters, its events and its counts."""

from collections.abc import Mapping
from typing import Any, final

from pymongo import ReturnDocument

from tace_al.core.errors import StoreError
from tace_al.core.hashing import content_hash
from tace_al.store.border import guarded
from tace_al.store.connection import Connection
from tace_al.store.records import (
    CANDIDATE_STATES,
    CHUNK_STATES,
    GENERATION_STATES,
    LABEL_ROLES,
    CampaignRecord,
    CandidateRecord,
    ChunkRecord,
    CounterRecord,
    EventRecord,
    GenerationRecord,
    LabelRecord,
    ModelRecord,
    StructureRecord,
)
from tace_al.store.table import Table, now, plain


@final
class Campaigns:
    """How one campaign was set up and how it stands."""

    def __init__(self, connection: Connection, campaign: str) -> None:
        self.connection = connection
        self._campaign = campaign
        self._records = Table(CampaignRecord, connection, campaign)
        self._events = Table(EventRecord, connection, campaign)

    @guarded
    def start(
        self, name: str, config: Mapping[str, Any], *, seed: int, code_version: str
    ) -> CampaignRecord:
        """Note that the campaign starts, or goes on, and return its record.

        A campaign that goes on with another configuration keeps the new one and an event says so.
        """
        config = plain(config, "config")
        key = _config_hash(config)
        fields = {
            "name": name,
            "config": config,
            "config_hash": key,
            "seed": seed,
            "code_version": code_version,
            "state": "running",
            "updated": now(),
        }
        if not self._records.insert(created=now(), **fields):
            before = self._records.one()
            if before.config_hash != key:
                self.log(
                    "config",
                    "the campaign goes on with another configuration",
                    before=before.config_hash,
                    after=key,
                )
            self._records.change({}, fields)
        return self._records.one()

    @guarded
    def record(self) -> CampaignRecord:
        """Return the campaign's record."""
        return self._records.one()

    @guarded
    def finish(self, state: str, result: Mapping[str, Any] | None = None) -> None:
        """Note how the campaign ended: finished, stopped or failed."""
        fields: dict[str, Any] = {"state": state, "updated": now()}
        if result is not None:
            fields["result"] = result
        self._records.change({}, fields)

    @guarded
    def log(self, kind: str, message: str, /, **data: Any) -> None:
        """Note an event."""
        self._events.insert(kind=kind, message=message, data=data, time=now())

    @guarded
    def events(self, kind: str | None = None) -> list[EventRecord]:
        """Return the events in order of time, all or of one kind."""
        where = {} if kind is None else {"kind": kind}
        return list(self._events.objects.filter(**where).order_by("time", "id"))

    @guarded
    def counts(self) -> dict[str, Any]:
        """Return how many records there are, by kind and state."""
        candidates = Table(CandidateRecord, self.connection, self._campaign)
        labels = Table(LabelRecord, self.connection, self._campaign).objects
        generations = Table(GenerationRecord, self.connection, self._campaign)
        chunks = Table(ChunkRecord, self.connection, self._campaign)
        done = labels.filter(state="labelled")
        return {
            "structures": _all(StructureRecord, self.connection, self._campaign),
            "candidates": _by_state(candidates, CANDIDATE_STATES),
            "labels": {
                **{role: done.filter(role=role).count() for role in LABEL_ROLES},
                "failed": labels.filter(state="failed").count(),
            },
            "models": _all(ModelRecord, self.connection, self._campaign),
            "generations": _by_state(generations, GENERATION_STATES),
            "chunks": _by_state(chunks, CHUNK_STATES),
            "events": _all(EventRecord, self.connection, self._campaign),
        }


def next_number(connection: Connection, campaign: str, name: str) -> int:
    """Return 0, 1, 2, ... for each call with this name, across all processes."""
    counter = Table(CounterRecord, connection, campaign).collection.find_one_and_update(
        {"campaign": campaign, "name": name},
        {"$inc": {"value": 1}},
        upsert=True,
        return_document=ReturnDocument.AFTER,
    )
    assert counter is not None
    return int(counter["value"]) - 1


def _by_state(table: Table[Any], states: tuple[str, ...]) -> dict[str, int]:
    """Return the number of records in each state that has any."""
    counts = {state: int(table.objects.filter(state=state).count()) for state in states}
    return {state: number for state, number in counts.items() if number}


def _all(record: type[Any], connection: Connection, campaign: str) -> int:
    """Return the number of records of one kind."""
    return int(Table(record, connection, campaign).objects.count())


def _config_hash(config: Mapping[str, Any]) -> str:
    """Return the hash of a configuration of plain values."""
    try:
        return content_hash(config)
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"the configuration is not made of plain finite values: {error}; dump it with "
            "`model_dump(mode='json')`"
        ) from error
