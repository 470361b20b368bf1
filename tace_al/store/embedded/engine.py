"""From a command document to its reply: dispatch, commit, and errors as replies.

Nothing is acknowledged that would not outlive this process: the journal commits before a reply is
returned. If it cannot (a full disk), the memory is read anew from the file and the command has
failed. A write that asks for it (`j: true`) is on the disk itself by then.
"""

import errno
import logging
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

from tace_al.store.embedded import admin_commands, read_commands, write_commands
from tace_al.store.embedded.catalog import Catalog
from tace_al.store.embedded.command_errors import (
    BAD_VALUE,
    COMMAND_NOT_FOUND,
    INTERNAL_ERROR,
    OUT_OF_DISK_SPACE,
    CommandError,
)
from tace_al.store.embedded.cursors import Cursors
from tace_al.store.embedded.journal import Journal
from tace_al.store.embedded.semantics import SEMANTIC_ERRORS, Semantics, as_command_error

_log = logging.getLogger(__name__)
Command = Mapping[str, Any]
Reply = dict[str, Any]


@final
class Engine:
    """A database server without its socket.

    Parameters
    ----------
    path
        The SQLite file.
    max_pages
        Upper limit of its size in 4096-byte pages, None for the disk's own.
    """

    def __init__(self, path: Path, *, max_pages: int | None = None) -> None:
        journal = Journal(path)
        if max_pages is not None:
            journal.limit_size(max_pages)
        self._journal = journal
        catalog = self._catalog = Catalog(journal)
        cursors, semantics = Cursors(), Semantics()
        self._commands: dict[str, Callable[[Command], Reply]] = {
            "hello": admin_commands.hello,
            "ismaster": admin_commands.hello,
            "ping": lambda command: {},
            "buildinfo": lambda command: admin_commands.build_info(),
            "endsessions": lambda command: {},
            "killcursors": lambda command: cursors.kill(command["cursors"]),
            "getmore": lambda command: cursors.more(
                int(command["getMore"]), command.get("batchSize")
            ),
            "find": lambda command: read_commands.find(catalog, cursors, semantics, command),
            "count": lambda command: read_commands.count_documents(catalog, command),
            "distinct": lambda command: read_commands.distinct(catalog, semantics, command),
            "aggregate": lambda command: read_commands.aggregate(
                catalog, cursors, semantics, command
            ),
            "insert": lambda command: write_commands.insert(catalog, command),
            "update": lambda command: write_commands.update(catalog, semantics, command),
            "delete": lambda command: write_commands.delete(catalog, command),
            "findandmodify": lambda command: write_commands.find_and_modify(
                catalog, semantics, command
            ),
            "createindexes": lambda command: admin_commands.create_indexes(catalog, command),
            "listindexes": lambda command: admin_commands.list_indexes(catalog, cursors, command),
            "dropindexes": lambda command: admin_commands.drop_indexes(catalog, command),
            "create": lambda command: admin_commands.create(catalog, command),
            "drop": lambda command: admin_commands.drop(catalog, command),
            "dropdatabase": lambda command: admin_commands.drop_database(catalog, command),
            "listcollections": lambda command: admin_commands.list_collections(
                catalog, cursors, command
            ),
            "listdatabases": lambda command: admin_commands.list_databases(catalog),
            "damaged": lambda command: {"documents": list(journal.damaged.values())},
            "forgetlost": lambda command: admin_commands.forget_lost(journal, command),
        }

    def run(self, command: Command) -> Reply:
        """Return the reply to one command; whatever it changed outlives this process by then."""
        name = next(iter(command), "")
        try:
            reply = self._dispatch(name, command)
            self._journal.commit()
            if self._journal.unflushed and _wants_disk(command):
                self._journal.flush()
        except (sqlite3.Error, OSError) as error:
            return self._refused(error)
        except Exception:  # the last border: whatever went wrong, memory and disk must agree
            _log.exception("command %s broke the server's own rules", name)
            self._journal.rollback()
            self._catalog.reload()
            return CommandError(INTERNAL_ERROR, f"{name} failed in the server; see its log").reply()
        return reply

    @property
    def unflushed(self) -> bool:
        """Whether something was acknowledged that `flush` has not forced onto the disk yet."""
        return self._journal.unflushed

    def flush(self) -> None:
        """Force every acknowledged write onto the disk; safe in another thread than `run`."""
        self._journal.flush()

    def close(self) -> None:
        """Close the file."""
        self._journal.close()

    def _dispatch(self, name: str, command: Command) -> Reply:
        """Run a command; every failure but the disk's becomes a reply."""
        try:
            known = self._commands.get(name.lower())
            if known is None:
                raise CommandError(COMMAND_NOT_FOUND, f"no such command: '{name}'")
            return {**known(command), "ok": 1.0}
        except CommandError as error:
            return error.reply()
        except SEMANTIC_ERRORS as error:
            _log.info("command %s refused", name, exc_info=True)
            refused = as_command_error(error)
            if refused.code == BAD_VALUE:
                refused = CommandError(BAD_VALUE, f"{name}: {type(error).__name__}: {error}")
            return refused.reply()

    def _refused(self, error: sqlite3.Error | OSError) -> Reply:
        """Undo in memory what did not reach the disk, and say so."""
        _log.error("the journal refused a write: %s", error)
        self._journal.rollback()
        self._catalog.reload()
        if _is_disk_full(error):
            return CommandError(OUT_OF_DISK_SPACE, f"no room left on the disk: {error}").reply()
        return CommandError(INTERNAL_ERROR, f"the database file refused a write: {error}").reply()


def _wants_disk(command: Command) -> bool:
    """Tell whether a command's write concern asks for the disk, as MongoDB reads it."""
    concern = command.get("writeConcern")
    return isinstance(concern, Mapping) and bool(concern.get("j") or concern.get("w") == "majority")


def _is_disk_full(error: sqlite3.Error | OSError) -> bool:
    """Tell a full disk or quota from other failures of the file."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    name = getattr(error, "sqlite_errorname", "")
    return name in ("SQLITE_FULL", "SQLITE_IOERR_WRITE") or "full" in str(error)
