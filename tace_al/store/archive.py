"""A campaign in one file: its records and the files that they name.

The archive is a zip:

    records/<collection>.bson   the documents, one after the other, as MongoDB's own dumps have them
    files/<_id>                 big values that lie beside their records
    models/<path>               checkpoints, named as in the records
    manifest.json               last: format, campaign, number of documents, SHA-256 of all members

It may be written while the campaign runs. Records that refer to others are read first: what they
name was stored before they were and is never deleted, so it is found by the later reads. States
may be a moment old, as after a kill, from which every campaign goes on.
"""

import datetime
import hashlib
import json
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, final

import bson
from bson.codec_options import CodecOptions, DatetimeConversion
from gridfs import GridFS

from tace_al.core.atomic_write import atomic_writer, require_free_space
from tace_al.core.errors import StoreError
from tace_al.store.border import guarded
from tace_al.store.connection import Connection
from tace_al.store.raw_records import RawRecords
from tace_al.store.records import (
    CampaignRecord,
    CandidateRecord,
    ChunkRecord,
    CounterRecord,
    EventRecord,
    FidelityRecord,
    GenerationRecord,
    LabelRecord,
    ModelRecord,
    StructureRecord,
    TrainingSetRecord,
)
from tace_al.store.store import Store

FORMAT, FORMAT_VERSION = "tace-al campaign", 1
MANIFEST = "manifest.json"
ORDER: tuple[type[Any], ...] = (
    EventRecord,
    GenerationRecord,
    ModelRecord,
    TrainingSetRecord,
    ChunkRecord,
    CandidateRecord,
    LabelRecord,
    StructureRecord,
    FidelityRecord,
    CounterRecord,
    CampaignRecord,
)
"""Referring records before those they refer to; the counters after what they have numbered."""
EXACT: CodecOptions[dict[str, Any]] = CodecOptions(
    tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Backup:
    """What an archive holds: documents by collection, files beside them, models, missing models."""

    documents: dict[str, int]
    files: int
    models: int
    missing_models: tuple[str, ...]


@final
class _Archive:
    """A zip that remembers the SHA-256 of what was put into it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.zip = zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, allowZip64=True)
        self.digests: dict[str, str] = {}

    def add(self, name: str, pieces: Iterable[bytes]) -> None:
        """Add a member with the given content."""
        digest = hashlib.sha256()
        with self.zip.open(name, "w", force_zip64=True) as member:
            for piece in pieces:
                digest.update(piece)
                member.write(piece)
        self.digests[name] = digest.hexdigest()


@final
class _Documents:
    """The documents of a campaign as bytes; remembers how many, and what they name."""

    def __init__(self, raw: RawRecords) -> None:
        self._raw = raw
        self.counts: dict[str, int] = {}
        self.files: set[Any] = set()
        self.models: dict[str, None] = {}

    def of(self, record: type[Any]) -> Iterator[bytes]:
        """Give the documents of one kind."""
        name = record._meta["collection"]
        beside = [field for field in record._fields if field.endswith("_file")]
        self.counts[name] = 0
        for document in self._raw.each(record):
            self.counts[name] += 1
            self.files.update(document[field] for field in beside if document.get(field))
            if record is ModelRecord:
                self.models[document["path"]] = None
            yield bson.encode(document, codec_options=EXACT)


def write_backup(store: Store, path: Path, *, models: bool = True) -> Backup:
    """Write a campaign to one file, whole or not at all.

    Parameters
    ----------
    store
        The campaign; it may be running.
    path
        The file; it must not exist.
    models
        Whether checkpoints go in.

    Raises
    ------
    StoreError
        The file exists.
    StorageFull
        The disk is full; there is no half archive.
    """
    if path.exists():
        raise StoreError(f"{path} exists; name a new file, or move the old one away")
    path.parent.mkdir(parents=True, exist_ok=True)
    require_free_space(path.parent)
    documents = _Documents(RawRecords(store.connection, store.campaign_id))
    with atomic_writer(path) as stream:
        archive = _Archive(stream)
        for record in ORDER:
            archive.add(f"records/{record._meta['collection']}.bson", documents.of(record))
        values = _BigValues(store.connection)
        for identity in sorted(documents.files):
            archive.add(f"files/{identity}", [values.read(identity)])
        wanted = list(documents.models) if models else []
        missing = _add_models(archive, store.directory, wanted)
        manifest = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "campaign": store.campaign_id,
            "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "tace_al": version("tace-al"),
            "documents": documents.counts,
            "sha256": archive.digests,
        }
        archive.add(MANIFEST, [json.dumps(manifest, indent=1).encode()])
        archive.zip.close()
    return Backup(
        documents=documents.counts,
        files=len(documents.files),
        models=len(wanted) - len(missing),
        missing_models=tuple(missing),
    )


def _add_models(archive: _Archive, directory: Path, paths: list[str]) -> list[str]:
    """Add the checkpoints that are there; return those that are not."""
    missing = []
    for kept in paths:
        path = directory / kept
        if not path.is_file() or not path.resolve().is_relative_to(directory.resolve()):
            missing.append(kept)
            continue
        archive.add(f"models/{kept}", [path.read_bytes()])
    return missing


@final
class _BigValues:
    """Values beside their records."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    @guarded
    def read(self, identity: Any) -> bytes:
        """Return a value's bytes."""
        return bytes(GridFS(self.connection.documents).get(identity).read())
