"""What the Store knows about a checkpoint without loading it: its digest and its header.

A `.tace` file is a safetensors file: eight bytes with the length of a JSON header, the header, the
weights. Its `__metadata__` holds, as text, what `tace_al.model.checkpoint` wrote.

Source: https://github.com/huggingface/safetensors#format
"""

import hashlib
import json
import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tace_al.core.hashing import KEY_LENGTH

LABEL_KEYS = "label_keys"
_KEY = re.compile(f"[0-9a-f]{{{KEY_LENGTH}}}")
_LONGEST_HEADER = 100_000_000
_BLOCK_BYTES = 1 << 20


def file_digest(path: Path) -> str | None:
    """Return the first 32 hexadecimal digits of a file's SHA-256, None when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
    except OSError:
        return None
    return digest.hexdigest()[:KEY_LENGTH]


def read_metadata(path: Path) -> Mapping[str, Any] | None:
    """Return what a checkpoint says about its training, None when it is no checkpoint."""
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _LONGEST_HEADER:
                return None
            header = json.loads(stream.read(length))
        metadata = json.loads(header["__metadata__"]["tace"])["metadata"]
    except (OSError, struct.error, ValueError, KeyError, TypeError):
        return None
    return metadata if isinstance(metadata, Mapping) else None


def ancestors(path: Path) -> list[dict[str, Any]]:
    """Return what a model that goes on from `path` remembers: that file and those before it.

    Each entry has the file's name, its digest and what its header said, its labels' keys among it,
    nearest first.
    """
    metadata = dict(read_metadata(path) or {})
    earlier = metadata.pop("ancestors", [])
    return [{**metadata, "file": path.name, "digest": file_digest(path)}, *earlier]


def packed_label_keys(keys: Iterable[object]) -> str:
    """Return the keys of the labels that a model is trained on as one text, "" unless all have one.

    `keys` are `info["label_key"]` of the frames, as `tace-al export` writes them; each counts once.
    """
    found = list(dict.fromkeys(str(key) for key in keys))
    whole = all(_KEY.fullmatch(key) for key in found)
    return "".join(found) if whole else ""


def label_keys_in(metadata: Mapping[str, Any]) -> list[str]:
    """Return the label keys in a header."""
    text = metadata.get(LABEL_KEYS)
    text = text if isinstance(text, str) else ""
    keys = [text[start : start + KEY_LENGTH] for start in range(0, len(text), KEY_LENGTH)]
    return keys if all(_KEY.fullmatch(key) for key in keys) else []
