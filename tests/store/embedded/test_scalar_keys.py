import math
from datetime import datetime

from bson import Int64, ObjectId

from tace_al.store.embedded.scalar_keys import NULL_KEY, field_key, identity_key, scalar_key


def test_numbers_agree_across_types_and_booleans_are_no_numbers():
    assert scalar_key(1) == scalar_key(1.0) == scalar_key(Int64(1))
    assert scalar_key(True) != scalar_key(1)
    assert scalar_key(math.nan) == scalar_key(math.nan)


def test_keys_sort_in_mongodb_order_across_types():
    values = [
        None,
        math.nan,
        -1,
        2.5,
        "a",
        "b",
        b"x",
        ObjectId(),
        False,
        True,
        datetime(2020, 1, 1),
    ]
    keys = [scalar_key(value) for value in values]
    assert keys == sorted(keys)


def test_missing_fields_are_null_and_arrays_have_no_key():
    assert field_key({"a": {"b": 3}}, "a.b") == scalar_key(3)
    assert field_key({"a": 1}, "a.b") == field_key({}, "a.b") == NULL_KEY
    assert field_key({"a": [1]}, "a") is None
    assert field_key({"a": [{"b": 1}]}, "a.b") is None


def test_an_identifier_may_be_a_document():
    assert identity_key({"x": 1}) == identity_key({"x": 1}) != identity_key({"x": 2})
