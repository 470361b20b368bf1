"""The way to the database: a MongoDB server by its URI, or the campaign's own embedded one.

The URI comes from the caller (`--db`) or from TACE_AL_MONGO_URI; without either, the embedded
server of `<campaign>/db` is found or started. `@FILE` in place of a URI names a file that holds it
and that only its owner may read. Passwords never reach a message or a log.
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
PATIENCE_S = 300.0
"""How long a verb waits for a MongoDB server that stopped answering: a restart or fail-over."""
_SELECTION_TIMEOUT_MS = 5000
_SOCKET_TIMEOUT_MS = 120_000
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
    patience_s
        How long a verb waits for a MongoDB server that stopped answering, in seconds.

    Raises
    ------
    DatabaseUnreachable
        Nothing answers.
    """

    def __init__(self, uri: str | None, folder: Path, *, patience_s: float = PATIENCE_S) -> None:
        self.uri = uri
        self.patience_s = patience_s
        self.given_up = False
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

    def answers(self) -> bool:
        """Tell whether the database answers a ping now; a refusal is an answer."""
        try:
            self.documents.command("ping")
        except ConnectionFailure:
            return False
        except PyMongoError as error:
            _log.debug("%s refuses a ping: %s", self.description, self.explained(error))
        return True

    def explained(self, error: Exception) -> str:
        """Return a driver's error as text without this connection's password."""
        return _without_secret(str(error), self.uri or "")

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
        if "sockettimeoutms" not in uri.lower():
            # A server that hangs, or a network that swallows packets, must not stop us for ever.
            options["socketTimeoutMS"] = _SOCKET_TIMEOUT_MS
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


def connect(
    directory: Path, uri: str | None = None, *, patience_s: float = PATIENCE_S
) -> Connection:
    """Open the database of a campaign directory.

    Parameters
    ----------
    directory
        The campaign's directory; the embedded database lives in its `db` folder.
    uri
        URI of a MongoDB server, or `@FILE` with one; the environment variable TACE_AL_MONGO_URI
        when None.
    patience_s
        See `Connection`.
    """
    uri = uri or os.environ.get(URI_VARIABLE) or None
    if uri is not None and uri.startswith("@"):
        uri = _uri_in_file(Path(uri[1:]))
    return Connection(uri, directory / "db", patience_s=patience_s)


def _uri_in_file(path: Path) -> str:
    """Return the URI in a file that nobody else can read."""
    try:
        mode, text = path.stat().st_mode, path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DatabaseUnreachable(
            f"the database's address cannot be read from {path} ({type(error).__name__}); write "
            "one mongodb:// address into it"
        ) from error
    if mode & 0o077:
        raise DatabaseUnreachable(
            f"{path} holds a database's address and can be read by others; run chmod 600 {path}"
        )
    return text


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
    return f"{type(error).__name__}: {_without_secret(text, uri)}"[:300]


def _without_secret(text: str, uri: str) -> str:
    """Return text in which the URI's password, should it be there, is masked."""
    secret = re.search(r"://[^:@/]*:(.*)@", uri)
    return text.replace(secret.group(1), "***") if secret and secret.group(1) else text
