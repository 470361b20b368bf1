import math
import random
from pathlib import Path
from typing import Any

import pytest
from mongomock.filtering import filter_applies

from tace_al.store.embedded.command_errors import DUPLICATE_KEY, OUT_OF_DISK_SPACE
from tace_al.store.embedded.engine import Engine


class Client:
    """Sends commands to an engine without a socket."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.engine = Engine(path, **options)

    def __call__(self, name: str, target: Any = 1, **arguments: Any) -> dict[str, Any]:
        return self.engine.run({name: target, "$db": "d", **arguments})

    def insert(self, *documents: dict[str, Any]) -> dict[str, Any]:
        return self("insert", "x", documents=list(documents))

    def find(self, criteria: dict[str, Any] | None = None, **options: Any) -> list[dict[str, Any]]:
        reply = self("find", "x", filter=criteria or {}, batchSize=10**6, **options)
        assert reply["ok"] == 1, reply
        return list(reply["cursor"]["firstBatch"])

    def index(self, name: str, unique: bool = False, **fields: int) -> dict[str, Any]:
        definition = {"name": name, "key": fields, "unique": unique}
        return self("createIndexes", "x", indexes=[definition])


@pytest.fixture
def client(tmp_path: Path):
    opened = Client(tmp_path / "journal.sqlite")
    yield opened
    opened.engine.close()


def test_state_is_identical_after_a_restart(client: Client, tmp_path: Path):
    client.index("key", unique=True, campaign=1, key=1)
    client.insert(
        *({"_id": n, "campaign": "c", "key": n, "v": [n, {"w": math.nan}]} for n in range(9))
    )
    client("update", "x", updates=[{"q": {"_id": 3}, "u": {"$set": {"v": None, "new.deep": 1}}}])
    client("delete", "x", deletes=[{"q": {"_id": {"$gt": 6}}, "limit": 0}])
    client("create", "empty")
    before = repr((client.find(), client("listIndexes", "x"), client("listCollections")))
    client.engine.close()
    client.engine = Engine(tmp_path / "journal.sqlite")
    after = repr((client.find(), client("listIndexes", "x"), client("listCollections")))
    assert after == before
    reply = client.insert({"campaign": "c", "key": 4})
    assert reply["writeErrors"][0]["code"] == DUPLICATE_KEY, "unique indexes survive too"


def test_indexes_give_what_a_scan_gives(client: Client):
    generator = random.Random(1)
    values = [None, 1, 1.0, True, "a", [1, 2], {"z": 1}, 2, math.nan]
    documents = [
        {"_id": n, "a": generator.choice(values), "b": generator.choice(values)} for n in range(150)
    ]
    for document in documents[::7]:
        del document["a"]
    client.insert(*documents)
    client.index("ab", a=1, b=-1)
    for a in [None, 1, "a", [1, 2], {"$in": [1, "a"]}, {"$eq": 2}, {"$gt": 0}, {"$ne": 1}]:
        for more in ({}, {"b": 2}, {"$and": [{"b": "a"}]}, {"$or": [{"b": 1}, {"b": 2}]}):
            criteria = {"a": a, **more}
            found = [document["_id"] for document in client.find(criteria)]
            # True equals 1 for Python, not for MongoDB; the hash maps side with MongoDB.
            expected = [
                document["_id"] for document in documents if filter_applies(criteria, document)
            ]
            assert set(found) <= set(expected)
            missed = [documents[n] for n in set(expected) - set(found)]
            assert all(True in (m.get("a"), m.get("b")) for m in missed), criteria


def test_unique_indexes_refuse_inserts_updates_and_their_own_creation(client: Client):
    client.index("k", unique=True, k=1)
    client.insert({"_id": 1, "k": 1}, {"_id": 2, "k": 2})
    reply = client("insert", "x", documents=[{"k": 1}, {"k": 3}], ordered=False)
    assert reply["n"] == 1
    assert reply["writeErrors"][0]["index"] == 0
    reply = client("update", "x", updates=[{"q": {"_id": 2}, "u": {"$set": {"k": 1}}}])
    assert reply["writeErrors"][0]["code"] == DUPLICATE_KEY
    assert client.find({"_id": 2}) == [{"_id": 2, "k": 2}], "a refused change leaves nothing behind"
    client.insert({"m": 1}, {"m": 1, "k": 9})
    assert client.index("m", unique=True, m=1)["code"] == DUPLICATE_KEY


def test_find_and_modify_takes_the_highest_priority_first(client: Client):
    client.index("queue", state=1, priority=-1)
    client.insert(*({"_id": n, "state": "q", "priority": n % 3} for n in range(6)))
    taken = []
    while True:
        reply = client(
            "findAndModify",
            "x",
            query={"state": "q"},
            sort={"priority": -1},
            update={"$set": {"state": "r"}, "$inc": {"tries": 1}},
            new=True,
        )
        if reply["value"] is None:
            break
        assert reply["value"]["tries"] == 1
        taken.append(reply["value"]["_id"])
    assert taken == [2, 5, 1, 4, 0, 3]


def test_upserts_insert_once(client: Client):
    update = {"q": {"name": "n"}, "u": {"$inc": {"value": 1}}, "upsert": True}
    first = client("update", "x", updates=[update])
    assert first["upserted"][0]["index"] == 0
    assert client("update", "x", updates=[update])["nModified"] == 1
    assert client.find({}, projection={"_id": 0}) == [{"name": "n", "value": 2}]


def test_positional_updates_and_array_operators(client: Client):
    client.insert(
        {"_id": 1, "steps": [{"n": 1, "ok": False}, {"n": 2, "ok": False}], "tags": ["a"]}
    )
    client("update", "x", updates=[{"q": {"steps.n": 2}, "u": {"$set": {"steps.$.ok": True}}}])
    client("update", "x", updates=[{"q": {"_id": 1}, "u": {"$push": {"tags": "b"}}}])
    client("update", "x", updates=[{"q": {"_id": 1}, "u": {"$addToSet": {"tags": "a"}}}])
    (document,) = client.find()
    assert [step["ok"] for step in document["steps"]] == [False, True]
    assert document["tags"] == ["a", "b"]


def test_cursors_hand_out_a_snapshot_in_batches(client: Client):
    client.insert(*({"_id": n} for n in range(250)))
    reply = client("find", "x", filter={}, batchSize=100)["cursor"]
    client("delete", "x", deletes=[{"q": {}, "limit": 0}])
    seen = [document["_id"] for document in reply["firstBatch"]]
    while reply["id"]:
        reply = client("getMore", reply["id"], collection="x", batchSize=100)["cursor"]
        seen += [document["_id"] for document in reply["nextBatch"]]
    assert seen == list(range(250))
    assert client("getMore", 999, collection="x")["code"] == 43


def test_batches_stay_below_sixteen_megabytes(client: Client):
    for number in range(5):
        client.insert({"_id": number, "blob": bytes(6_000_000)})
    reply = client("find", "x", filter={}, batchSize=100)["cursor"]
    assert len(reply["firstBatch"]) == 2
    assert reply["id"] != 0


def test_aggregation_counts_groups_and_refuses_joins(client: Client):
    client.insert(*({"kind": "ab"[n % 2], "n": n} for n in range(10)))
    group = [{"$group": {"_id": "$kind", "total": {"$sum": "$n"}}}, {"$sort": {"_id": 1}}]
    reply = client("aggregate", "x", pipeline=group, cursor={})
    assert reply["cursor"]["firstBatch"] == [{"_id": "a", "total": 20}, {"_id": "b", "total": 25}]
    count = [{"$match": {"kind": "a"}}, {"$group": {"_id": 1, "n": {"$sum": 1}}}]
    reply = client("aggregate", "x", pipeline=count, cursor={})
    assert reply["cursor"]["firstBatch"] == [{"_id": 1, "n": 5}]
    assert client("aggregate", "x", pipeline=[{"$lookup": {}}], cursor={})["code"] == 238
    assert sorted(client("distinct", "x", key="kind")["values"]) == ["a", "b"]


@pytest.mark.parametrize(
    "command",
    [
        {"find": "x", "filter": {"$nonsense": 1}},
        {"find": "x", "filter": {"a": {"$near": [0, 0]}}},
        {"update": "x", "updates": [{"q": {}, "u": {"$bogus": {"a": 1}}}]},
        {"createIndexes": "x", "indexes": [{"name": "t", "key": {"a": "text"}}]},
        {
            "createIndexes": "x",
            "indexes": [{"name": "t", "key": {"a": 1}, "expireAfterSeconds": 1}],
        },
        {"insert": "", "documents": [{"a": 1}]},
        {"insert": "x", "documents": [{"$a": 1}]},
        {"mapReduce": "x"},
        {"find": "x", "filter": {}, "tailable": True},
    ],
)
def test_what_is_not_understood_is_refused_aloud(client: Client, command: dict[str, Any]):
    client.insert({"a": 1})
    reply = client.engine.run({**command, "$db": "d"})
    assert reply["ok"] == 0 or reply["writeErrors"]
    assert client.find({}, projection={"_id": 0}) == [{"a": 1}]


def test_the_identifier_cannot_be_changed(client: Client):
    client.insert({"_id": 1})
    reply = client("update", "x", updates=[{"q": {"_id": 1}, "u": {"$set": {"_id": 2}}}])
    assert reply["writeErrors"]
    assert client.find() == [{"_id": 1}]


def test_a_full_disk_is_told_and_undone(tmp_path: Path):
    client = Client(tmp_path / "journal.sqlite", max_pages=40)
    client.index("k", unique=True, k=1)
    written, reply = 0, {"ok": 1.0}
    while reply["ok"]:
        reply = client.insert({"_id": written, "k": written, "blob": bytes(9000)})
        written += reply["ok"] == 1
    assert reply["code"] == OUT_OF_DISK_SPACE
    assert [document["_id"] for document in client.find()] == list(range(written))
    update = {"q": {"_id": 0}, "u": {"$set": {"blob": bytes(60_000), "k": -1}}}
    assert client("update", "x", updates=[update])["code"] == OUT_OF_DISK_SPACE
    assert client.find({"k": 0})[0]["blob"] == bytes(9000)
    client.engine.close()
    again = Client(tmp_path / "journal.sqlite")
    assert again("count", "x")["n"] == written
    assert again.insert({"_id": written, "k": written})["n"] == 1, "with room it goes on"
    again.engine.close()


def test_dropping_leaves_no_trace(client: Client, tmp_path: Path):
    client.insert({"a": 1})
    client.index("a", a=1)
    client("dropIndexes", "x", index="a")
    assert len(client("listIndexes", "x")["cursor"]["firstBatch"]) == 1
    client("drop", "x")
    assert client("listCollections")["cursor"]["firstBatch"] == []
    assert client("drop", "x")["code"] == 26
    client.engine.close()
    client.engine = Engine(tmp_path / "journal.sqlite")
    assert client.find() == []


@pytest.mark.parametrize(
    "change",
    [
        {"$set": {"a": 2, "new": [1, {"b": None}]}},
        {"$inc": {"a": 2, "absent": -1.5}},
        {"$set": {"text": "y"}, "$inc": {"a": 1}},
        {"$set": {"inner.deep": 1}},
        {"$inc": {"text": 1}},
        {"$inc": {"yes": 1}},
        {"$set": {"a": 1}, "$inc": {"a": 1}},
        {"$set": {"$bad": 1}},
        {"$set": {"_id": 1}},
        {"$set": 3},
        {"$set": {}},
        {"$unset": {"a": ""}, "$inc": {"b": 1}},
    ],
)
def test_simple_updates_mean_what_mongomock_says(change: Any, monkeypatch: pytest.MonkeyPatch):
    from tace_al.store.embedded import semantics

    body = {"_id": 1, "a": 1, "text": "x", "inner": {"deep": 0}, "yes": True, "v": math.nan}

    def outcome() -> tuple[str, str]:
        try:
            return "body", repr(semantics.Semantics().updated(body, {"_id": 1}, change))
        except semantics.SEMANTIC_ERRORS as error:
            return "refused", type(error).__name__

    quick = outcome()
    monkeypatch.setattr(semantics, "_is_simple", lambda *_: False)
    assert quick == outcome()


def test_a_journaled_write_is_on_the_disk(client: Client, monkeypatch: pytest.MonkeyPatch):
    forced: list[int] = []
    monkeypatch.setattr("os.fdatasync", forced.append)
    client.insert({"_id": 1})
    assert forced == [] and client.engine.unflushed
    client("insert", "x", documents=[{"_id": 2}], writeConcern={"w": 1, "j": True})
    assert len(forced) == 1 and not client.engine.unflushed
    client("find", "x", writeConcern={"j": True})
    assert len(forced) == 1, "a read has nothing to force"
    client.insert({"_id": 3})
    client.engine.flush()
    assert len(forced) == 2

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fdatasync", refuse)
    reply = client("insert", "x", documents=[{"_id": 4}], writeConcern={"w": "majority"})
    assert (reply["ok"], reply["code"]) == (0.0, OUT_OF_DISK_SPACE)


@pytest.mark.parametrize(
    "projection", [{"a": 1}, {"b": True, "_id": 1}, {"a": 1, "_id": 0}, {"a.x": 1}, {"b": 0}]
)
def test_projections_mean_what_mongomock_says(client: Client, projection: Any, monkeypatch: Any):
    from tace_al.store.embedded import semantics

    client.insert({"_id": 1, "b": [1, {"c": 2}], "a": {"x": 1, "y": 2}}, {"_id": 2, "z": None})
    quick = client.find(projection=projection)
    monkeypatch.setattr(semantics, "_is_plain_choice", lambda _: False)
    assert quick == client.find(projection=projection)
