"""The task that labels structures, one file a label, so that a killed batch repeats nothing.

Payload: `labeller` (name), `options` (its settings), `frames` (a frame file), `keys` (structures of
that file to label), `labels_dir` (folder of the label files, shared by all batches),
`force_ceiling` (eV/Angstrom, optional), `retries` (structures tried again at a user's word, with
their own options of the labeller, optional). A structure that cannot be labelled is data with a
kind and a bundle that repeats it (`bundle.py`), never an error of the task.
"""

import errno
import json
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase import Atoms

from tace_al.core.errors import (
    DataError,
    LabelFailed,
    LabellerMissing,
    StorageFull,
    StructureError,
    TaceError,
)
from tace_al.core.labels import Label, Setting, label_key
from tace_al.core.thread_cache import cached_in_thread
from tace_al.data.frames import read_frames, structure_key
from tace_al.dispatch.bundle import bundle_folder, write_bundle
from tace_al.dispatch.label_file import (
    CRASH,
    LabelFailure,
    label_path,
    read_label,
    write_label,
)
from tace_al.dispatch.request import Request
from tace_al.engines.labelling.catalogue import labeller_from_name, name_and_options
from tace_al.engines.labelling.guarded import guarded_label
from tace_al.engines.labelling.guards import FORCE_CEILING
from tace_al.engines.labelling.labeller import Labeller

LONGEST_LOG = 20_000  # characters, of the end of a traceback
FUNCTION = "tace_al.dispatch.tasks.label:run"


def label_request(
    labeller: str,
    options: dict[str, Setting],
    *,
    frames: Path,
    keys: Sequence[str],
    labels_dir: Path,
    timeout_s: float | None = None,
) -> Request:
    """Return the request to label some structures of a frame file.

    Parameters
    ----------
    labeller, options
        As in `labeller_from_name`.
    frames, keys
        Frame file, and the keys of its structures to label.
    labels_dir
        Folder of the label files.
    timeout_s
        Limit for the whole batch.
    """
    payload = {
        "labeller": labeller,
        "options": dict(options),
        "frames": str(frames.resolve()),
        "keys": list(keys),
        "labels_dir": str(labels_dir.resolve()),
    }
    return Request.build("label", FUNCTION, payload, timeout_s=timeout_s)


def run(payload: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Label every structure that has no label file yet; return one entry a structure.

    Returns
    -------
    `labels`: a list of `structure`, `label_key`, `label_file`, `ok`, `kind`, `message`, `attempts`,
    `seconds` and `reused`; `fidelity`: key of the level of theory.
    """
    fidelity_key = _labeller(payload, None).fidelity.key
    labels_dir = Path(payload["labels_dir"])
    structures = _structures(Path(payload["frames"]), payload["keys"])
    entries = []
    ceiling = float(payload.get("force_ceiling", FORCE_CEILING))
    for key, atoms in structures.items():
        labeller = _labeller(payload, key)
        path = label_path(labels_dir, label_key(key, fidelity_key))
        reused = kept_outcome(path) is not None
        outcome = stored_label(labeller, atoms, labels_dir=labels_dir, force_ceiling=ceiling)
        entries.append(label_entry(outcome, path) | {"reused": reused})
    return {"labels": entries, "fidelity": fidelity_key}


def stored_label(
    labeller: Labeller, atoms: Atoms, *, labels_dir: Path, force_ceiling: float
) -> Label | LabelFailure:
    """Return the label of a structure from its file; make it, and the file, if there is none.

    A failure leaves a bundle beside the folder of the labels.
    """
    structure, fidelity = structure_key(atoms), labeller.fidelity.key
    path = label_path(labels_dir, label_key(structure, fidelity))
    kept = kept_outcome(path)
    if kept is not None:
        return kept
    outcome = label_or_failure(
        labeller, atoms, structure=structure, fidelity=fidelity, force_ceiling=force_ceiling
    )
    write_label(path, outcome)
    if isinstance(outcome, LabelFailure):
        name, options = name_and_options(labeller)
        write_bundle(
            bundle_folder(labels_dir.parent, outcome.key),
            atoms,
            outcome,
            labeller=name,
            options=options,
            fidelity=labeller.fidelity,
        )
    return outcome


def kept_outcome(path: Path) -> Label | LabelFailure | None:
    """Return what a label file says; None without one, or when a crash may be tried again."""
    if not path.exists():
        return None
    outcome = read_label(path)
    crashed = isinstance(outcome, LabelFailure) and outcome.kind == CRASH
    return None if crashed else outcome


def label_or_failure(
    labeller: Labeller, atoms: Atoms, *, structure: str, fidelity: str, force_ceiling: float
) -> Label | LabelFailure:
    """Return the guarded label of a structure, or why there is none.

    Raises
    ------
    TaceError
        Nothing can be labelled at all: the labeller is missing, an option is wrong, the disk full.
    """
    started, attempts = time.perf_counter(), 1
    try:
        return guarded_label(labeller, atoms, force_ceiling=force_ceiling)
    except LabelFailed as error:
        kind, message, attempts = error.kind, error.message, error.attempts
        log = traceback.format_exc()
    except StructureError as error:
        kind, message, log = "structure", str(error), traceback.format_exc()
    except (TaceError, MemoryError):
        raise
    except ImportError as error:  # every other structure would meet it too
        raise LabellerMissing(
            f"the labeller lacks a package where it runs: {error}; install it and run the same "
            "command again"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                f"the labeller has no room left to write: {error}; free some space and run the "
                "same command again, nothing was lost"
            ) from error
        kind, message, log = CRASH, _raised(error), traceback.format_exc()
    except Exception as error:  # any code may sit behind a labeller; one crash is one failed label
        kind, message, log = CRASH, _raised(error), traceback.format_exc()
    return LabelFailure(
        structure_key=structure,
        fidelity_key=fidelity,
        kind=kind,
        message=message,
        seconds=time.perf_counter() - started,
        attempts=attempts,
        log=log[-LONGEST_LOG:],
    )


def _raised(error: Exception) -> str:
    """Return what a labeller raised, as a sentence."""
    return f"the labeller raised {type(error).__name__}: {error}"


def _labeller(payload: dict[str, Any], key: str | None) -> Labeller:
    """Return the labeller of a batch, with the options a structure is tried again with."""
    options = dict(payload["options"])
    if key is not None:
        options |= payload.get("retries", {}).get(key, {}).get("options", {})
    return cached_labeller(payload["labeller"], json.dumps(options, sort_keys=True))


@cached_in_thread()
def cached_labeller(name: str, options: str) -> Labeller:
    """Return the labeller, built once in a thread: it may hold state that two must not share."""
    return labeller_from_name(name, json.loads(options))


def _structures(path: Path, keys: Sequence[str]) -> dict[str, Atoms]:
    """Return the structures with `keys` of a frame file, in that order."""
    found = {structure_key(atoms): atoms for atoms in read_frames(path)}
    missing = [key for key in keys if key not in found]
    if missing:
        raise DataError(
            f"{path} lacks {len(missing)} of the {len(keys)} structures to label "
            f"(first: {missing[0]}); write the frame file again"
        )
    return {key: found[key] for key in keys}


def label_entry(outcome: Label | LabelFailure, path: Path) -> dict[str, Any]:
    """Return what the task reports of one structure."""
    failed = isinstance(outcome, LabelFailure)
    return {
        "structure": outcome.structure_key,
        "label_key": outcome.key,
        "label_file": str(path),
        "ok": not failed,
        "kind": outcome.kind if isinstance(outcome, LabelFailure) else "",
        "message": outcome.message if isinstance(outcome, LabelFailure) else "",
        "attempts": outcome.attempts if isinstance(outcome, LabelFailure) else 1,
        "seconds": outcome.seconds,
    }
