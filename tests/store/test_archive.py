"""A campaign in one file, and a campaign from one."""

import json
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from tace_al.core.errors import StorageFull, StoreError
from tace_al.store.archive import ORDER, write_backup
from tace_al.store.embedded.launch import stop_server
from tace_al.store.integrity import check_records
from tace_al.store.integrity_files import check_files
from tace_al.store.raw_records import RawRecords
from tace_al.store.records import RECORDS
from tace_al.store.restore import restore_backup, verify_backup
from tace_al.store.store import Store

pytestmark = pytest.mark.usefixtures("no_server_uri")


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """Where to restore to."""
    yield tmp_path / "again"
    stop_server(tmp_path / "again" / "db")


def documents(store: Store) -> dict[str, list[dict[str, Any]]]:
    raw = RawRecords(store.connection, store.campaign_id)
    return {each.__name__: sorted(raw.each(each), key=lambda d: str(d["_id"])) for each in ORDER}


def test_every_kind_of_record_is_in_the_order():
    assert set(ORDER) == set(RECORDS)


def test_a_restored_campaign_is_the_same(sound: Store, target: Path, read_file: Any):
    archive = target.parent / "campaign.zip"
    done = write_backup(sound, archive)
    assert (done.models, done.files, done.missing_models) == (2, 1, ())
    before = documents(sound)
    big = next(d for d in before["StructureRecord"] if d.get("frame_file"))["key"]
    positions = sound.structure(big).positions
    manifest = restore_backup(archive, target)
    assert manifest.campaign == sound.campaign_id
    with Store.open(target, create=False) as again:
        assert documents(again) == before
        assert np.array_equal(again.structure(big).positions, positions)
        assert check_records(again, running=False) == []
        left = check_files(again, running=False, read_label=read_file)
        assert {finding.problem for finding in left} == {"label file"}, "the CLI writes those"
        for model in again.models():
            assert (again.directory / model.path).is_file()
        assert again.add_candidate("new", kind="seed", channel="c", generation=0)
        again.log("note", "it goes on")


def test_nothing_is_overwritten(sound: Store, target: Path, shared_uri: str):
    archive = target.parent / "campaign.zip"
    write_backup(sound, archive)
    with pytest.raises(StoreError, match=r"campaign\.zip exists"):
        write_backup(sound, archive)
    target.mkdir()
    (target / "precious").write_text("x")
    with pytest.raises(StoreError, match=r"is not empty; name a new directory"):
        restore_backup(archive, target)
    (target / "precious").unlink()
    if sound.connection.uri == shared_uri:
        with pytest.raises(StoreError, match=r"has campaign 'test-.*another database with --db"):
            restore_backup(archive, target, uri=shared_uri)
        assert sound.counts()["structures"] == 6
    assert [path.name for path in target.parent.iterdir() if path.name.startswith(".again")] == []


def test_a_server_takes_a_campaign_and_what_an_interrupted_restore_left(
    sound: Store, target: Path, shared_uri: str
):
    archive = target.parent / "campaign.zip"
    write_backup(sound, archive)
    before = documents(sound)
    elsewhere = shared_uri.replace("/?", "/elsewhere?")
    with Store.open(target.parent / "half", uri=elsewhere, campaign=sound.campaign_id) as half:
        half.add_structure(molecule("CH4"), channel="c", origin={})
    restore_backup(archive, target, uri=elsewhere)
    with Store.open(target, create=False) as again:
        assert again.connection.uri == elsewhere
        assert documents(again) == before
    assert not (target / "db").exists()


def rewritten(archive: Path, name: str, content: bytes | None) -> Path:
    """Return a copy of an archive with one member changed, added or (None) left out."""
    copy = archive.with_name("changed.zip")
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(copy, "w") as out:
        for each in source.namelist():
            if each != name:
                out.writestr(each, source.read(each))
        if content is not None:
            out.writestr(name, content)
    return copy


def test_a_damaged_archive_is_refused_before_anything_is_written(sound: Store, target: Path):
    archive = target.parent / "campaign.zip"
    write_backup(sound, archive, models=False)
    manifest = verify_backup(archive)
    assert manifest.documents["label"] == 4 and manifest.models == ()
    later = json.loads(zipfile.ZipFile(archive).read("manifest.json")) | {"version": 99}
    with pytest.raises(StoreError, match="is not a whole backup"):
        restore_backup(rewritten(archive, "records/label.bson", None), target)
    with pytest.raises(StoreError, match=r"is damaged in records/label.bson"):
        restore_backup(rewritten(archive, "records/label.bson", b"1234"), target)
    with pytest.raises(StoreError, match="does not name"):
        restore_backup(rewritten(archive, "models/../../evil", b"1234"), target)
    with pytest.raises(StoreError, match="archive version 99"):
        restore_backup(rewritten(archive, "manifest.json", json.dumps(later).encode()), target)
    cut = target.parent / "cut.zip"
    cut.write_bytes(archive.read_bytes()[:-50])
    with pytest.raises(StoreError, match="is not a whole backup"):
        restore_backup(cut, target)
    with pytest.raises(StoreError, match="does not exist"):
        restore_backup(target.parent / "none.zip", target)
    assert not target.exists()


def test_a_full_disk_leaves_no_half_archive(sound: Store, tmp_path: Path, monkeypatch: Any):
    import errno

    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tace_al.core.atomic_write.os.fsync", refuse)
    with pytest.raises(StorageFull):
        write_backup(sound, tmp_path / "out" / "campaign.zip")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_a_backup_of_a_campaign_at_work_is_consistent(sound: Store, target: Path, read_file: Any):
    """Structures, labels and training sets arrive while it is written."""
    from tace_al.core.labels import Label

    stop = threading.Event()
    fidelity = sound.fidelities()[0].key

    def work() -> None:
        number = 100
        while not stop.is_set():
            atoms = molecule("NH3")
            atoms.rattle(0.05, seed=number)
            key = sound.add_structure(atoms, channel="c", origin={})
            sound.add_candidate(key, kind="seed", channel="c", generation=0, state="queued")
            label = Label(
                structure_key=key, fidelity_key=fidelity, energy=0.0, forces=np.zeros((4, 3))
            )
            sound.add_label(label, fidelity_name="gfn2", role="train", generation=0)
            sound.move_candidate(key, source="queued", target="labelled")
            sound.add_training_set([label.key])
            number += 1

    worker = threading.Thread(target=work)
    worker.start()
    try:
        time.sleep(0.3)
        for number in range(4):
            write_backup(sound, target.parent / f"{number}.zip")
    finally:
        stop.set()
        worker.join()
    for number in range(4):
        again = target.parent / f"again{number}"
        restore_backup(target.parent / f"{number}.zip", again)
        try:
            with Store.open(again, create=False) as store:
                assert check_records(store, running=False) == []
                assert store.counts()["structures"] > 6
        finally:
            stop_server(again / "db")
