"""Between the database's errors and ours.

Every verb of the Store is wrapped by `guarded`: a driver error becomes one of `core.errors`, and a
verb that the death of the embedded server cut short runs once more on its successor. All verbs may
run twice: keys are unique, moves name the state they start from. One that was cut short after its
commit may answer "already so" (False) though it was the one that did it.
"""

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from bson.errors import InvalidDocument
from mongoengine.errors import MongoEngineException, ValidationError
from pymongo.errors import BulkWriteError, ConnectionFailure, InvalidOperation, PyMongoError

from tace_al.core.errors import DatabaseUnreachable, StorageFull, StoreError
from tace_al.store.connection import Connection

OUT_OF_DISK_SPACE = 14031
_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


_UNSTORABLE = (ValidationError, InvalidDocument, OverflowError)
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
    """Wrap a verb so that it raises the platform's errors and survives a dead embedded server."""

    @wraps(verb)
    def with_border(
        owner: _Owner, /, *args: _Parameters.args, **kwargs: _Parameters.kwargs
    ) -> _Result:
        documents = owner.connection.documents
        try:
            try:
                return verb(owner, *args, **kwargs)
            except ConnectionFailure:
                if not owner.connection.revive(documents):
                    raise
            except InvalidOperation:
                # Another thread revived the server and closed the old connection under us.
                if owner.connection.documents is documents:
                    raise
            return verb(owner, *args, **kwargs)
        except _DATABASE_ERRORS as error:
            raise _translated(error, verb.__name__, owner.connection) from error

    return with_border


def _translated(error: Exception, verb: str, connection: Connection) -> Exception:
    """Return the platform's error for a driver's."""
    if isinstance(error, ConnectionFailure):
        return DatabaseUnreachable(
            f"{connection.description} stopped answering during {verb}; make sure that it runs, "
            "then run the same command again, nothing was lost"
        )
    if any(_code(each) == OUT_OF_DISK_SPACE for each in _chain(error)):
        return StorageFull(
            f"no room left on the disk of {connection.description}; free some space and run the "
            "same command again, nothing was lost"
        )
    if isinstance(error, _UNSTORABLE):
        return StoreError(f"{verb} was given a value that cannot be stored: {error}")
    return StoreError(f"{connection.description} refused {verb}: {error}")


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
