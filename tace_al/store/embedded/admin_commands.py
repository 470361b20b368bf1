"""Handshake, indexes, collections and databases."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tace_al.store.embedded.catalog import Catalog
from tace_al.store.embedded.command_errors import (
    FAILED_TO_PARSE,
    NAMESPACE_NOT_FOUND,
    CommandError,
)
from tace_al.store.embedded.cursors import Cursors
from tace_al.store.embedded.journal import Journal
from tace_al.store.embedded.wire import MAX_DOCUMENT_BYTES, MAX_MESSAGE_BYTES

Command = Mapping[str, Any]
Reply = dict[str, Any]

VERSION = (5, 0, 0, 0)  # the MongoDB release whose commands are spoken
_WIRE_VERSION = 13


def hello(command: Command) -> Reply:
    """Answer the handshake. No sessions are offered, so drivers use none."""
    return {
        "helloOk": True,
        "isWritablePrimary": True,
        "ismaster": True,
        "maxBsonObjectSize": MAX_DOCUMENT_BYTES,
        "maxMessageSizeBytes": MAX_MESSAGE_BYTES,
        "maxWriteBatchSize": 100_000,
        "localTime": datetime.now(UTC).replace(tzinfo=None),
        "minWireVersion": 0,
        "maxWireVersion": _WIRE_VERSION,
        "readOnly": False,
    }


def build_info() -> Reply:
    """Answer `buildInfo`."""
    return {
        "version": ".".join(map(str, VERSION[:3])),
        "versionArray": list(VERSION),
        "gitVersion": "tace-al embedded",
        "modules": [],
        "maxBsonObjectSize": MAX_DOCUMENT_BYTES,
    }


def create_indexes(catalog: Catalog, command: Command) -> Reply:
    """Answer `createIndexes`."""
    definitions = command.get("indexes")
    if not isinstance(definitions, list) or not definitions:
        raise CommandError(FAILED_TO_PARSE, "'indexes' must be a list that is not empty")
    collection = catalog.existing_or_new(command["$db"], command["createIndexes"])
    before = len(collection.index_definitions())
    for definition in definitions:
        collection.create_index({k: v for k, v in definition.items() if k != "ns"})
    return {
        "numIndexesBefore": before,
        "numIndexesAfter": len(collection.index_definitions()),
        "createdCollectionAutomatically": False,
    }


def list_indexes(catalog: Catalog, cursors: Cursors, command: Command) -> Reply:
    """Answer `listIndexes`."""
    database, name = command["$db"], command["listIndexes"]
    if not catalog.has(database, name):
        raise CommandError(NAMESPACE_NOT_FOUND, f"ns does not exist: {database}.{name}")
    collection = catalog.collection(database, name)
    return cursors.first(collection.namespace, collection.index_definitions(), batch_size=None)


def drop_indexes(catalog: Catalog, command: Command) -> Reply:
    """Answer `dropIndexes`."""
    collection = catalog.collection(command["$db"], command["dropIndexes"])
    wanted = command.get("index")
    before = len(collection.index_definitions())
    if isinstance(wanted, Mapping):
        names = [
            definition["name"]
            for definition in collection.index_definitions()
            if dict(definition["key"]) == dict(wanted)
        ]
        wanted = names[0] if names else str(dict(wanted))
    for name in wanted if isinstance(wanted, list) else [wanted]:
        collection.drop_index(str(name))
    return {"nIndexesWas": before}


def create(catalog: Catalog, command: Command) -> Reply:
    """Answer `create`."""
    if command.get("capped") or command.get("viewOn") or command.get("timeseries"):
        raise CommandError(FAILED_TO_PARSE, "the embedded database has plain collections only")
    catalog.existing_or_new(command["$db"], command["create"])
    return {}


def drop(catalog: Catalog, command: Command) -> Reply:
    """Answer `drop`."""
    database, name = command["$db"], command["drop"]
    if not catalog.has(database, name):
        raise CommandError(NAMESPACE_NOT_FOUND, "ns not found")
    catalog.drop(database, name)
    return {"ns": f"{database}.{name}"}


def drop_database(catalog: Catalog, command: Command) -> Reply:
    """Answer `dropDatabase`."""
    for name in catalog.names(command["$db"]):
        catalog.drop(command["$db"], name)
    return {"dropped": command["$db"]}


def list_collections(catalog: Catalog, cursors: Cursors, command: Command) -> Reply:
    """Answer `listCollections`; the filter may ask for a name."""
    database = command["$db"]
    wanted = (command.get("filter") or {}).get("name")
    names = catalog.names(database)
    if isinstance(wanted, str):
        names = [name for name in names if name == wanted]
    bodies: list[Mapping[str, Any]] = [
        {"name": name, "type": "collection", "options": {}, "info": {"readOnly": False}}
        for name in names
    ]
    batch_size = (command.get("cursor") or {}).get("batchSize")
    return cursors.first(f"{database}.$cmd.listCollections", bodies, batch_size=batch_size)


def list_databases(catalog: Catalog) -> Reply:
    """Answer `listDatabases`; the size given is the number of documents."""
    databases = [
        {"name": name, "sizeOnDisk": size, "empty": size == 0}
        for name, size in catalog.sizes().items()
    ]
    return {"databases": databases, "totalSize": sum(catalog.sizes().values())}


def forget_lost(journal: Journal, command: Command) -> Reply:
    """Answer `forgetLost`: delete the documents with these numbers that could not be read."""
    lost = [each for each in command["forgetLost"] if journal.damaged.get(each, {}).get("lost")]
    for serial in lost:
        journal.remove(serial)
    return {"n": len(lost)}
