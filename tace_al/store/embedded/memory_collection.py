"""One collection: documents in memory by `_id`, their indexes, and every change in the journal.

Documents are held as BSON and never changed in place. A change is written to the journal first,
then the new document takes the old one's place, so that cursors keep what they found and a refused
change leaves nothing behind.
"""

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any, final

import bson
from bson import ObjectId
from bson.regex import Regex

from tace_al.store.embedded.command_errors import (
    BAD_VALUE,
    DOCUMENT_TOO_LARGE,
    DUPLICATE_KEY,
    IMMUTABLE_FIELD,
    INDEX_CONFLICT,
    INDEX_NOT_FOUND,
    CommandError,
)
from tace_al.store.embedded.hash_index import HashIndex, IndexSpec, Stored
from tace_al.store.embedded.journal import Journal
from tace_al.store.embedded.scalar_keys import ScalarKey, identity_key
from tace_al.store.embedded.wire import CODEC, MAX_DOCUMENT_BYTES

_UNSUPPORTED_OPTIONS = ("expireAfterSeconds", "partialFilterExpression", "collation")
_ID_INDEX = {"v": 2, "key": {"_id": 1}, "name": "_id_"}


@final
class MemoryCollection:
    """The documents and indexes of one namespace.

    Parameters
    ----------
    namespace
        "database.collection".
    journal
        Where changes are written.
    serials
        Source of insertion numbers, shared by all collections of a server.
    """

    def __init__(self, namespace: str, journal: Journal, serials: Iterator[int]) -> None:
        self.namespace = namespace
        self.documents: dict[ScalarKey, Stored] = {}
        self.indexes: dict[str, HashIndex] = {}
        self._definitions: dict[str, dict[str, Any]] = {}
        self._journal = journal
        self._serials = serials

    def insert(self, body: Mapping[str, Any]) -> Stored:
        """Add a document, with a new `_id` if it has none.

        Raises
        ------
        CommandError
            A field name or `_id` is not allowed, or a unique index already has the values.
        """
        _check_names(body)
        complete = {"_id": body["_id"] if "_id" in body else ObjectId(), **body}
        if isinstance(complete["_id"], list | Regex):
            raise CommandError(BAD_VALUE, f"_id cannot be a {type(complete['_id']).__name__}")
        key = identity_key(complete["_id"])
        if key in self.documents:
            raise self._duplicate("_id_", {"_id": 1}, complete)
        self._check_unique(complete, key)
        stored = Stored(key=key, serial=next(self._serials), content=_encoded(complete))
        self._journal.put(stored.serial, self.namespace, stored.content)
        self._enter(stored, complete)
        return stored

    def replace(self, stored: Stored, body: Mapping[str, Any]) -> bool:
        """Put a new body in a document's place; False when it is exactly the old one.

        Exactly: 1 and 1.0 and True differ, NaN equals itself, the order of fields counts.

        Raises
        ------
        CommandError
            The `_id` differs, or a unique index already has the values.
        """
        content = _encoded(body)
        if content == stored.content and stored.serial not in self._journal.damaged:
            return False
        _check_names(body)
        if "_id" not in body or identity_key(body["_id"]) != stored.key:
            raise CommandError(
                IMMUTABLE_FIELD, "after the update the immutable field '_id' was found altered"
            )
        self._check_unique(body, stored.key)
        changed = Stored(key=stored.key, serial=stored.serial, content=content)
        self._journal.put(stored.serial, self.namespace, content)
        former = stored.body
        for index in self.indexes.values():
            index.remove(stored, former)
            index.add(changed, body)
        self.documents[stored.key] = changed
        return True

    def remove(self, stored: Stored) -> None:
        """Delete a document."""
        self._journal.remove(stored.serial)
        former = stored.body
        for index in self.indexes.values():
            index.remove(stored, former)
        del self.documents[stored.key]

    def load(self, serial: int, content: bytes) -> None:
        """Take in a document that the journal already has."""
        body = bson.decode(content, codec_options=CODEC)
        key = identity_key(body["_id"])
        self._enter(Stored(key=key, serial=serial, content=content), body)

    def create_index(self, definition: Mapping[str, Any], *, write: bool = True) -> bool:
        """Make an index from MongoDB's definition of it; False when it was there.

        Raises
        ------
        CommandError
            The definition is unsupported, contradicts an index of that name, or is unique where
            the documents are not.
        """
        spec = _index_spec(definition)
        if spec.name == "_id_" or spec.fields == (("_id", 1),):
            return False
        if spec.name in self.indexes:
            if self.indexes[spec.name].spec == spec:
                return False
            raise CommandError(INDEX_CONFLICT, f"index {spec.name} exists with other options")
        index = HashIndex(spec)
        for stored in self.documents.values():
            body = stored.body
            if index.conflict(body, stored.key):
                raise self._duplicate(spec.name, dict(spec.fields), body)
            index.add(stored, body)
        if write:
            self._journal.put_index(self.namespace, definition)
        self.indexes[spec.name] = index
        self._definitions[spec.name] = {"v": 2, **definition}
        return True

    def drop_index(self, name: str) -> None:
        """Delete an index by name, or all with "*"."""
        names = list(self.indexes) if name == "*" else [name]
        for each in names:
            if each not in self.indexes:
                raise CommandError(INDEX_NOT_FOUND, f"index not found with name [{each}]")
            self._journal.remove_index(self.namespace, each)
            del self.indexes[each], self._definitions[each]

    def index_definitions(self) -> list[dict[str, Any]]:
        """Return the definitions of all indexes, that of `_id` first."""
        return [_ID_INDEX, *self._definitions.values()]

    def _enter(self, stored: Stored, body: Mapping[str, Any]) -> None:
        """Add to the maps."""
        for index in self.indexes.values():
            index.add(stored, body)
        self.documents[stored.key] = stored

    def _check_unique(self, body: Mapping[str, Any], own: ScalarKey) -> None:
        """Raise unless every unique index accepts the body."""
        for index in self.indexes.values():
            if index.conflict(body, own):
                raise self._duplicate(index.spec.name, dict(index.spec.fields), body)

    def _duplicate(
        self, name: str, fields: Mapping[str, int], body: Mapping[str, Any]
    ) -> CommandError:
        """Return the error of a value that is taken."""
        values = {path: body.get(path) for path in fields if "." not in path}
        return CommandError(
            DUPLICATE_KEY,
            f"E11000 duplicate key error collection: {self.namespace} index: {name} "
            f"dup key: {values}",
            keyPattern=dict(fields),
            keyValue=values,
        )


def _encoded(body: Mapping[str, Any]) -> bytes:
    """Return a document as BSON that is within the size limit."""
    content = bson.encode(body, codec_options=CODEC)
    if len(content) > MAX_DOCUMENT_BYTES:
        raise CommandError(
            DOCUMENT_TOO_LARGE,
            f"the document has {len(content)} bytes, the limit is {MAX_DOCUMENT_BYTES}",
        )
    return content


def new_serials(last: int) -> Iterator[int]:
    """Return insertion numbers that follow `last`."""
    return count(last + 1)


def _check_names(body: Mapping[str, Any]) -> None:
    """Raise when a top-level field name is an operator."""
    for name in body:
        if name.startswith("$"):
            raise CommandError(BAD_VALUE, f"field names cannot start with '$': {name}")


def _index_spec(definition: Mapping[str, Any]) -> IndexSpec:
    """Return the index that a definition describes."""
    for option in _UNSUPPORTED_OPTIONS:
        if definition.get(option) is not None:
            raise CommandError(
                BAD_VALUE,
                f"the embedded database has no indexes with {option}; drop the option or use a "
                "MongoDB server",
            )
    fields = []
    for path, direction in definition["key"].items():
        if direction == "hashed":
            direction = 1
        if not isinstance(direction, int | float):
            raise CommandError(
                BAD_VALUE, f"the embedded database has no {direction!r} index; use a MongoDB server"
            )
        fields.append((path, 1 if direction > 0 else -1))
    return IndexSpec(
        name=definition["name"],
        fields=tuple(fields),
        unique=bool(definition.get("unique", False)),
        sparse=bool(definition.get("sparse", False)),
    )
