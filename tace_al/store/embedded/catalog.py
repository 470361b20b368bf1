"""All collections of a server, as its journal has them."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any, final

import bson

from tace_al.store.embedded.command_errors import BAD_VALUE, CommandError
from tace_al.store.embedded.journal import Journal
from tace_al.store.embedded.memory_collection import MemoryCollection, new_serials
from tace_al.store.embedded.wire import CODEC

_log = logging.getLogger(__name__)


@final
class Catalog:
    """Collections by namespace ("database.collection").

    Parameters
    ----------
    journal
        The file that the state is read from and written to.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._collections: dict[str, MemoryCollection] = {}
        self._serials: Iterator[int] = new_serials(0)
        self.reload()

    def reload(self) -> None:
        """Read the state anew from the journal, as after a restart or a refused commit."""
        self._collections = {}
        self._serials = new_serials(self.journal.last_serial())
        for namespace in self.journal.collections():
            self._add(namespace)
        # Indexes first: each document is then decoded once for all of them.
        for namespace, content in self.journal.indexes():
            try:
                definition = bson.decode(content, codec_options=CODEC)
                self._collections[namespace].create_index(definition, write=False)
            except Exception:  # damaged bytes fail in as many ways as there are
                # Whoever opens the database makes its indexes again.
                _log.exception("an index of %s is lost", namespace)
        self.journal.damaged.clear()
        for serial, namespace, content, sound in self.journal.documents():
            if sound and namespace not in self._collections:
                self._add(namespace)  # its own row is damaged
            try:
                self._collections[namespace].load(serial, content)
            except Exception as error:  # as above
                if sound:
                    raise
                _log.error("document %d of %s is lost: %s", serial, namespace, error)
                self._note_damage(serial, namespace, content, lost=True)
            else:
                if sound is False:
                    self._note_damage(serial, namespace, content, lost=False)

    def collection(self, database: str, name: Any) -> MemoryCollection:
        """Return a collection; one that does not exist yet is empty and not remembered."""
        namespace = _namespace(database, name)
        found = self._collections.get(namespace)
        return found or MemoryCollection(namespace, self.journal, self._serials)

    def existing_or_new(self, database: str, name: Any) -> MemoryCollection:
        """Return a collection, making it if need be."""
        namespace = _namespace(database, name)
        if namespace not in self._collections:
            self.journal.put_collection(namespace)
            self._add(namespace)
        return self._collections[namespace]

    def has(self, database: str, name: Any) -> bool:
        """Tell whether a collection exists."""
        return _namespace(database, name) in self._collections

    def drop(self, database: str, name: Any) -> None:
        """Delete a collection."""
        namespace = _namespace(database, name)
        self.journal.remove_collection(namespace)
        self._collections.pop(namespace, None)

    def names(self, database: str) -> list[str]:
        """Return the names of a database's collections."""
        prefix = database + "."
        return [each.removeprefix(prefix) for each in self._collections if each.startswith(prefix)]

    def sizes(self) -> Mapping[str, int]:
        """Return the number of documents by database."""
        sizes: dict[str, int] = {}
        for namespace, collection in self._collections.items():
            database = namespace.partition(".")[0]
            sizes[database] = sizes.get(database, 0) + len(collection.documents)
        return sizes

    def _note_damage(self, serial: int, namespace: str, content: bytes, *, lost: bool) -> None:
        """Remember a document whose bytes are not those that were written."""
        try:
            body = bson.decode(content, codec_options=CODEC)
        except Exception:  # as above
            body = {}
        self.journal.damaged[serial] = {
            "serial": serial,
            "collection": namespace.partition(".")[2],
            "key": str(body.get("key") or ""),
            "lost": lost,
        }

    def _add(self, namespace: str) -> None:
        self._collections[namespace] = MemoryCollection(namespace, self.journal, self._serials)


def _namespace(database: str, name: Any) -> str:
    """Return "database.collection" for allowed names."""
    if not isinstance(name, str) or not name or "\x00" in name or name.startswith("$"):
        raise CommandError(BAD_VALUE, f"{name!r} is not a collection name")
    if not database or any(letter in database for letter in '/\\. "$\x00'):
        raise CommandError(BAD_VALUE, f"{database!r} is not a database name")
    return f"{database}.{name}"
