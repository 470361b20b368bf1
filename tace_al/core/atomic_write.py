"""Write a file whole or not at all: temporary name, fsync, rename.

A process killed at any instant leaves either the old file or the new one, never a torn one. A disk
without room is found before the write where possible and reported as `StorageFull`.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tace_al.core.errors import StorageFull

MINIMUM_FREE_BYTES = 64 * 1024 * 1024


def require_free_space(folder: Path, num_bytes: int = MINIMUM_FREE_BYTES) -> None:
    """Raise `StorageFull` unless the disk that holds `folder` has `num_bytes` free."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < num_bytes:
        raise StorageFull(
            f"{folder} has {free / 1e6:.0f} MB free and {num_bytes / 1e6:.0f} MB are needed; "
            "free some space and run the same command again, nothing was lost"
        )


@contextmanager
def atomic_writer(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that becomes `path` when the block ends without an error.

    Raises
    ------
    StorageFull
        The disk or the quota is full; `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            # a temporary file is private; the finished one gets the usual permissions
            os.fchmod(stream.fileno(), 0o666 & ~_umask())
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                f"no room left to write {path}; free some space and run the same command "
                "again, nothing was lost"
            ) from error
        raise
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    """Return the process's file mode mask (the system tells it only by setting it)."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with atomic_writer(path) as stream:
        stream.write(content)
