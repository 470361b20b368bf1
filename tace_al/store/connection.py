"""The way to the database: a MongoDB server by its URI, or the campaign's own embedded one.

The URI comes from the caller (`--db`) or from TACE_AL_MONGO_URI; without either, the embedded
server of `<campaign>/db` is found or started. Passwords never reach a message or a log.
"""

import logging
import os
import re
import threading
from pathlib import Path
from typing import Any, final
from urllib.parse import quote_plus

from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import ConnectionFailure, PyMongoError

from tace_al.core.errors import DatabaseUnreachable
from tace_al.store.embedded.launch import ensure_server

URI_VARIABLE = "TACE_AL_MONGO_URI"
DEFAULT_DATABASE = "tace_al"
_SELECTION_TIMEOUT_MS = 5000
_log = logging.getLogger(__name__)

Documents = Database[dict[str, Any]]


@final
class Connection:
    """An open database, revived when it was the embedded one that died.

    Parameters
    ----------
    uri
        URI of a MongoDB server, or None for the embedded one.
    folder
        Folder of the embedded server.

    Raises
    ------
    DatabaseUnreachable
        Nothing answers.
    """

    def __init__(self, uri: str | None, folder: Path) -> None:
        self.uri = uri
        self._folder = folder
        self._client: MongoClient[dict[str, Any]] | None = None
        self._reviving = threading.Lock()
        self.documents = self._open()

    @property
    def description(self) -> str:
        """Where the database is, without its password."""
        return masked(self.uri) if self.uri else f"the embedded database in {self._folder}"

    def revive(self, dead: Documents) -> bool:
        """Start the embedded server again; False for a MongoDB server, which is not ours.

        `dead` is the database that failed; of several threads that met it one does the work.
        """
        if self.uri:
            return False
        with self._reviving:
            if self.documents is dead:
                _log.warning("%s does not answer; starting it again", self.description)
                old = self._client
                self.documents = self._open()
                if old is not None:
                    old.close()
        return True

    def close(self) -> None:
        """Leave; an embedded server without clients ends by itself."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _open(self) -> Documents:
        """Connect and make sure that somebody answers."""
        if self.uri:
            return self._connect(self.uri)
        for last_try in (False, True):
            path = ensure_server(self._folder)
            try:
                # A dead embedded server is found out at once and started again by the caller.
                return self._connect(
                    f"mongodb://{quote_plus(str(path))}", directConnection=True, retryReads=False
                )
            except DatabaseUnreachable:
                if last_try:
                    raise
        raise AssertionError("unreachable")

    def _connect(self, uri: str, **options: Any) -> Documents:
        """Return the database behind a URI after a ping."""
        client: MongoClient[dict[str, Any]] | None = None
        try:
            client = MongoClient(
                uri,
                serverSelectionTimeoutMS=_SELECTION_TIMEOUT_MS,
                uuidRepresentation="standard",
                tz_aware=True,
                appname="tace-al",
                **options,
            )
            client.admin.command("ping")
            documents = client.get_default_database(DEFAULT_DATABASE)
            documents.command("ping")
        except (PyMongoError, ValueError) as error:
            if client is not None:
                client.close()
            raise DatabaseUnreachable(
                f"no database answers at {masked(uri)} ({_reason(error, uri)}); check the address "
                f"and that the server runs, or leave out --db and {URI_VARIABLE} to use the "
                "embedded database"
            ) from None  # the original may quote the address with its password
        self._client = client
        return documents


def connect(directory: Path, uri: str | None = None) -> Connection:
    """Open the database of a campaign directory.

    Parameters
    ----------
    directory
        The campaign's directory; the embedded database lives in its `db` folder.
    uri
        URI of a MongoDB server; the environment variable TACE_AL_MONGO_URI when None.
    """
    return Connection(uri or os.environ.get(URI_VARIABLE) or None, directory / "db")


def masked(uri: str) -> str:
    """Return a URI without its secrets.

    >>> masked("mongodb://anna:se:cr@et@host/db?tlsCertificateKeyFilePassword=x")
    'mongodb://anna:***@host/db?tlsCertificateKeyFilePassword=***'
    """
    uri = re.sub(r"(?<=://)([^:@/]*):.*@", r"\1:***@", uri)
    return re.sub(r"(?i)((?:password|token)[^=&:]*[=:])[^&,]*", r"\1***", uri)


def _reason(error: Exception, uri: str) -> str:
    """Say in few words why a connection failed."""
    if isinstance(error, ConnectionFailure):
        text = str(error).partition(", Timeout:")[0]
    else:
        text = str(error)
    secret = re.search(r"://[^:@/]*:(.*)@", uri)
    if secret:
        text = text.replace(secret.group(1), "***")
    return f"{type(error).__name__}: {text}"[:300]
