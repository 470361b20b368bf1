"""A campaign from one file: verified as a whole first, then put in place as a whole.

In the embedded database the campaign is made in a folder beside the wanted one, which is renamed
when all is there. On a MongoDB server the campaign's own record is written last: without it, what
an interrupted restore left is recognised and replaced.
"""

import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, final

import bson
from bson.errors import BSONError
from gridfs import GridFS

from tace_al.core.atomic_write import require_free_space, write_bytes
from tace_al.core.errors import StoreError
from tace_al.store.archive import EXACT, FORMAT, FORMAT_VERSION, MANIFEST, ORDER
from tace_al.store.border import guarded
from tace_al.store.connection import Connection
from tace_al.store.embedded.launch import stop_server
from tace_al.store.records import CampaignRecord
from tace_al.store.store import CAMPAIGN_FILE, Store

BATCH_BYTES = 8_000_000
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What an archive says about itself, found to be true."""

    campaign: str
    written: str
    documents: dict[str, int]
    models: tuple[str, ...]


def verify_backup(path: Path) -> Manifest:
    """Read an archive from end to end and return what it holds.

    Raises
    ------
    StoreError
        It is no archive of a campaign, from a later version, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            content = json.loads(archive.read(MANIFEST))
            if content["format"] != FORMAT:
                raise KeyError(content["format"])
            if content["version"] > FORMAT_VERSION:
                raise StoreError(
                    f"{path} has archive version {content['version']}, this release reads up to "
                    f"{FORMAT_VERSION}; install a newer tace-al"
                )
            for name, digest in content["sha256"].items():
                if _digest(archive, name) != digest:
                    raise StoreError(f"{path} is damaged in {name}; use another backup")
            names = set(content["sha256"]) | {MANIFEST}
            if strange := set(archive.namelist()) - names:
                raise StoreError(
                    f"{path} holds {strange.pop()!r}, which its manifest does not name"
                )
    except FileNotFoundError as error:
        raise StoreError(f"{path} does not exist; give the file of a backup") from error
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path} is not a whole backup of a campaign ({type(error).__name__}); use a file that "
            "`tace-al db backup` wrote"
        ) from error
    return Manifest(
        campaign=str(content["campaign"]),
        written=str(content["written"]),
        documents=dict(content["documents"]),
        models=tuple(name for name in names if name.startswith("models/")),
    )


def restore_backup(path: Path, directory: Path, *, uri: str | None = None) -> Manifest:
    """Make a campaign's directory and records from an archive.

    Parameters
    ----------
    path
        The archive.
    directory
        The new campaign's directory; it must not exist, or be empty.
    uri
        MongoDB server, or None for the embedded database.

    Raises
    ------
    StoreError
        The archive is damaged, or something would be overwritten.
    """
    directory = directory.resolve()
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise StoreError(f"{directory} is not empty; name a new directory to restore into")
    manifest = verify_backup(path)
    directory.parent.mkdir(parents=True, exist_ok=True)
    require_free_space(directory.parent, 4 * path.stat().st_size)
    building = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    building.chmod(0o755)
    try:
        with zipfile.ZipFile(path) as archive:
            _fill(archive, manifest, building, uri)
        stop_server(building / "db")
        if directory.exists():
            directory.rmdir()
        building.rename(directory)
    except BaseException:
        stop_server(building / "db")
        shutil.rmtree(building, ignore_errors=True)
        raise
    return manifest


def _fill(archive: zipfile.ZipFile, manifest: Manifest, building: Path, uri: str | None) -> None:
    """Put records and files into a directory that has none."""
    with Store.open(building, uri=uri, campaign=manifest.campaign) as store:
        records = _Records(store.connection, manifest.campaign)
        records.clear_leftovers(store)
        for name in archive.namelist():
            if name.startswith("files/"):
                records.put_file(bson.ObjectId(name.removeprefix("files/")), archive.read(name))
        # The campaign's own record is the last of the order.
        for record in ORDER:
            collection = record._meta["collection"]
            for batch in _batches(archive, f"records/{collection}.bson", manifest.campaign):
                records.put(collection, batch)
            found = records.count(collection)
            if found != manifest.documents[collection]:
                raise StoreError(
                    f"{found} of {manifest.documents[collection]} documents arrived in "
                    f"{collection}; run the same command again"
                )
    for name in manifest.models:
        kept = PurePosixPath(name.removeprefix("models/"))
        if kept.is_absolute() or ".." in kept.parts:
            raise StoreError(f"the backup names a model outside its campaign: {kept}")
        write_bytes(building / kept, archive.read(name))
    assert (building / CAMPAIGN_FILE).exists()


@final
class _Records:
    """A database that takes a campaign's documents as they are."""

    def __init__(self, connection: Connection, campaign: str) -> None:
        self.connection = connection
        self.campaign = campaign

    @guarded
    def clear_leftovers(self, store: Store) -> None:
        """Remove what an interrupted restore left.

        Raises
        ------
        StoreError
            The campaign is there.
        """
        documents = self.connection.documents
        own = {"campaign": self.campaign}
        if documents[CampaignRecord._meta["collection"]].count_documents(own):
            raise StoreError(
                f"{self.connection.description} has campaign {self.campaign!r}; restore into "
                "another database with --db"
            )
        for record in ORDER:
            documents[record._meta["collection"]].delete_many(own)

    @guarded
    def put(self, collection: str, batch: list[dict[str, Any]]) -> None:
        """Store documents; a batch that a lost connection cut short is stored anew."""
        documents = self.connection.documents[collection]
        documents.delete_many({"_id": {"$in": [each["_id"] for each in batch]}, **self._own()})
        documents.insert_many(batch, ordered=False)

    @guarded
    def put_file(self, identity: Any, content: bytes) -> None:
        """Store a value beside its record, under the name the record has for it."""
        files = GridFS(self.connection.documents)
        if files.exists(identity):
            files.delete(identity)
        files.put(content, _id=identity)

    @guarded
    def count(self, collection: str) -> int:
        """Return how many documents the campaign has in a collection."""
        return int(self.connection.documents[collection].count_documents(self._own()))

    def _own(self) -> dict[str, str]:
        return {"campaign": self.campaign}


def _batches(archive: zipfile.ZipFile, name: str, campaign: str) -> Iterator[list[dict[str, Any]]]:
    """Give the documents of a member in portions that suit one command."""
    batch: list[dict[str, Any]] = []
    size = 0
    with archive.open(name) as member:
        try:
            while head := member.read(4):
                length = int.from_bytes(head, "little")
                content = head + member.read(length - 4)
                document = bson.decode(content, codec_options=EXACT)
                if document["campaign"] != campaign:
                    raise StoreError(f"{name} of the backup holds documents of other campaigns")
                batch.append(document)
                size += length
                if size > BATCH_BYTES:
                    yield batch
                    batch, size = [], 0
        except (BSONError, KeyError) as error:
            raise StoreError(f"{name} of the backup is damaged ({error})") from error
    if batch:
        yield batch


def _digest(archive: zipfile.ZipFile, name: str) -> str:
    """Return the SHA-256 of a member."""
    digest = hashlib.sha256()
    with archive.open(name) as member:
        while block := member.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
