"""A campaign's documents as they lie in the database, for checking and copying all of them.

mongoengine would build an object for each; here they stay dictionaries, and come in portions, so
that 10^5 structures neither fill the memory nor hold the embedded server up for long.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

from bson import ObjectId

from tace_al.core.errors import DatabaseUnreachable, StorageFull, StoreError
from tace_al.store.blobs import read_blob
from tace_al.store.border import guarded
from tace_al.store.connection import Connection
from tace_al.store.records import (
    CandidateRecord,
    FidelityRecord,
    LabelRecord,
    ModelRecord,
    StructureRecord,
    TrainingSetRecord,
)
from tace_al.store.structures import chunked

Fields = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """Which keys a campaign has.

    Parameters
    ----------
    structures, fidelities, training_sets, models
        Keys.
    labels
        Key of the structure by key of the label or failure.
    labelled
        Keys of those labels that are results.
    candidates
        State by key.
    """

    structures: frozenset[str]
    fidelities: frozenset[str]
    training_sets: frozenset[str]
    models: frozenset[str]
    labels: Mapping[str, str]
    labelled: frozenset[str]
    candidates: Mapping[str, str]


@final
class RawRecords:
    """The documents of one campaign, kind by kind."""

    def __init__(self, connection: Connection, campaign: str) -> None:
        self.connection = connection
        self.campaign = campaign

    def each(self, record: type[Any], *fields: str) -> Iterator[Fields]:
        """Give the documents of a kind with the named fields, or with all, in order of age."""
        name = record._meta["collection"]
        projection = dict.fromkeys(fields, 1) if fields else None
        for portion in chunked(self.identities(name)):
            yield from self.found(name, {"_id": {"$in": portion}}, projection)

    def contents(self) -> Contents:
        """Return every key; referring records first, so that what they name is there by then."""
        candidates = {each["key"]: each["state"] for each in self.keys(CandidateRecord, "state")}
        models = frozenset(each["key"] for each in self.keys(ModelRecord))
        training_sets = frozenset(each["key"] for each in self.keys(TrainingSetRecord))
        labels = self.keys(LabelRecord, "structure", "state")
        return Contents(
            candidates=candidates,
            models=models,
            training_sets=training_sets,
            labels={each["key"]: each["structure"] for each in labels},
            labelled=frozenset(each["key"] for each in labels if each["state"] == "labelled"),
            fidelities=frozenset(each["key"] for each in self.keys(FidelityRecord)),
            structures=frozenset(each["key"] for each in self.keys(StructureRecord)),
        )

    def keys(self, record: type[Any], *fields: str) -> list[Fields]:
        """Return key and few small fields of all documents of a kind."""
        return self.found(record._meta["collection"], {}, dict.fromkeys(("key", *fields), 1))

    def blob(self, document: Mapping[str, Any], name: str) -> bytes:
        """Return a packed value that lies in a document or beside it, empty when it is gone."""
        try:
            return self._blob(document.get(name), document.get(f"{name}_file")) or b""
        except (DatabaseUnreachable, StorageFull):
            raise
        except StoreError:
            return b""

    @guarded
    def identities(self, collection: str) -> list[Any]:
        """Return the `_id`s of the campaign's documents in a collection, sorted."""
        found = self.connection.documents[collection].find({"campaign": self.campaign}, {"_id": 1})
        return [each["_id"] for each in found.sort("_id", 1)]

    @guarded
    def found(
        self, collection: str, where: Mapping[str, Any], projection: Mapping[str, int] | None
    ) -> list[Fields]:
        """Return the campaign's documents that fit."""
        chosen = {"campaign": self.campaign, **where}
        return list(self.connection.documents[collection].find(chosen, projection))

    @guarded
    def _blob(self, content: bytes | None, file: ObjectId | None) -> bytes | None:
        """Return a packed value; GridFS raises for a file that is gone or damaged."""
        return read_blob(self.connection, content, file)
