"""The server as a process: started, shared, killed, raced for, left alone."""

import json
import math
import multiprocessing
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote_plus

import gridfs
import mongoengine
import pymongo
import pytest
from pymongo.errors import AutoReconnect, DuplicateKeyError, OperationFailure

from tace_al.core.errors import DatabaseUnreachable
from tace_al.store.embedded.launch import ensure_server, running_server, stop_server

SPAWN = multiprocessing.get_context("spawn")


def address(path: Path) -> str:
    return f"mongodb://{quote_plus(str(path))}/test?directConnection=true"


@pytest.fixture
def database(shared_uri: str) -> Iterator[Any]:
    """An empty database on a running server."""
    with pymongo.MongoClient(shared_uri, uuidRepresentation="standard") as client:
        name = f"t{uuid.uuid4().hex}"
        yield client[name]
        client.drop_database(name)


def test_plain_pymongo(database: Any):
    table = database.samples
    table.create_index([("a", 1), ("b", -1)], unique=True, name="ab")
    identifier = uuid.uuid4()
    table.insert_many([{"a": n, "b": 0, "uuid": identifier} for n in range(300)])
    with pytest.raises(DuplicateKeyError):
        table.insert_one({"a": 5, "b": 0})
    assert table.count_documents({"a": {"$gte": 100}}) == 200
    assert [d["a"] for d in table.find(sort=[("a", -1)], limit=2)] == [299, 298]
    assert len(list(table.find(batch_size=7))) == 300
    assert table.find_one({"uuid": identifier})["uuid"] == identifier
    assert table.update_many({"a": {"$lt": 10}}, {"$set": {"c": 1}}).modified_count == 10
    assert table.delete_many({"c": 1}).deleted_count == 10
    assert table.index_information()["ab"]["unique"]
    assert database.list_collection_names() == ["samples"]
    bulk = [pymongo.InsertOne({"a": -1, "b": 1}), pymongo.DeleteOne({"a": 50})]
    assert table.bulk_write(bulk).deleted_count == 1
    assert database.name in database.client.list_database_names()
    with pytest.raises(OperationFailure, match="no such command"):
        database.command("mapReduce", "samples")


def test_not_a_number_is_storable(database: Any):
    database.x.insert_one({"_id": 1, "v": math.nan, "list": [math.inf, math.nan]})
    database.x.update_one({"_id": 1}, {"$set": {"w": math.nan}})
    found = database.x.find_one({"_id": 1})
    assert math.isnan(found["v"])
    assert math.isnan(found["w"])
    assert math.isnan(found["list"][1])


def test_gridfs_keeps_large_files(database: Any):
    content = os.urandom(3_000_000)
    files = gridfs.GridFS(database)
    identifier = files.put(content, filename="arrays")
    assert files.get(identifier).read() == content
    files.delete(identifier)
    assert database["fs.chunks"].count_documents({}) == 0


class Inner(mongoengine.EmbeddedDocument):
    value = mongoengine.FloatField()


class Sample(mongoengine.Document):
    meta: ClassVar[dict[str, Any]] = {"collection": "sample", "db_alias": "embedded-test"}
    name = mongoengine.StringField(unique=True)
    time = mongoengine.DateTimeField()
    inner = mongoengine.EmbeddedDocumentField(Inner)
    several = mongoengine.EmbeddedDocumentListField(Inner)
    free = mongoengine.DictField()
    tags = mongoengine.ListField(mongoengine.StringField())
    other = mongoengine.ReferenceField("self")
    blob = mongoengine.BinaryField()
    count = mongoengine.IntField(default=0)


def test_mongoengine_documents(shared_uri: str):
    mongoengine.connect(
        f"t{uuid.uuid4().hex}",
        host=shared_uri,
        alias="embedded-test",
        uuidRepresentation="standard",
        tz_aware=True,
    )
    try:
        first = Sample(name="first", inner=Inner(value=1.5), free={"a": {"b": 1}}, blob=b"\x00\xff")
        first.several = [Inner(value=1), Inner(value=math.nan)]
        first.save()
        Sample(name="second", other=first, tags=["x", "y"]).save()
        with pytest.raises(mongoengine.NotUniqueError):
            Sample(name="first").save()
        second = Sample.objects.get(other=first)
        assert second.other.id == first.id
        assert Sample.objects(tags="y").count() == 1
        assert Sample.objects(name__startswith="fi").first().blob == b"\x00\xff"
        assert Sample.objects(inner__value__gte=1.5).first() == first
        assert Sample.objects(free__a__b=1).update(inc__count=2, push__tags="z") == 1
        changed = Sample.objects(name="first").modify(new=True, set__inner__value=2.5)
        assert (changed.inner.value, changed.count, changed.tags) == (2.5, 2, ["z"])
        changed.free["c"] = 1
        changed.save()
        assert Sample.objects.get(id=changed.id).free == {"a": {"b": 1}, "c": 1}
        assert len(Sample.objects.in_bulk([first.id, second.id])) == 2
        assert [s.name for s in Sample.objects.order_by("-name").only("name")] == [
            "second",
            "first",
        ]
        first.delete()
        assert Sample.objects.count() == 1
    finally:
        Sample.drop_collection()
        mongoengine.disconnect(alias="embedded-test")


def test_the_folder_is_private(db_folder: Path):
    path = ensure_server(db_folder, idle_seconds=30)
    assert db_folder.stat().st_mode & 0o777 == 0o700
    assert all(not each.stat().st_mode & 0o077 for each in db_folder.iterdir())
    assert running_server(db_folder) == path
    stop_server(db_folder)
    assert running_server(db_folder) is None


def test_a_path_too_long_for_a_socket_is_served_elsewhere(tmp_path: Path):
    folder = tmp_path / ("long" * 30) / "db"
    path = ensure_server(folder, idle_seconds=30)
    try:
        assert folder not in path.parents
        assert path.parent.stat().st_mode & 0o777 == 0o700
        with pymongo.MongoClient(address(path)) as client:
            assert client.admin.command("ping")["ok"] == 1
    finally:
        stop_server(folder)
    assert not path.exists()


def test_a_damaged_file_is_told_in_one_sentence(db_folder: Path):
    db_folder.mkdir()
    (db_folder / "journal.sqlite").write_bytes(b"this is no database" * 100)
    with pytest.raises(DatabaseUnreachable, match=r"cannot start.*server.log"):
        ensure_server(db_folder)


@pytest.mark.slow
def test_it_ends_when_nobody_is_there(db_folder: Path):
    path = ensure_server(db_folder, idle_seconds=0.5)
    pid = json.loads((db_folder / "address.json").read_text())["pid"]
    with pymongo.MongoClient(address(path)) as client:
        client.test.x.insert_one({"_id": 1})
        time.sleep(1.5)
        assert client.test.x.count_documents({}) == 1, "a client keeps it up"
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()
    assert not path.exists()
    with pymongo.MongoClient(address(ensure_server(db_folder))) as client:
        assert client.test.x.count_documents({}) == 1


def _insert_and_report(folder: str, number: int, answers: Any) -> None:
    path = ensure_server(Path(folder), idle_seconds=5)
    pid = json.loads((Path(folder) / "address.json").read_text())["pid"]
    with pymongo.MongoClient(address(path)) as client:
        client.test.x.insert_one({"_id": number})
        answers.put((pid, client.test.x.count_documents({}) >= 1))


@pytest.mark.slow
def test_processes_that_race_share_one_server(db_folder: Path):
    answers = SPAWN.Queue()
    racers = [
        SPAWN.Process(target=_insert_and_report, args=(str(db_folder), n, answers))
        for n in range(4)
    ]
    for racer in racers:
        racer.start()
    reports = [answers.get(timeout=60) for _ in racers]
    for racer in racers:
        racer.join()
    assert len({pid for pid, _ in reports}) == 1
    with pymongo.MongoClient(address(ensure_server(db_folder))) as client:
        assert client.test.x.count_documents({}) == 4


def _claim_all(uri: str, owner: str, answers: Any) -> None:
    with pymongo.MongoClient(uri) as client:
        mine = []
        while True:
            found = client.claims.x.find_one_and_update(
                {"state": "queued"}, {"$set": {"state": "running", "owner": owner}}
            )
            if found is None:
                break
            mine.append(found["_id"])
    answers.put(mine)


@pytest.mark.slow
def test_four_processes_claim_without_double_or_loss(db_folder: Path):
    uri = address(ensure_server(db_folder, idle_seconds=30))
    with pymongo.MongoClient(uri) as client:
        client.claims.x.create_index("state")
        client.claims.x.insert_many([{"_id": n, "state": "queued"} for n in range(800)])
        answers = SPAWN.Queue()
        owners = [SPAWN.Process(target=_claim_all, args=(uri, f"w{n}", answers)) for n in range(4)]
        for owner in owners:
            owner.start()
        claimed = [number for _ in owners for number in answers.get(timeout=60)]
        for owner in owners:
            owner.join()
        assert sorted(claimed) == list(range(800))
        assert client.claims.x.count_documents({"state": "running"}) == 800


@pytest.mark.slow
def test_no_acknowledged_write_is_lost_when_the_server_is_killed(db_folder: Path):
    path = ensure_server(db_folder, idle_seconds=30)
    acknowledged: list[list[int]] = [[] for _ in range(3)]

    def write(lane: int) -> None:
        with pymongo.MongoClient(address(path), serverSelectionTimeoutMS=200) as client:
            for number in range(lane, 10**9, 3):
                try:
                    client.test.x.insert_one({"_id": number, "k": number})
                    client.test.x.update_one({"_id": number}, {"$set": {"done": True}})
                except AutoReconnect:
                    return
                acknowledged[lane].append(number)

    with pymongo.MongoClient(address(path)) as client:
        client.test.x.create_index("k", unique=True)
    writers = [threading.Thread(target=write, args=(lane,)) for lane in range(3)]
    for writer in writers:
        writer.start()
    time.sleep(1.5)
    os.kill(json.loads((db_folder / "address.json").read_text())["pid"], signal.SIGKILL)
    for writer in writers:
        writer.join()
    written = sorted(number for lane in acknowledged for number in lane)
    assert len(written) > 50
    with pymongo.MongoClient(address(ensure_server(db_folder, idle_seconds=30))) as client:
        found = {d["_id"] for d in client.test.x.find({"done": True})}
        assert found >= set(written)
        assert client.test.x.index_information()["k_1"]["unique"]
        with pytest.raises(DuplicateKeyError):
            client.test.x.insert_one({"k": written[0]})
