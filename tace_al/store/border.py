"""Between the database's errors and ours.

Every verb of the Store is wrapped by `guarded`: a driver error becomes one of `core.errors`, and a
verb that a lost connection cut short is tried again once the database is back. An embedded server
that died is started again at once; a MongoDB server is waited for, at growing intervals, as long as
the connection's patience lasts. Verbs may be tried twice: `attempts` makes sure that what was
written just before the connection broke is neither written again nor taken for another's.
"""

import logging
import time
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from bson.errors import InvalidDocument
from mongoengine.errors import MongoEngineException, ValidationError
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    CursorNotFound,
    InvalidOperation,
    PyMongoError,
)

from tace_al.core.errors import DatabaseUnreachable, StorageFull, StoreError
from tace_al.store import attempts
from tace_al.store.connection import Connection, Documents

OUT_OF_DISK_SPACE = 14031
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
_MOST_REVIVALS = 3
_log = logging.getLogger(__name__)
_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


_UNSTORABLE = (ValidationError, InvalidDocument, OverflowError)
_LOST = (ConnectionFailure, CursorNotFound)
_DATABASE_ERRORS = (PyMongoError, MongoEngineException, *_UNSTORABLE)


class Connected(Protocol):
    """Anything with verbs on a database."""

    @property
    def connection(self) -> Connection:
        """The database."""


_Owner = TypeVar("_Owner", bound=Connected)


def guarded(
    verb: Callable[Concatenate[_Owner, _Parameters], _Result],
) -> Callable[Concatenate[_Owner, _Parameters], _Result]:
    """Wrap a verb so that it raises the platform's errors and outlives a lost connection."""

    @wraps(verb)
    def with_border(
        owner: _Owner, /, *args: _Parameters.args, **kwargs: _Parameters.kwargs
    ) -> _Result:
        connection = owner.connection
        with attempts.call() as call:
            lost_at: float | None = None
            while True:
                documents = connection.documents
                try:
                    return verb(owner, *args, **kwargs)
                except InvalidOperation as error:
                    # Another thread revived the server and closed the old connection under us.
                    if connection.documents is documents:
                        raise _translated(error, verb.__name__, connection) from error
                except _DATABASE_ERRORS as error:
                    if not any(isinstance(each, _LOST) for each in _chain(error)):
                        raise _translated(error, verb.__name__, connection) from error
                    lost_at = time.monotonic() if lost_at is None else lost_at
                    if not _found_again(connection, documents, lost_at, call.tries):
                        raise _gone(connection, verb.__name__, lost_at) from error
                call.again()

    return with_border


def _found_again(connection: Connection, dead: Documents, lost_at: float, tries: int) -> bool:
    """Wait until the database answers; False when patience has run out."""
    if connection.revive(dead):
        return tries <= _MOST_REVIVALS
    if connection.given_up:
        # One verb has waited in vain; those that tidy up after it need not do so again.
        connection.given_up = not connection.answers()
        return not connection.given_up
    pause = FIRST_PAUSE_S
    if tries == 1:
        _log.warning(
            "%s does not answer; waiting up to %.0f s for its return",
            connection.description,
            connection.patience_s,
        )
    while (left := lost_at + connection.patience_s - time.monotonic()) > 0:
        time.sleep(min(pause, left))
        pause = min(2 * pause, LONGEST_PAUSE_S)
        if connection.answers():
            _log.warning(
                "%s answers again after %.1f s",
                connection.description,
                time.monotonic() - lost_at,
            )
            return True
    connection.given_up = True
    return False


def _gone(connection: Connection, verb: str, lost_at: float) -> DatabaseUnreachable:
    """Return the error of a database that did not come back."""
    waited = time.monotonic() - lost_at
    return DatabaseUnreachable(
        f"{connection.description} stopped answering during {verb} and did not return within "
        f"{waited:.0f} s; make sure that it runs, then run the same command again, nothing was lost"
    )


def _translated(error: Exception, verb: str, connection: Connection) -> Exception:
    """Return the platform's error for a driver's."""
    if any(_code(each) == OUT_OF_DISK_SPACE for each in _chain(error)):
        return StorageFull(
            f"no room left on the disk of {connection.description}; free some space and run the "
            "same command again, nothing was lost"
        )
    if isinstance(error, _UNSTORABLE):
        return StoreError(f"{verb} was given a value that cannot be stored: {error}")
    return StoreError(f"{connection.description} refused {verb}: {connection.explained(error)}")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Give an error and what led to it; mongoengine hides the driver's error behind its own."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _code(error: BaseException) -> int | None:
    """Return the server's code of an error."""
    if isinstance(error, BulkWriteError):
        codes = [entry.get("code") for entry in error.details.get("writeErrors", ())]
        return codes[0] if codes else None
    code = getattr(error, "code", None)
    return code if isinstance(code, int) else None
