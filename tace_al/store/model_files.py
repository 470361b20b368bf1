"""What the Store knows about a checkpoint without loading it: its digest and its header.

A `.tace` file is a safetensors file: eight bytes with the length of a JSON header, the header, the
weights. Its `__metadata__` holds, as text, what `tace_al.model.checkpoint` wrote.

Source: https://github.com/huggingface/safetensors#format
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tace_al.core.hashing import KEY_LENGTH

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
