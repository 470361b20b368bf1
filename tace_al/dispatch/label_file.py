"""One label, or why there is none, as one small file named by the label's key.

A `.npz` without pickles: `meta` (JSON text: keys, energy, seconds, or kind and message of the
failure) and the arrays `forces`, `stress`, `dipole`. Written whole or not at all, at once after the
calculation, so that a killed batch repeats nothing.
"""

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tace_al.core.atomic_write import write_bytes
from tace_al.core.errors import DataError
from tace_al.core.labels import Label, label_key

CRASH = "crash"
"""Kind of a failure that may be the machine's fault: it is never taken for the last word."""
_ARRAYS = ("forces", "stress", "dipole")


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelFailure:
    """A label that could not be made.

    Parameters
    ----------
    structure_key, fidelity_key
        What was asked for.
    kind, message
        As in `LabelFailed`.
    seconds
        Wall time until it failed.
    attempts
        How often it was tried, in how many ways.
    log
        Traceback, with the last lines of the code and what the retries said.
    """

    structure_key: str
    fidelity_key: str
    kind: str
    message: str
    seconds: float = 0.0
    attempts: int = 1
    log: str = ""

    @property
    def key(self) -> str:
        """The key its label would have."""
        return label_key(self.structure_key, self.fidelity_key)


def label_path(labels_dir: Path, key: str) -> Path:
    """Return where the label with `key` lies."""
    return labels_dir / f"{key}.npz"


def write_label(path: Path, outcome: Label | LabelFailure) -> None:
    """Write a label or a failure, whole or not at all.

    Raises
    ------
    StorageFull
        The disk is full.
    """
    meta: dict[str, Any] = {
        "structure_key": outcome.structure_key,
        "fidelity_key": outcome.fidelity_key,
        "seconds": float(outcome.seconds),
    }
    arrays: dict[str, np.ndarray] = {}
    if isinstance(outcome, Label):
        # repr of a float comes back bit for bit
        meta["energy"] = float(outcome.energy)
        for name in _ARRAYS:
            value = getattr(outcome, name)
            if value is not None:
                arrays[name] = np.asarray(value, dtype=np.float64)
    else:
        meta |= {
            "kind": outcome.kind,
            "message": outcome.message,
            "attempts": outcome.attempts,
            "log": outcome.log,
        }
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_bytes(path, buffer.getvalue())


def read_label(path: Path) -> Label | LabelFailure:
    """Read what `write_label` wrote.

    Raises
    ------
    DataError
        The file is missing or is no label file.
    """
    try:
        # From memory: numpy leaves a file that is no archive open.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as content:
            meta = json.loads(content["meta"].tobytes())
            arrays = {name: content[name] for name in _ARRAYS if name in content.files}
        return LabelFailure(**meta) if "kind" in meta else Label(**meta, **arrays)
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} is not a label file ({error}); delete it and run the same command again"
        ) from error
