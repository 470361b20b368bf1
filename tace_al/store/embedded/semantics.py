"""What updates, projections and pipelines mean, as mongomock sees it.

Each operation runs on a scratch collection that holds copies, because mongomock changes stored
documents in place; what comes out is a new body for `MemoryCollection` to take or refuse.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, final

import mongomock
from bson.errors import InvalidDocument
from pymongo.errors import PyMongoError

from tace_al.store.embedded.command_errors import (
    BAD_VALUE,
    DUPLICATE_KEY,
    NOT_IMPLEMENTED,
    CommandError,
)

Body = Mapping[str, Any]


@final
class Semantics:
    """Applies MongoDB's operators to single documents and lists of documents."""

    def __init__(self) -> None:
        self._scratch: Any = mongomock.MongoClient()["scratch"]["scratch"]

    def updated(self, body: Body, criteria: Body, update: Any) -> dict[str, Any]:
        """Return the document after an update or replacement."""
        if _is_simple(body, update):
            return _simply_updated(body, update)
        self._fill([body])
        own = {"_id": body["_id"]}
        if _is_replacement(update):
            self._scratch.replace_one(own, {**update})
        else:
            # The positional operator needs the filter that found the array element.
            where = criteria if _is_positional(update) else own
            self._scratch.update_one(where, update)
        return self._only()

    def upserted(self, criteria: Body, update: Any) -> dict[str, Any]:
        """Return the document that an upsert without a match inserts."""
        self._fill([])
        if _is_replacement(update):
            self._scratch.replace_one(criteria, {**update}, upsert=True)
        else:
            self._scratch.update_one(criteria, update, upsert=True)
        return self._only()

    def projected(self, bodies: Iterable[Body], projection: Body | None) -> list[Body]:
        """Return the asked-for fields of each document."""
        if not projection:
            return list(bodies)
        if _is_plain_choice(projection):
            wanted = {"_id", *projection}
            return [{name: body[name] for name in body if name in wanted} for body in bodies]
        results: list[Body] = []
        for body in bodies:
            self._fill([body])
            results.extend(self._scratch.find({}, dict(projection)))
        return results

    def aggregated(self, bodies: Iterable[Body], pipeline: Sequence[Body]) -> list[Body]:
        """Return the result of a pipeline that stays within one collection."""
        for stage in pipeline:
            if {"$lookup", "$graphLookup", "$out", "$merge"} & set(stage):
                raise CommandError(
                    NOT_IMPLEMENTED,
                    f"the embedded database has no {next(iter(stage))}; use a MongoDB server",
                )
        self._fill(bodies)
        return list(self._scratch.aggregate(list(pipeline)))

    def distinct(self, bodies: Iterable[Body], path: str) -> list[Any]:
        """Return the different values at a dotted path."""
        self._fill(bodies)
        return list(self._scratch.find({}).distinct(path))

    def _fill(self, bodies: Iterable[Body]) -> None:
        """Make the scratch collection hold copies of these documents and nothing else."""
        self._scratch.drop()
        for body in bodies:
            self._scratch.insert_one(dict(body))

    def _only(self) -> dict[str, Any]:
        """Return the scratch collection's single document."""
        found = self._scratch.find_one({})
        assert found is not None
        return dict(found)


def as_command_error(error: Exception) -> CommandError:
    """Return mongomock's complaint as a reply of the server."""
    if isinstance(error, mongomock.DuplicateKeyError):
        return CommandError(DUPLICATE_KEY, str(error))
    if isinstance(error, NotImplementedError):
        return CommandError(NOT_IMPLEMENTED, f"not in the embedded database: {error}")
    return CommandError(getattr(error, "code", None) or BAD_VALUE, str(error))


SEMANTIC_ERRORS = (
    PyMongoError,
    InvalidDocument,
    NotImplementedError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    IndexError,
)
"""What mongomock raises for a command it refuses or cannot digest."""


def _is_plain_choice(projection: Body) -> bool:
    """Tell a projection that only names top-level fields to keep."""
    return all(
        isinstance(value, int) and bool(value) and "." not in name and "$" not in name
        for name, value in projection.items()
    )


def _is_simple(body: Body, update: Any) -> bool:
    """Tell an update of plain top-level fields, which needs no mongomock (a claim, a move)."""
    if not isinstance(update, Mapping) or not update or not set(update) <= {"$set", "$inc"}:
        return False
    paths = [path for fields in update.values() for path in _paths(fields)]
    special = any(path in ("", "_id") or "." in path or path.startswith("$") for path in paths)
    if special or len(set(paths)) < len(paths):
        return False
    numbers = [(body.get(path, 0), by) for path, by in update.get("$inc", {}).items()]
    return all(type(number) in (int, float) for pair in numbers for number in pair)


def _paths(fields: Any) -> list[str]:
    """Return what an operator changes; one that cannot be understood counts as dotted."""
    return list(fields) if isinstance(fields, Mapping) else ["."]


def _simply_updated(body: Body, update: Body) -> dict[str, Any]:
    """Return the document after `$set` and `$inc` of plain top-level fields."""
    increments = update.get("$inc", {})
    sums = {path: body.get(path, 0) + by for path, by in increments.items()}
    return {**body, **update.get("$set", {}), **sums}


def _is_replacement(update: Any) -> bool:
    """Tell a whole new document from operators."""
    return isinstance(update, Mapping) and not any(name.startswith("$") for name in update)


def _is_positional(update: Any) -> bool:
    """Tell whether an update uses `field.$`."""
    if not isinstance(update, Mapping):
        return False
    return any(
        "$" in path for fields in update.values() if isinstance(fields, Mapping) for path in fields
    )
