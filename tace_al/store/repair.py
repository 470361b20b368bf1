"""Mend what can be mended without a decision: from a label's other copy, or by queueing again."""

from collections.abc import Callable, Iterable
from pathlib import Path

from tace_al.core.errors import StoreError
from tace_al.core.labels import Label
from tace_al.store.blobs import blob_fields, pack_arrays
from tace_al.store.damage import Damage
from tace_al.store.integrity import Finding
from tace_al.store.integrity_files import LabelReader, delete_orphans, label_file
from tace_al.store.records import LabelRecord
from tace_al.store.store import Store
from tace_al.store.table import Table

LabelWriter = Callable[[Path, Label], None]


def repair(
    store: Store,
    findings: Iterable[Finding],
    *,
    read_label: LabelReader,
    write_label: LabelWriter,
) -> list[Finding]:
    """Carry out the repairs that the findings name; return the findings that are dealt with.

    Nothing is deleted but files that no record names and documents that cannot be read any more;
    nothing is overwritten but what is damaged.
    """
    done: list[Finding] = []
    orphans = False
    for finding in findings:
        if not finding.repair:
            continue
        if finding.problem == "label":
            _record_again(store, finding.key, read_label)
        elif finding.problem == "record":
            Damage(store.connection).forget_lost()
        elif finding.problem == "label file":
            _write_file(store, finding.key, write_label)
        elif finding.problem == "unread label":
            _record(store, finding.key, read_label)
        elif finding.problem in ("candidate", "lease"):
            sources = ("labelled", "running")
            store.move_candidate(finding.key, source=sources, target="queued")
        elif finding.problem == "orphan file":
            orphans = True
        else:
            continue
        done.append(finding)
    if orphans:
        delete_orphans(store.connection)
    if done:
        store.log("repair", f"{len(done)} findings of `tace-al db check` repaired")
    return done


def _read(store: Store, key: str, read_label: LabelReader) -> Label:
    """Return the label in a file that the check found good."""
    label = read_label(label_file(store.directory, key))
    if label is None or label.key != key:
        raise StoreError(f"the file of label {key} has changed; run `tace-al db check` again")
    return label


def _record_again(store: Store, key: str, read_label: LabelReader) -> None:
    """Put the numbers of a label's file in the place of a damaged record's."""
    label = _read(store, key, read_label)
    arrays = pack_arrays({"forces": label.forces, "stress": label.stress, "dipole": label.dipole})
    fields = {
        "structure": label.structure_key,
        "fidelity": label.fidelity_key,
        "energy": float(label.energy),
        "seconds": float(label.seconds),
        "arrays": None,
        "arrays_file": None,
        **blob_fields(store.connection, "arrays", arrays),
    }
    Table(LabelRecord, store.connection, store.campaign_id).change({"key": key}, fields)


def _write_file(store: Store, key: str, write_label: LabelWriter) -> None:
    """Write a label's file from its record."""
    record = Table(LabelRecord, store.connection, store.campaign_id).one(key=key)
    write_label(label_file(store.directory, key), label_of(store, record))


def label_of(store: Store, record: LabelRecord) -> Label:
    """Return the label that a record holds."""
    arrays = store.label_arrays(record)
    return Label(
        structure_key=record.structure,
        fidelity_key=record.fidelity,
        energy=float(record.energy),
        forces=arrays["forces"],
        stress=arrays.get("stress"),
        dipole=arrays.get("dipole"),
        seconds=float(record.seconds),
    )


def _record(store: Store, key: str, read_label: LabelReader) -> None:
    """Record a label that a model was trained on from its file."""
    label = _read(store, key, read_label)
    names = {record.key: record.name for record in store.fidelities()}
    store.add_label(
        label, fidelity_name=names[label.fidelity_key], role="train", generation=0, worker="repair"
    )


def write_label_files(store: Store, write_label: LabelWriter) -> int:
    """Write the file of every label that has none; return how many there were.

    A campaign that goes on from a backup finds its labels there, and computes none again.
    """
    missing = [
        record for record in store.labels() if not label_file(store.directory, record.key).exists()
    ]
    for record in missing:
        write_label(label_file(store.directory, record.key), label_of(store, record))
    return len(missing)
