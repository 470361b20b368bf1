"""The commands that change documents: insert, update, delete, findAndModify.

As in MongoDB, each document changes whole or not at all; a command over many documents may stop
half way and then says at which operation.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tace_al.store.embedded.catalog import Catalog
from tace_al.store.embedded.command_errors import (
    FAILED_TO_PARSE,
    NOT_IMPLEMENTED,
    CommandError,
)
from tace_al.store.embedded.memory_collection import MemoryCollection
from tace_al.store.embedded.planner import select
from tace_al.store.embedded.read_commands import sort_pairs
from tace_al.store.embedded.semantics import SEMANTIC_ERRORS, Semantics, as_command_error

Command = Mapping[str, Any]
Reply = dict[str, Any]


def insert(catalog: Catalog, command: Command) -> Reply:
    """Answer `insert`."""
    collection = catalog.existing_or_new(command["$db"], command["insert"])
    documents = _operations(command, "documents")
    inserted = 0

    def insert_one(_: int, body: Mapping[str, Any]) -> None:
        nonlocal inserted
        collection.insert(body)
        inserted += 1

    errors = _each(documents, insert_one, ordered=command.get("ordered", True))
    return {"n": inserted, **errors}


def update(catalog: Catalog, semantics: Semantics, command: Command) -> Reply:
    """Answer `update`."""
    database, name = command["$db"], command["update"]
    matched = modified = 0
    upserted: list[dict[str, Any]] = []

    def update_one(index: int, operation: Mapping[str, Any]) -> None:
        nonlocal matched, modified
        _refuse_options(operation)
        collection = catalog.collection(database, name)
        criteria, change = operation["q"], operation["u"]
        found = select(collection, criteria, limit=0 if operation.get("multi") else 1)
        for stored in found:
            matched += 1
            if collection.replace(stored, semantics.updated(stored.body, criteria, change)):
                modified += 1
        if not found and operation.get("upsert"):
            body = semantics.upserted(criteria, change)
            new = catalog.existing_or_new(database, name).insert(body)
            matched += 1
            upserted.append({"index": index, "_id": new.body["_id"]})

    operations = _operations(command, "updates")
    errors = _each(operations, update_one, ordered=command.get("ordered", True))
    reply: Reply = {"n": matched, "nModified": modified, **errors}
    if upserted:
        reply["upserted"] = upserted
    return reply


def delete(catalog: Catalog, command: Command) -> Reply:
    """Answer `delete`."""
    collection = catalog.collection(command["$db"], command["delete"])
    deleted = 0

    def delete_some(_: int, operation: Mapping[str, Any]) -> None:
        nonlocal deleted
        _refuse_options(operation)
        for stored in select(collection, operation["q"], limit=int(operation.get("limit") or 0)):
            collection.remove(stored)
            deleted += 1

    operations = _operations(command, "deletes")
    errors = _each(operations, delete_some, ordered=command.get("ordered", True))
    return {"n": deleted, **errors}


def find_and_modify(catalog: Catalog, semantics: Semantics, command: Command) -> Reply:
    """Answer `findAndModify`: one document, found and changed with nothing in between."""
    _refuse_options(command)
    name = command.get("findAndModify") or command.get("findandmodify")
    collection = catalog.collection(command["$db"], name)
    criteria = command.get("query") or {}
    found = select(collection, criteria, sort=sort_pairs(command.get("sort")), limit=1)
    result: Mapping[str, Any] | None = None
    last: dict[str, Any] = {"n": len(found), "updatedExisting": bool(found)}
    if command.get("remove"):
        last.pop("updatedExisting")
        if found:
            collection.remove(found[0])
            result = found[0].body
    else:
        result = _modify_one(catalog, semantics, command, collection, found, last)
    if result is not None and command.get("fields"):
        result = semantics.projected([result], command["fields"])[0]
    return {"value": result, "lastErrorObject": last}


def _modify_one(
    catalog: Catalog,
    semantics: Semantics,
    command: Command,
    collection: MemoryCollection,
    found: Sequence[Any],
    last: dict[str, Any],
) -> Mapping[str, Any] | None:
    """Update or upsert for `findAndModify`; return the old or new body as asked."""
    criteria, change = command.get("query") or {}, command["update"]
    if found:
        stored = found[0]
        body = semantics.updated(stored.body, criteria, change)
        collection.replace(stored, body)
        return body if command.get("new") else stored.body
    if not command.get("upsert"):
        return None
    body = semantics.upserted(criteria, change)
    new = catalog.existing_or_new(*collection.namespace.split(".", 1)).insert(body)
    last.update(n=1, upserted=new.body["_id"])
    return new.body if command.get("new") else None


def _each(
    operations: Sequence[Mapping[str, Any]],
    run: Callable[[int, Mapping[str, Any]], None],
    *,
    ordered: bool,
) -> dict[str, Any]:
    """Run operations one after the other; return their errors as reply fields."""
    errors = []
    for index, operation in enumerate(operations):
        try:
            run(index, operation)
        except CommandError as error:
            errors.append(error.write_error(index))
        except SEMANTIC_ERRORS as error:
            errors.append(as_command_error(error).write_error(index))
        if errors and ordered:
            break
    return {"writeErrors": errors} if errors else {}


def _operations(command: Command, name: str) -> list[Mapping[str, Any]]:
    """Return a command's list of operations."""
    operations = command.get(name)
    if not isinstance(operations, list) or not operations:
        raise CommandError(FAILED_TO_PARSE, f"'{name}' must be a list that is not empty")
    return operations


def _refuse_options(operation: Mapping[str, Any]) -> None:
    """Raise for options whose silent neglect would change the result."""
    for option in ("collation", "arrayFilters"):
        if operation.get(option):
            raise CommandError(
                NOT_IMPLEMENTED, f"the embedded database has no {option}; use a MongoDB server"
            )
