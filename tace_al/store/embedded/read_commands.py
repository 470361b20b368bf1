"""The commands that change nothing: find, count, distinct, aggregate."""

from collections.abc import Mapping
from typing import Any

from tace_al.store.embedded.catalog import Catalog
from tace_al.store.embedded.command_errors import FAILED_TO_PARSE, NOT_IMPLEMENTED, CommandError
from tace_al.store.embedded.cursors import Cursors
from tace_al.store.embedded.planner import count, select
from tace_al.store.embedded.semantics import Semantics

Command = Mapping[str, Any]
Reply = dict[str, Any]

_COUNT_GROUP = {"$group": {"_id": 1, "n": {"$sum": 1}}}


def find(catalog: Catalog, cursors: Cursors, semantics: Semantics, command: Command) -> Reply:
    """Answer `find`."""
    if command.get("tailable") or command.get("collation"):
        raise CommandError(
            NOT_IMPLEMENTED, "the embedded database has no tailable cursors and no collations"
        )
    collection = catalog.collection(command["$db"], command["find"])
    limit = abs(int(command.get("limit") or 0))
    found = select(
        collection,
        command.get("filter") or {},
        sort=sort_pairs(command.get("sort")),
        skip=int(command.get("skip") or 0),
        limit=limit,
    )
    bodies = semantics.projected((stored.body for stored in found), command.get("projection"))
    batch_size = command.get("batchSize")
    single = bool(command.get("singleBatch")) or (command.get("limit") or 0) < 0
    return cursors.first(collection.namespace, bodies, batch_size=batch_size, single_batch=single)


def count_documents(catalog: Catalog, command: Command) -> Reply:
    """Answer `count`."""
    collection = catalog.collection(command["$db"], command["count"])
    query = command.get("query") or {}
    found = len(collection.documents) if not query else count(collection, query)
    found = max(found - int(command.get("skip") or 0), 0)
    limit = abs(int(command.get("limit") or 0))
    return {"n": min(found, limit) if limit else found}


def distinct(catalog: Catalog, semantics: Semantics, command: Command) -> Reply:
    """Answer `distinct`."""
    collection = catalog.collection(command["$db"], command["distinct"])
    found = select(collection, command.get("query") or {})
    return {"values": semantics.distinct((stored.body for stored in found), command["key"])}


def aggregate(catalog: Catalog, cursors: Cursors, semantics: Semantics, command: Command) -> Reply:
    """Answer `aggregate`; a leading `$match` uses the indexes, counting copies nothing."""
    collection = catalog.collection(command["$db"], command["aggregate"])
    pipeline = command.get("pipeline")
    if not isinstance(pipeline, list) or not all(isinstance(stage, dict) for stage in pipeline):
        raise CommandError(FAILED_TO_PARSE, "'pipeline' must be an array of stages")
    criteria: Mapping[str, Any] = {}
    if pipeline and "$match" in pipeline[0]:
        criteria, pipeline = pipeline[0]["$match"], pipeline[1:]
    if pipeline == [_COUNT_GROUP]:
        found = count(collection, criteria)
        results: list[Mapping[str, Any]] = [{"_id": 1, "n": found}] if found else []
    else:
        bodies = (stored.body for stored in select(collection, criteria))
        results = semantics.aggregated(bodies, pipeline)
    batch_size = (command.get("cursor") or {}).get("batchSize")
    return cursors.first(collection.namespace, results, batch_size=batch_size)


def sort_pairs(sort: Any) -> list[tuple[str, int]]:
    """Return a sort document as pairs of path and 1 or -1."""
    if not sort:
        return []
    if not all(isinstance(direction, int | float) for direction in sort.values()):
        raise CommandError(NOT_IMPLEMENTED, "the embedded database sorts by plain fields only")
    return [(path, 1 if direction > 0 else -1) for path, direction in sort.items()]
