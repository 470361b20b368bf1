"""Every document with the system before its write is acknowledged: BSON rows in one SQLite file.

A commit appends to the write-ahead log and returns: whatever process is killed afterwards, the
write is there. `flush` forces the log onto the disk; the server calls it a twentieth of a second
after a write, and at once for a write concern with `j: true`, as MongoDB does. A power cut may
so take the last moment, never part of a command, nor one command and not those before it: the
log's checksums are chained. The file has one user, this server, and is locked by it.

SQLite notices little of what happens to its file. Each document therefore has a CRC-32 of its own;
one that does not fit is reported (`damaged`), and left out where it cannot be read at all.

Source: https://www.sqlite.org/wal.html
"""

import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, final
from zlib import crc32

import bson

from tace_al.store.embedded.wire import CODEC

# Every 40 MB of log, rather than every 4, the log is folded into the file.
_PRAGMAS = (
    "locking_mode=EXCLUSIVE",
    "journal_mode=WAL",
    "synchronous=NORMAL",
    "wal_autocheckpoint=10000",
)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
    serial INTEGER PRIMARY KEY, namespace TEXT NOT NULL, body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS indexes (
    namespace TEXT NOT NULL, name TEXT NOT NULL, spec BLOB NOT NULL,
    PRIMARY KEY (namespace, name)
);
CREATE TABLE IF NOT EXISTS collections (namespace TEXT PRIMARY KEY);
"""


@final
class Journal:
    """The write-through file of a server.

    Parameters
    ----------
    path
        SQLite file, made when missing.
    """

    def __init__(self, path: Path) -> None:
        self.unflushed = False
        self._log_path = path.with_name(f"{path.name}-wal")
        self._connection = sqlite3.connect(path, isolation_level=None)
        for pragma in _PRAGMAS:
            self._connection.execute(f"PRAGMA {pragma}").fetchall()
        self._connection.executescript(_SCHEMA)
        columns = self._connection.execute("PRAGMA table_info(documents)").fetchall()
        if "checksum" not in [name for _, name, *_ in columns]:
            # Files of earlier versions; their documents have none until they change.
            self._connection.execute("ALTER TABLE documents ADD COLUMN checksum INTEGER")
        self.damaged: dict[int, dict[str, Any]] = {}
        """By number: collection, key, and whether it is lost, of documents that are not sound."""

    def limit_size(self, max_pages: int) -> None:
        """Refuse to grow beyond a number of 4096-byte pages, as on a full disk."""
        self._connection.execute(f"PRAGMA max_page_count={int(max_pages)}").fetchall()

    def put(self, serial: int, namespace: str, content: bytes) -> None:
        """Write a new or changed document as BSON (durable after `commit`)."""
        self._write(
            "INSERT INTO documents (serial, namespace, body, checksum) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (serial) DO UPDATE SET body = excluded.body, checksum = excluded.checksum",
            (serial, namespace, content, _checksum(serial, namespace, content)),
        )
        self.damaged.pop(serial, None)

    def remove(self, serial: int) -> None:
        """Delete a document."""
        self._write("DELETE FROM documents WHERE serial = ?", (serial,))
        self.damaged.pop(serial, None)

    def put_index(self, namespace: str, spec: Mapping[str, Any]) -> None:
        """Write the definition of an index."""
        content = bson.encode(spec, codec_options=CODEC)
        self._write(
            "INSERT OR REPLACE INTO indexes VALUES (?, ?, ?)", (namespace, spec["name"], content)
        )

    def remove_index(self, namespace: str, name: str) -> None:
        """Delete the definition of an index."""
        self._write("DELETE FROM indexes WHERE namespace = ? AND name = ?", (namespace, name))

    def put_collection(self, namespace: str) -> None:
        """Note that a collection exists, be it empty."""
        self._write("INSERT OR IGNORE INTO collections VALUES (?)", (namespace,))

    def remove_collection(self, namespace: str) -> None:
        """Delete a collection with its documents and indexes."""
        for table in ("documents", "indexes", "collections"):
            self._write(f"DELETE FROM {table} WHERE namespace = ?", (namespace,))

    def commit(self) -> None:
        """Hand everything written so far to the system, whole or not at all."""
        if self._connection.in_transaction:
            self._connection.execute("COMMIT")
            self.unflushed = True

    def flush(self) -> None:
        """Force what is committed onto the disk; safe in another thread than the commits.

        Raises
        ------
        OSError
            The disk refuses what the system had accepted.
        """
        self.unflushed = False
        try:
            descriptor = os.open(self._log_path, os.O_RDONLY)
        except FileNotFoundError:
            return  # all is in the file itself, which SQLite has forced
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def rollback(self) -> None:
        """Forget everything written since the last commit."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def documents(self) -> Iterator[tuple[int, str, bytes, bool | None]]:
        """Give (serial, namespace, BSON, soundness) of every document in order of insertion.

        Soundness is None where there is no checksum to tell.
        """
        rows = self._connection.execute(
            "SELECT serial, namespace, body, checksum FROM documents ORDER BY serial"
        )
        for serial, namespace, content, checksum in rows:
            sound = checksum == _checksum(serial, namespace, content)
            yield serial, namespace, content, None if checksum is None else sound

    def last_serial(self) -> int:
        """Return the number of the newest document, 0 without any."""
        (last,) = self._connection.execute("SELECT MAX(serial) FROM documents").fetchone()
        return int(last or 0)

    def indexes(self) -> Iterator[tuple[str, bytes]]:
        """Give (namespace, specification as BSON) of every index in order of creation."""
        yield from self._connection.execute("SELECT namespace, spec FROM indexes ORDER BY rowid")

    def collections(self) -> list[str]:
        """Return the namespaces of all collections."""
        rows = self._connection.execute("SELECT namespace FROM collections ORDER BY rowid")
        return [namespace for (namespace,) in rows]

    def close(self) -> None:
        """Fold the log into the file and let it go."""
        self.rollback()
        self._connection.close()

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        """Run a changing statement inside the open transaction, opening one if need be."""
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute(statement, values)


def _checksum(serial: int, namespace: str, content: bytes) -> int:
    """Return the CRC-32 of a document and of where it belongs."""
    return crc32(content, crc32(f"{serial} {namespace}".encode()))
