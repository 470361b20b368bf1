"""Where results lie on disk and how they get there whole.

    results/<kind>/<key[:2]>/<key>/            files of a finished task and its result.json
    results/<kind>/<key[:2]>/.scratch-...      files of a running task
    results/failed/<kind>/<key>/               files of the last failure and its result.json

A task works in a scratch folder on the same file system, which is renamed to its final name when
the task is done: a final folder is always complete, whoever was killed and when. When two workers
finish the same task, the first rename wins and both return its result.
"""

import json
import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tace_al.core.atomic_write import write_bytes
from tace_al.core.errors import DataError
from tace_al.dispatch.request import Envelope

RESULT_FILE = "result.json"
_SCRATCH_PREFIX = ".scratch-"


def result_folder(results_dir: Path, kind: str, key: str) -> Path:
    """Return the final folder of a task."""
    return results_dir / kind / key[:2] / key


def failed_folder(results_dir: Path, kind: str, key: str) -> Path:
    """Return the folder that keeps a task's last failure for inspection."""
    return results_dir / "failed" / kind / key


def read_result(results_dir: Path, kind: str, key: str) -> Envelope | None:
    """Return the finished result of a task, or None where there is none."""
    envelope = _read_envelope(result_folder(results_dir, kind, key))
    return None if envelope is None else replace(envelope, reused=True)


def read_failure(results_dir: Path, kind: str, key: str) -> Envelope | None:
    """Return the last failure of a task, or None where there is none."""
    return _read_envelope(failed_folder(results_dir, kind, key))


def _read_envelope(folder: Path) -> Envelope | None:
    try:
        content = json.loads((folder / RESULT_FILE).read_bytes())
        envelope = Envelope.from_dict(content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{folder / RESULT_FILE} cannot be read ({error}); "
            "delete its folder and run the same command again"
        ) from error
    # A campaign's folder may have been moved since the result was written.
    return replace(envelope, folder=str(folder))


def make_scratch(results_dir: Path, kind: str, key: str) -> Path:
    """Return a new empty folder beside the final one."""
    parent = result_folder(results_dir, kind, key).parent
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=parent, prefix=f"{_SCRATCH_PREFIX}{key[:12]}-"))


def commit_result(results_dir: Path, scratch: Path, envelope: Envelope) -> Envelope:
    """Rename a scratch folder to its final name; return what then lies there.

    Parameters
    ----------
    results_dir, scratch
        Root of the results, and the folder with the task's files.
    envelope
        A successful envelope; its `folder` is filled in.
    """
    final = result_folder(results_dir, envelope.kind, envelope.key)
    envelope = replace(envelope, folder=str(final))
    _write_envelope(scratch, envelope)
    try:
        scratch.replace(final)
    except OSError:
        earlier = read_result(results_dir, envelope.kind, envelope.key)
        if earlier is None:
            raise
        shutil.rmtree(scratch, ignore_errors=True)
        return earlier
    _sync_folder(final.parent)
    return envelope


def keep_failure(results_dir: Path, scratch: Path | None, envelope: Envelope) -> Envelope:
    """Keep the files of a failed task for inspection, in place of its previous failure.

    A disk that has no room for them is no further error: the envelope itself says what happened.
    """
    bundle = failed_folder(results_dir, envelope.kind, envelope.key)
    envelope = replace(envelope, folder=str(bundle))
    try:
        bundle.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(bundle, ignore_errors=True)
        if scratch is None:
            bundle.mkdir(exist_ok=True)
        else:
            scratch.replace(bundle)
        _write_envelope(bundle, envelope)
    except Exception:  # full disk, lost race, unwritable folder: the envelope still travels
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        return replace(envelope, folder="")
    return envelope


def has_started(results_dir: Path, kind: str, key: str, since: float) -> bool:
    """Return True when a worker has begun, or finished, a task after the Unix time `since`."""
    final = result_folder(results_dir, kind, key)
    traces = [final, *final.parent.glob(f"{_SCRATCH_PREFIX}{key[:12]}-*")]
    for trace in traces:
        try:
            if trace.stat().st_mtime >= since:
                return True
        except FileNotFoundError:
            continue
    return False


def sweep_scratch(results_dir: Path, older_than_s: float) -> int:
    """Delete the scratch folders of workers that were killed; return how many.

    Parameters
    ----------
    results_dir
        Root of the results.
    older_than_s
        Seconds since a folder's last change; 0 when no worker of the campaign can be alive.
    """
    swept = 0
    for scratch in results_dir.glob(f"*/*/{_SCRATCH_PREFIX}*"):
        try:
            age = time.time() - scratch.stat().st_mtime
        except FileNotFoundError:
            continue
        if age >= older_than_s:
            shutil.rmtree(scratch, ignore_errors=True)
            swept += 1
    return swept


def plain(result: Any) -> dict[str, Any]:
    """Return a task's result as it comes back from JSON.

    Raises
    ------
    TypeError
        The result is no dict of plain values.
    """
    if not isinstance(result, dict):
        raise TypeError(f"a task returned {type(result).__name__}, expected a dict of plain values")
    content: dict[str, Any] = json.loads(json.dumps(result))
    return content


def _write_envelope(folder: Path, envelope: Envelope) -> None:
    write_bytes(folder / RESULT_FILE, json.dumps(envelope.to_dict(), indent=1).encode())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
