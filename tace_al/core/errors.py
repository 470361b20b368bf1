"""Everything the platform raises on purpose.

TaceError
├── ConfigError          an option of a campaign or command is wrong or unknown
├── StructureError       a structure cannot be used as it is (overlap, parity, cell, NaN)
├── DataError            a file of structures or labels cannot be read or lacks a key
├── LabellerError        a label could not be made
│   ├── LabellerMissing  the labeller's package or program is not installed
│   └── LabelFailed      the labeller ran and failed; `kind` says how
├── ModelError           a model cannot be built, loaded or applied
│   ├── CheckpointError  a checkpoint is damaged, hostile or from the future
│   └── TrainingError    training cannot start or has diverged for good
├── SamplerError         a sampler cannot start or go on
├── StoreError           the database refuses or cannot be reached
│   ├── DatabaseUnreachable
│   └── RecordNotFound
├── DispatchError        work cannot be started or its executor has died
└── StorageFull          no room left on a disk; free some and run the same command again

Every message is one sentence on what is wrong and one on what to do.
"""

import difflib
from collections.abc import Iterable


class TaceError(Exception):
    """Base of every error the platform raises on purpose; the command line prints its text."""


class ConfigError(TaceError):
    """An option of a campaign or command is wrong or unknown."""


class StructureError(TaceError):
    """A structure cannot be used as it is."""


class DataError(TaceError):
    """A file of structures or labels cannot be read or lacks a key."""


class LabellerError(TaceError):
    """A label could not be made."""


class LabellerMissing(LabellerError):
    """The labeller's package or program is not installed."""


class LabelFailed(LabellerError):
    """The labeller ran and failed.

    Parameters
    ----------
    kind
        Machine-readable reason: "parity", "contact", "convergence", "nonfinite", "force_ceiling",
        "geometry", "outlier", "crash", "cell", "elements", "charge", "empty", "shape".
    message
        One sentence on what is wrong and what to do.
    attempts
        How often it was tried, in how many ways.
    """

    def __init__(self, kind: str, message: str, attempts: int = 1) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.attempts = attempts

    def __reduce__(self) -> tuple[type["LabelFailed"], tuple[str, str, int]]:
        """Pickle with all arguments, so that the error survives a process border."""
        return (LabelFailed, (self.kind, self.message, self.attempts))


class ModelError(TaceError):
    """A model cannot be built, loaded or applied."""


class CheckpointError(ModelError):
    """A checkpoint is damaged, hostile or written by a later version."""


class TrainingError(ModelError):
    """Training cannot start, or has diverged for good."""


class SamplerError(TaceError):
    """A sampler cannot start or go on."""


class StoreError(TaceError):
    """The database refuses a request."""


class DatabaseUnreachable(StoreError):
    """No database answers at the given address."""


class RecordNotFound(StoreError):
    """No record has the given identifier."""


class DispatchError(TaceError):
    """Work cannot be started, or the executor that ran it has died."""


class StorageFull(TaceError):
    """No room is left on a disk."""


def nearest_names(name: str, valid: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the closest valid name, or the list of valid names.

    >>> nearest_names("temprature", ["temperature", "timestep"])
    " Did you mean 'temperature'?"
    """
    valid = sorted(valid)
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" Valid names: {', '.join(valid)}." if valid else ""
