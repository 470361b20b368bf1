"""Stores to test on: the embedded server, and the one at TACE_AL_MONGO_URI when that is set.

Tests on a real server work in a database of their own, named by chance and dropped afterwards.
"""

import contextlib
import json
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import numpy as np
import pymongo
import pytest
import safetensors.numpy
from ase import Atoms
from ase.build import molecule

from tace_al.core.labels import Fidelity, Label
from tace_al.dispatch.label_file import read_label, write_label
from tace_al.store.connection import URI_VARIABLE
from tace_al.store.embedded import wire
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


@pytest.fixture(scope="session")
def real_uri() -> Iterator[str | None]:
    """Address of a new database on the real server, None without one."""
    if not REAL_URI:
        yield None
        return
    host, _, options = REAL_URI.partition("?")
    scheme, _, place = host.partition("://")
    server = place.partition("/")[0]
    name = f"tace_al_test_{uuid.uuid4().hex[:12]}"
    former = place.partition("/")[2]
    # Accounts live in the database that the address named.
    source = f"authSource={former or 'admin'}" if "@" in server else ""
    given = "authsource" in options.lower()
    options = "&".join(part for part in (options, "" if given else source) if part)
    uri = f"{scheme}://{server}/{name}" + (f"?{options}" if options else "")
    yield uri
    with pymongo.MongoClient(uri) as client:
        client.drop_database(name)


@pytest.fixture(params=["embedded", "server"] if REAL_URI else ["embedded"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, shared_uri: str, real_uri: str | None
) -> Iterator[Store]:
    """An empty campaign in each kind of database."""
    uri = real_uri if request.param == "server" else shared_uri
    with Store.open(tmp_path, uri=uri, campaign=f"test-{uuid.uuid4().hex[:12]}") as opened:
        opened.start_campaign("test", {"budget": 3}, seed=7, code_version="0.1.0")
        yield opened


class Proxy:
    """A TCP port in front of a server's unix socket, that can be cut and can lose replies."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.lose: set[str] = set()
        self._open: set[socket.socket] = set()
        self._listener = self._listen(0)
        self.port = self._listener.getsockname()[1]

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/proxied?directConnection=true"

    def cut(self) -> None:
        """Be gone, as a server that was stopped."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()

    def restore(self) -> None:
        """Be back on the same port."""
        self._listener = self._listen(self.port)

    def hang_up(self) -> None:
        """Break every connection."""
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port), reuse_port=True)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = listener.accept()[0]
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._open.add(client)
        with contextlib.suppress(OSError, EOFError), client, server:
            server.connect(str(self.target))
            while True:
                header, body = received(client)
                command = next(iter(wire.read_request(header, body).command))
                server.sendall(header + body)
                answer = received(server)
                if command in self.lose:
                    self.lose.discard(command)
                    self.hang_up()
                client.sendall(b"".join(answer))
        self._open.discard(client)


def received(source: socket.socket) -> tuple[bytes, bytes]:
    """Read one message of the wire protocol."""
    parts = []
    for size in (wire.HEADER.size, None):
        wanted = size if size is not None else wire.HEADER.unpack(parts[0])[0] - wire.HEADER.size
        content = b""
        while len(content) < wanted:
            piece = source.recv(wanted - len(content))
            if not piece:
                raise EOFError
            content += piece
        parts.append(content)
    return parts[0], parts[1]


@pytest.fixture
def proxy(db_folder: Path) -> Iterator[Proxy]:
    """A proxy in front of an embedded server of its own."""
    opened = Proxy(ensure_server(db_folder, idle_seconds=30))
    yield opened
    with contextlib.suppress(OSError):
        opened.cut()


def label_in_file(path: Path) -> Label | None:
    """Return the label in a worker's file, None for a failure."""
    found = read_label(path)
    return found if isinstance(found, Label) else None


def checkpoint(directory: Path, name: str, **metadata: Any) -> str:
    """Write a file with the header of a checkpoint; return its path from the campaign's folder."""
    path = directory / "models" / f"{name}.tace"
    path.parent.mkdir(exist_ok=True)
    header = {"tace": json.dumps({"format": "tace", "version": 2, "metadata": metadata})}
    safetensors.numpy.save_file({"w": np.arange(3.0)}, path, metadata=header)
    return str(path.relative_to(directory))


def fill_with_files(store: Store) -> None:
    """Give a campaign four labels with their files, a big structure, two models, candidates."""
    fidelity = Fidelity(name="gfn2", code="tblite 0.8.0", settings={"accuracy": 1.0})
    store.add_fidelity(fidelity)
    keys = []
    for number in range(5):
        atoms = molecule("H2O")
        atoms.rattle(0.05, seed=number)
        key = store.add_structure(atoms, channel="c", origin={"kind": "md", "step": number})
        state = "labelled" if number < 4 else "queued"
        store.add_candidate(key, kind="seed", channel="c", generation=0, state=state)
        if number == 4:
            continue
        label = Label(
            structure_key=key,
            fidelity_key=fidelity.key,
            energy=-number / 3,
            forces=np.random.default_rng(number).normal(size=(3, 3)),
        )
        store.add_label(label, fidelity_name="gfn2", role="train", generation=0)
        write_label(store.directory / "labels" / f"{label.key}.npz", label)
        keys.append(label.key)
    big = np.random.default_rng(0).normal(size=(60_000, 3))
    store.add_structure(Atoms(numbers=np.ones(60_000, int), positions=big), channel="c", origin={})
    training_set = store.add_training_set(keys)
    for member in range(2):
        fields = {"generation": 1, "member": member, "seed": member, "training_set": training_set}
        path = checkpoint(store.directory, f"m{member}", **fields)
        key = f"{member}" * 32
        store.add_model(key, path=path, code_version="0.1.0", **fields)
    store.add_generation(1, models=["0" * 32, "1" * 32], num_labels=4)
    store.log("note", "filled")


@pytest.fixture
def read_file() -> Callable[[Path], Label | None]:
    """What reads a label's file."""
    return label_in_file


@pytest.fixture
def sound(store: Store) -> Store:
    """A small campaign with everything in order."""
    fill_with_files(store)
    return store


@pytest.fixture
def sound_file(db_folder: Path, no_server_uri: None) -> Iterator[Store]:
    """The same in an embedded database of its own."""
    with Store.open(db_folder.parent) as store:
        fill_with_files(store)
        yield store
