"""Stores to test on: the embedded server, and the one at TACE_AL_MONGO_URI when that is set."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote_plus

import pymongo
import pytest

from tace_al.store.connection import URI_VARIABLE
from tace_al.store.embedded.launch import ensure_server, stop_server
from tace_al.store.store import Store

REAL_URI = os.environ.get(URI_VARIABLE)


@pytest.fixture
def no_server_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make sure that Stores are embedded."""
    monkeypatch.delenv(URI_VARIABLE, raising=False)


@pytest.fixture
def db_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose server, if the test starts one, is stopped afterwards."""
    folder = tmp_path / "db"
    yield folder
    stop_server(folder)


@pytest.fixture(scope="session")
def shared_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of one embedded server for many tests."""
    folder = tmp_path_factory.mktemp("shared") / "db"
    uri = f"mongodb://{quote_plus(str(ensure_server(folder)))}/?directConnection=true"
    with pymongo.MongoClient(uri) as client:
        client.admin.command("ping")  # a client that stays, so that the server does
        yield uri
    stop_server(folder)


@pytest.fixture(params=["embedded", "server"] if REAL_URI else ["embedded"])
def store(request: pytest.FixtureRequest, tmp_path: Path, shared_uri: str) -> Iterator[Store]:
    """An empty campaign in each kind of database."""
    uri: str | None = shared_uri
    if request.param == "server":
        uri = REAL_URI
    with Store.open(tmp_path, uri=uri, campaign=f"test-{uuid.uuid4().hex[:12]}") as opened:
        opened.start_campaign("test", {"budget": 3}, seed=7, code_version="0.1.0")
        yield opened
