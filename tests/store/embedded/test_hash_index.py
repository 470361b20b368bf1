import random

import bson

from tace_al.store.embedded.hash_index import HashIndex, IndexSpec, Stored
from tace_al.store.embedded.scalar_keys import scalar_key

QUEUE = IndexSpec(name="queue", fields=(("campaign", 1), ("state", 1), ("priority", -1)))


def stored(number: int, **body: object) -> Stored:
    return Stored(key=(10, number), serial=number, content=bson.encode({"_id": number, **body}))


def wanted(**values: object) -> dict:
    return {path: [scalar_key(value)] for path, value in values.items()}


def test_a_prefix_of_the_fields_finds_its_bucket():
    index = HashIndex(QUEUE)
    for number in range(6):
        index.add(stored(number, campaign="c", state="ab"[number % 2], priority=number))
    length, buckets = index.buckets(wanted(campaign="c", state="a"))
    assert length == 2
    assert [key[1] for bucket in buckets for key in bucket] == [0, 2, 4]
    assert index.buckets(wanted(state="a")) is None, "the leading field is not given"


def test_order_is_kept_through_changes_and_equals_come_first_in_first_out():
    index = HashIndex(QUEUE)
    generator = random.Random(0)
    documents = [
        stored(number, campaign="c", state="q", priority=generator.randrange(5))
        for number in range(200)
    ]
    for document in documents[:100]:
        index.add(document)
    next(index.ordered(wanted(campaign="c", state="q"), "priority", -1))
    for document in documents[100:]:
        index.add(document)
    for document in documents[::3]:
        index.remove(document)
    left = [document for number, document in enumerate(documents) if number % 3]
    expected = sorted(left, key=lambda document: (-document.body["priority"], document.serial))
    assert list(index.ordered(wanted(campaign="c", state="q"), "priority", -1)) == expected


def test_values_without_a_key_stand_aside_and_still_conflict():
    index = HashIndex(IndexSpec(name="u", fields=(("a", 1),), unique=True))
    index.add(stored(1, a=[1, 2]))
    assert (10, 1) in index.irregular
    assert index.conflict({"a": [1, 2]}, (10, 2))
    assert not index.conflict({"a": [1, 2]}, (10, 1)), "a document does not conflict with itself"
    assert index.ordered({}, "a", 1) is None


def test_a_sparse_unique_index_ignores_documents_without_the_field():
    fields = (("a", 1),)
    for sparse, conflict in ((True, False), (False, True)):
        index = HashIndex(IndexSpec(name="u", fields=fields, unique=True, sparse=sparse))
        index.add(stored(1))
        assert index.conflict({}, (10, 2)) is conflict
