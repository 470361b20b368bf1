"""What travels between the campaign and a worker: a `Request` there, an `Envelope` back.

Both are frozen and made of builtins, so that nothing that crosses the border can fail to unpickle.
A request's key is the hash of what it asks for: the same question always has the same key, and its
answer, once on disk, is never computed again. Arrays travel as files, named by their paths; those
in the campaign's folder are named from there, so that keys stay right when the folder moves.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from tace_al.core.errors import DispatchError
from tace_al.core.hashing import content_hash

FUNCTION_PREFIX = "tace_al."
IN_CAMPAIGN = "campaign:"
"""Begins the name of a file in the campaign's folder, wherever that is."""


def portable(value: Any, directory: Path) -> Any:
    """Return a payload whose `Path`s are text, those in `directory` named from there.

    >>> portable({"models": [Path("/c/results/m.tace")], "start": None}, Path("/c"))
    {'models': ['campaign:results/m.tace'], 'start': None}
    """
    match value:
        case Path():
            inside = value.is_relative_to(directory)
            return IN_CAMPAIGN + str(value.relative_to(directory)) if inside else str(value)
        case Mapping():
            return {name: portable(part, directory) for name, part in value.items()}
        case list() | tuple():
            return [portable(part, directory) for part in value]
        case _:
            return value


def placed(value: Any, directory: Path) -> Any:
    """Return a portable payload with full paths, as the functions of tasks get it.

    >>> placed({"models": ["campaign:results/m.tace"], "start": None}, Path("/c"))
    {'models': ['/c/results/m.tace'], 'start': None}
    """
    match value:
        case str() if value.startswith(IN_CAMPAIGN):
            return str(directory / value.removeprefix(IN_CAMPAIGN))
        case Mapping():
            return {name: placed(part, directory) for name, part in value.items()}
        case list() | tuple():
            return [placed(part, directory) for part in value]
        case _:
            return value


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One task to be run by a worker.

    Parameters
    ----------
    kind
        Name of the task: "label", "train", ...; a folder name below the results.
    function
        "module:function" inside tace_al, called as `function(payload, folder) -> plain dict`.
    key
        Content hash of kind, function and payload; use `Request.build`.
    payload
        Plain values and paths, anything JSON holds.
    timeout_s
        Wall time after which the worker that runs it is killed; not part of the key.
    """

    kind: str
    function: str
    key: str
    payload: Mapping[str, Any]
    timeout_s: float | None = None

    @classmethod
    def build(
        cls,
        kind: str,
        function: str,
        payload: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
    ) -> Self:
        """Return a request with its key.

        Raises
        ------
        DispatchError
            The function lies outside tace_al, or the payload is not plain.
        """
        module, _, name = function.partition(":")
        if not (module.startswith(FUNCTION_PREFIX) and name.isidentifier()):
            raise DispatchError(
                f"a worker cannot run {function!r}; "
                "name a function of the package as 'tace_al.module:function'"
            )
        if not kind.replace("_", "").isalnum():
            raise DispatchError(f"a task cannot be of kind {kind!r}; use letters and digits")
        try:
            # builtins only: a subclass of dict or list may not unpickle on the other side
            payload = json.loads(json.dumps(dict(payload), allow_nan=False))
            key = content_hash([kind, function, payload])
        except (TypeError, ValueError) as error:
            raise DispatchError(
                f"the payload of a {kind!r} task is not plain ({error}); "
                "pass numbers, strings, lists and dicts, and arrays as files"
            ) from error
        return cls(kind=kind, function=function, key=key, payload=payload, timeout_s=timeout_s)

    def to_dict(self) -> dict[str, Any]:
        """Return the request as a dict of builtins."""
        return asdict(self) | {"payload": dict(self.payload)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Envelope:
    """What came of one request.

    Parameters
    ----------
    ok
        True when the function returned; then `result` is its plain dict.
    folder
        Folder with the files the function wrote (of a failed task: its scratch files).
    error_kind, error_message, traceback
        Class of the error ("WorkerDied" when the worker kept dying, "TimedOut" past the deadline),
        its text, and where it was raised; empty when ok.
    worker
        "host:pid" of the process that did it.
    started, ended
        Unix times in seconds.
    reused
        True when the result was found on disk.
    """

    key: str
    kind: str
    ok: bool
    result: dict[str, Any] | None
    folder: str
    error_kind: str = ""
    error_message: str = ""
    traceback: str = ""
    worker: str = ""
    started: float = 0.0
    ended: float = 0.0
    reused: bool = False

    @property
    def seconds(self) -> float:
        """Wall time of the task."""
        return self.ended - self.started

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Return the envelope that `to_dict` gave."""
        return cls(**content)

    def to_dict(self) -> dict[str, Any]:
        """Return the envelope as a dict of builtins."""
        return asdict(self)
