"""Whatever is damaged is found and named; what the other copy can mend is mended."""

import fcntl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gridfs import GridFS

from tace_al.core.labels import Label
from tace_al.data.frames import frames_to_bytes
from tace_al.dispatch.label_file import write_label
from tace_al.store.integrity import Finding, check_records
from tace_al.store.integrity_files import check_files, is_running, label_file, with_files
from tace_al.store.repair import repair
from tace_al.store.store import Store

Check = Callable[[Store], list[Finding]]


@pytest.fixture
def check(read_file: Any) -> Check:
    """Return what runs every check."""

    def checked(store: Store) -> list[Finding]:
        found = with_files(check_records(store, running=False), store.directory, read_file)
        return found + check_files(store, running=False, read_label=read_file)

    return checked


def change(store: Store, collection: str, where: dict[str, Any], **fields: Any) -> None:
    """Change a document behind the Store's back."""
    chosen = {"campaign": store.campaign_id, **where}
    found = store.connection.documents[collection].update_one(chosen, {"$set": fields})
    assert found.modified_count == 1


def mend(store: Store, findings: list[Finding], read_file: Any) -> list[Finding]:
    return repair(store, findings, read_label=read_file, write_label=write_label)


def test_a_sound_campaign_has_no_findings(sound: Store, check: Check):
    assert check(sound) == []


def damage_structure(store: Store) -> str:
    key = store.structure_record(store.labels()[0].structure).key
    atoms = store.structure(key)
    atoms.positions[0, 0] += 1e-6
    change(store, "structure", {"key": key}, frame=frames_to_bytes([atoms]))
    return key


def damage_bytes(store: Store) -> str:
    key = str(store.labels()[1].structure)
    change(store, "structure", {"key": key}, frame=b"PK no zip")
    return key


def lose_big_file(store: Store) -> str:
    (record,) = store.connection.documents["structure"].find(
        {"campaign": store.campaign_id, "frame_file": {"$exists": True}}
    )
    GridFS(store.connection.documents).delete(record["frame_file"])
    return str(record["key"])


def damage_level(store: Store) -> str:
    key = str(store.fidelities()[0].key)
    change(store, "fidelity", {"key": key}, settings={"accuracy": 2.0})
    return key


def damage_config(store: Store) -> str:
    change(store, "campaign", {}, config={"budget": 4})
    return store.campaign_id


def damage_training_set(store: Store) -> str:
    key = str(store.models()[0].training_set)
    change(store, "training_set", {"key": key}, count=3)
    return key


def damage_generation(store: Store) -> str:
    change(store, "generation", {"number": 1}, models=["0" * 32, "a" * 32])
    return "1"


def lose_model_file(store: Store) -> str:
    (store.directory / store.models()[1].path).unlink()
    return "1" * 32


def change_model_file(store: Store) -> str:
    with (store.directory / store.models()[0].path).open("ab") as stream:
        stream.write(b"more")
    return "0" * 32


def mistake_model_file(store: Store) -> str:
    """The digest of an old record is unknown; the file's header tells."""
    change(store, "model", {"key": "0" * 32}, digest=None, seed=5)
    return "0" * 32


@pytest.mark.parametrize(
    ("problem", "damage"),
    [
        ("structure", damage_structure),
        ("structure", damage_bytes),
        ("structure", lose_big_file),
        ("fidelity", damage_level),
        ("campaign", damage_config),
        ("training set", damage_training_set),
        ("generation", damage_generation),
        ("model file", lose_model_file),
        ("model file", change_model_file),
        ("model file", mistake_model_file),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_damage_is_named(sound: Store, check: Check, problem: str, damage: Any):
    key = damage(sound)
    (finding,) = check(sound)
    assert (finding.problem, finding.key, finding.repair) == (problem, key, "")


def test_a_damaged_label_is_read_from_its_file(sound: Store, check: Check, read_file: Any):
    records = sound.labels()
    before = [(r.energy, sound.label_arrays(r)["forces"]) for r in records]
    change(sound, "label", {"key": records[0].key}, energy=float("nan"))
    change(sound, "label", {"key": records[1].key}, arrays=b"broken")
    findings = check(sound)
    assert [f.problem for f in findings] == ["label", "label"]
    assert len(mend(sound, findings, read_file)) == 2
    assert check(sound) == []
    for record, (energy, forces) in zip(sound.labels(), before, strict=True):
        assert record.energy == energy
        assert np.array_equal(sound.label_arrays(record)["forces"], forces)


def test_a_lost_or_broken_file_is_written_from_its_record(
    sound: Store, check: Check, read_file: Any
):
    first, second = (label_file(sound.directory, record.key) for record in sound.labels()[:2])
    whole = first.read_bytes(), second.read_bytes()
    first.unlink()
    second.write_bytes(b"PK")
    findings = check(sound)
    assert {f.problem for f in findings} == {"label file"} and len(findings) == 2
    mend(sound, findings, read_file)
    assert check(sound) == []
    assert (first.read_bytes(), second.read_bytes()) == whole


def test_two_copies_that_differ_are_left_to_a_person(sound: Store, check: Check, read_file: Any):
    record = sound.labels()[2]
    change(sound, "label", {"key": record.key}, energy=-7.0)
    (finding,) = check(sound)
    assert finding.problem == "label file" and "-7.000000 eV" in finding.text
    assert mend(sound, [finding], read_file) == []
    assert check(sound) == [finding]


def test_a_lost_record_that_a_model_saw_is_recorded_again(
    sound: Store, check: Check, read_file: Any
):
    key = sound.labels()[3].key
    sound.connection.documents["label"].delete_one({"campaign": sound.campaign_id, "key": key})
    findings = check(sound)
    assert {f.problem for f in findings} == {"unread label", "candidate", "training set"}
    mend(sound, [f for f in findings if f.problem == "unread label"], read_file)
    assert check(sound) == []
    assert [r.key for r in sound.labels()].count(key) == 1


def test_a_label_without_a_record_waits_for_the_next_run(
    sound: Store, check: Check, read_file: Any
):
    (queued,) = sound.candidates(state="queued")
    label = Label(
        structure_key=queued.key,
        fidelity_key=sound.fidelities()[0].key,
        energy=-1.0,
        forces=np.zeros((3, 3)),
    )
    write_label(label_file(sound.directory, label.key), label)
    (finding,) = check(sound)
    assert (finding.problem, finding.repair) == ("unread label", "")
    assert check_files(sound, running=True, read_label=read_file) == [], "it is on its way"


def test_a_stuck_lease_goes_back_into_the_queue(sound: Store, check: Check, read_file: Any):
    (claimed,) = sound.claim_candidates("dead", 1)
    assert check(sound) == [], "it may be alive"
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    change(sound, "candidate", {"key": claimed.key}, heartbeat=long_ago)
    assert check_records(sound, running=True) == []
    (finding,) = check(sound)
    assert finding.problem == "lease" and "dead holds it since" in finding.text
    mend(sound, [finding], read_file)
    assert check(sound) == []
    assert sound.candidate(claimed.key).state == "queued"


def test_a_file_that_no_record_names_is_deleted(sound: Store, check: Check, read_file: Any):
    files = GridFS(sound.connection.documents)
    orphan = files.put(b"left over")
    assert check(sound) == [], "it may be on its way"
    old = datetime.now(UTC) - timedelta(hours=2)
    sound.connection.documents["fs.files"].update_many({}, {"$set": {"uploadDate": old}})
    ours = [finding for finding in check(sound) if finding.key == str(orphan)]
    assert [f.problem for f in ours] == ["orphan file"]
    mend(sound, ours, read_file)
    assert not files.exists(orphan)
    assert check(sound) == []


def test_a_running_campaign_is_noticed(tmp_path: Path):
    assert not is_running(tmp_path)
    with (tmp_path / "run.lock").open("w") as lock:
        assert not is_running(tmp_path)
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert is_running(tmp_path)
