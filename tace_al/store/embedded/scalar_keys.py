"""One hashable, ordered key for each plain BSON value.

A key is `(rank, value)`: the rank is the value's place in MongoDB's order of types, so keys can be
compared with `<` across types and hashed, and `1`, `1.0` and a 64-bit 1 share a key while `True`
does not. Documents, arrays and exotic types have no key; an index keeps them aside and the query
tests them one by one.

Source: https://www.mongodb.com/docs/manual/reference/bson-type-comparison-order/
"""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import bson
from bson import ObjectId

from tace_al.store.embedded.wire import CODEC

ScalarKey = tuple[int, Any]

NULL_KEY: ScalarKey = (5, 0)
_NAN_KEY: ScalarKey = (9, 0)  # MongoDB sorts NaN below every other number


def scalar_key(value: Any) -> ScalarKey | None:
    """Return the key of a plain value, None for documents, arrays and exotic types.

    >>> scalar_key(1) == scalar_key(1.0), scalar_key(1) == scalar_key(True)
    (True, False)
    """
    if value is None:
        return NULL_KEY
    if isinstance(value, str):
        return (15, value)
    if isinstance(value, bool):
        return (40, value)
    if isinstance(value, int):
        return (10, value)
    if isinstance(value, float):
        return _NAN_KEY if math.isnan(value) else (10, value)
    if isinstance(value, ObjectId):
        return (35, value)
    if isinstance(value, bytes):
        return (30, value)
    if isinstance(value, datetime):
        return (45, value)
    return None


def field_key(document: Mapping[str, Any], path: str) -> ScalarKey | None:
    """Return the key of the value at a dotted path; a missing value counts as null.

    None means that the path meets an array, a document or an exotic type.
    """
    value: Any = document
    for name in path.split("."):
        if not isinstance(value, Mapping):
            return NULL_KEY if not isinstance(value, list) else None
        if name not in value:
            return NULL_KEY
        value = value[name]
    return scalar_key(value)


def has_field(document: Mapping[str, Any], path: str) -> bool:
    """Tell whether a document has anything at a dotted path (arrays are not searched)."""
    value: Any = document
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return False
        value = value[name]
    return True


def identity_key(identifier: Any) -> ScalarKey:
    """Return the key of an `_id`, which may also be a document."""
    key = scalar_key(identifier)
    if key is not None:
        return key
    return (20, bson.encode({"": identifier}, codec_options=CODEC))
