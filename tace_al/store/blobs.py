"""Big values beside a record: packed arrays, in the document up to 1 MB, in GridFS above.

Arrays are packed as compressed npz; no pickle is written or read.
"""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from bson import ObjectId
from gridfs import GridFS

from tace_al.core.errors import StoreError
from tace_al.store.connection import Connection

MAX_INLINE_BYTES = 1_000_000

Values = Mapping[str, "np.ndarray | float | None"]


def pack_arrays(values: Values) -> bytes:
    """Return named arrays and numbers as one npz; None entries are left out."""
    arrays = {name: np.asarray(value) for name, value in values.items() if value is not None}
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise StoreError(f"array {name!r} has type {array.dtype}; pass numbers only")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack_arrays(content: bytes) -> dict[str, Any]:
    """Return what `pack_arrays` packed; numbers come back as floats."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {
            name: float(arrays[name]) if arrays[name].ndim == 0 else arrays[name]
            for name in arrays.files
        }


def blob_fields(connection: Connection, name: str, content: bytes | None) -> dict[str, Any]:
    """Return the record fields that hold `content`: `name` itself or `name_file` in GridFS."""
    if content is None:
        return {}
    if len(content) <= MAX_INLINE_BYTES:
        return {name: content}
    return {f"{name}_file": GridFS(connection.documents).put(content)}


def read_blob(connection: Connection, content: bytes | None, file: ObjectId | None) -> bytes | None:
    """Return a blob from its record's two fields, None when it has none."""
    if file is not None:
        return bytes(GridFS(connection.documents).get(file).read())
    return None if content is None else bytes(content)


def discard_blob(connection: Connection, fields: Mapping[str, Any]) -> None:
    """Delete the GridFS files among the fields of a record that was not stored."""
    for name, value in fields.items():
        if name.endswith("_file") and value is not None:
            GridFS(connection.documents).delete(value)
