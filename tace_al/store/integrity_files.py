"""Do a campaign's files still say what its database says?

Labels exist twice, as a worker's file and as a record; each can mend the other. A model is its
file, and the record has its digest. Files beside records (GridFS) that no record names are left
over from writes that were cut short.
"""

import fcntl
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, final

import numpy as np
from gridfs import GridFS

from tace_al.core.errors import DataError
from tace_al.core.labels import Label
from tace_al.store.blobs import unpack_arrays
from tace_al.store.border import guarded
from tace_al.store.connection import Connection
from tace_al.store.integrity import Finding, label_damage
from tace_al.store.model_files import file_digest, read_metadata
from tace_al.store.models import unpacked_keys
from tace_al.store.raw_records import Contents, RawRecords
from tace_al.store.records import RECORDS, LabelRecord, ModelRecord, TrainingSetRecord
from tace_al.store.store import Store
from tace_al.store.table import now

LABELS_FOLDER = "labels"
ORPHAN_AGE = timedelta(hours=1)
LabelReader = Callable[[Path], Label | None]
"""Returns the label in a file, None for a failure; raises `DataError` for anything else."""
_HEADER_FIELDS = ("training_set", "seed", "generation", "member")


def is_running(directory: Path) -> bool:
    """Tell whether a process on this machine runs the campaign in a directory."""
    try:
        with (directory / "run.lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def label_file(directory: Path, key: str) -> Path:
    """Return where the worker wrote the label with a key."""
    return directory / LABELS_FOLDER / f"{key}.npz"


def check_files(store: Store, *, running: bool, read_label: LabelReader) -> list[Finding]:
    """Return what is wrong with the files of a campaign.

    Parameters
    ----------
    store
        The campaign's records.
    running
        Whether a process runs the campaign, so that files may be ahead of records.
    read_label
        Reads a label file.
    """
    raw = RawRecords(store.connection, store.campaign_id)
    contents = raw.contents()
    findings = [
        *_label_files(raw, store.directory, read_label),
        *_model_files(raw, store.directory),
    ]
    if not running:
        findings += _unread_labels(raw, contents, store.directory, read_label)
        findings += _orphan_files(store.connection)
    return findings


def with_files(
    findings: Iterable[Finding], directory: Path, read_label: LabelReader
) -> list[Finding]:
    """Return findings, those of damaged labels that a good file can mend marked so."""
    mended = []
    for finding in findings:
        if finding.problem == "label" and _good_file(directory, finding.key, read_label):
            finding = replace(finding, repair="read it from its file")
        mended.append(finding)
    return mended


def _good_file(directory: Path, key: str, read_label: LabelReader) -> Label | None:
    """Return the label in the file of a key, None unless it is whole and that label."""
    try:
        label = read_label(label_file(directory, key))
    except DataError:
        return None
    if label is None or label.key != key or not np.isfinite(label.energy):
        return None
    return label if np.isfinite(label.forces).all() else None


def _label_files(raw: RawRecords, directory: Path, read_label: LabelReader) -> Iterator[Finding]:
    """Compare every label's record with its file."""
    for record in raw.each(LabelRecord):
        if record["state"] != "labelled" or label_damage(raw, record) is not None:
            continue
        path = label_file(directory, record["key"])
        repair = "write it from the record"
        if not path.exists():
            text = f"{LABELS_FOLDER}/{path.name} is missing"
        else:
            label = _good_file(directory, record["key"], read_label)
            forces = unpack_arrays(raw.blob(record, "arrays"))["forces"]
            if label is None:
                text = f"{LABELS_FOLDER}/{path.name} is damaged"
            elif label.energy == record["energy"] and np.array_equal(label.forces, forces):
                continue
            else:
                text = (
                    f"{LABELS_FOLDER}/{path.name} says {label.energy:.6f} eV and the record "
                    f"{record['energy']:.6f} eV, or their forces differ"
                )
                repair = ""
        yield Finding(problem="label file", key=record["key"], text=text, repair=repair)


def _unread_labels(
    raw: RawRecords, contents: Contents, directory: Path, read_label: LabelReader
) -> Iterator[Finding]:
    """Look for labels on disk that no record has."""
    trained: set[str] = set()
    for record in raw.each(TrainingSetRecord):
        trained.update(unpacked_keys(raw.blob(record, "label_keys")))
    for path in sorted((directory / LABELS_FOLDER).glob("*.npz")):
        key = path.stem
        label = None if key in contents.labelled else _good_file(directory, key, read_label)
        if label is None:
            continue
        known = label.structure_key in contents.structures
        known = known and label.fidelity_key in contents.fidelities
        if known and key in trained:
            text, repair = "a model was trained on it and its record is lost", "record it"
        else:
            text, repair = "computed and not recorded; the next `tace-al run` reads it", ""
        yield Finding(problem="unread label", key=key, text=text, repair=repair)


def _model_files(raw: RawRecords, directory: Path) -> Iterator[Finding]:
    """Recompute the digest of every model's file."""
    for record in raw.each(ModelRecord):
        text = model_damage(directory / record["path"], record)
        if text is not None:
            yield Finding(problem="model file", key=record["key"], text=text)


def model_damage(path: Path, record: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a model's file, None for nothing."""
    if not path.is_file():
        return f"{record['path']} is missing"
    if record.get("digest"):
        same = file_digest(path) == record["digest"]
        return None if same else f"{record['path']} is not the file that was trained"
    metadata = read_metadata(path)
    if metadata is None:
        return f"{record['path']} is no checkpoint"
    for name in _HEADER_FIELDS:
        if name in metadata and metadata[name] != record[name]:
            return f"{record['path']} says {name} {metadata[name]}, not {record[name]}"
    return None


def _orphan_files(connection: Connection) -> list[Finding]:
    """Look for files beside records that no record of any campaign names."""
    return [
        Finding(
            problem="orphan file",
            key=str(identity),
            text=f"{length} bytes in GridFS that no record names",
            repair="delete it",
        )
        for identity, length in _Files(connection).unnamed().items()
    ]


@final
class _Files:
    """The files beside the records of all campaigns in a database."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    @guarded
    def unnamed(self) -> dict[Any, int]:
        """Return the size of every old file that no record names, by `_id`."""
        documents = self.connection.documents
        oldest = now() - ORPHAN_AGE
        files = documents["fs.files"].find({"uploadDate": {"$lt": oldest}}, {"length": 1})
        sizes = {each["_id"]: int(each["length"]) for each in files}
        for record in RECORDS if sizes else ():
            for name in (name for name in record._fields if name.endswith("_file")):
                where = {name: {"$in": list(sizes)}}
                for each in documents[record._meta["collection"]].find(where, {name: 1}):
                    sizes.pop(each[name], None)
        return sizes

    @guarded
    def delete(self, identity: Any) -> None:
        """Delete a file."""
        GridFS(self.connection.documents).delete(identity)


def delete_orphans(connection: Connection) -> int:
    """Delete every file that no record names; return how many there were."""
    files = _Files(connection)
    unnamed = files.unnamed()
    for identity in unnamed:
        files.delete(identity)
    return len(unnamed)
