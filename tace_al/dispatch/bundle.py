"""A failed label as a folder that repeats it by hand: `sh rerun.sh`.

    failed_labels/<label key>/
        structure.xyz     the structure, with charge and multiplicity
        labeller.json     name and options of the labeller, and its whole fidelity
        failure.json      kind, message, attempts, keys
        log.txt           traceback, the last lines of the code, what the retries said
        rerun.sh          the command that labels it again; further options are passed on

Written by the worker that failed, or by the campaign for a worker that died. A bundle that has no
room on the disk is no further error: the Store has kind and message.
"""

import json
import logging
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from ase import Atoms

from tace_al.core.atomic_write import write_bytes
from tace_al.core.errors import StorageFull
from tace_al.core.labels import Fidelity, Setting
from tace_al.data.extxyz import write_structures
from tace_al.data.frames import bare_copy
from tace_al.dispatch.label_file import LabelFailure

logger = logging.getLogger(__name__)

BUNDLES = "failed_labels"


def bundle_folder(directory: Path, label_key: str) -> Path:
    """Return where the bundle of a failed label lies in a campaign's folder."""
    return directory / BUNDLES / label_key


def write_bundle(
    folder: Path,
    atoms: Atoms,
    failure: LabelFailure,
    *,
    labeller: str,
    options: Mapping[str, Setting],
    fidelity: Fidelity,
) -> None:
    """Write the bundle of a failed label, in place of one of an earlier attempt.

    Parameters
    ----------
    folder
        See `bundle_folder`.
    atoms, failure
        What was tried and what came of it.
    labeller, options, fidelity
        As in `labeller_from_name`, and the level of theory they mean.
    """
    theory = {"name": fidelity.name, "code": fidelity.code, "settings": dict(fidelity.settings)}
    documents = {
        "labeller.json": {"labeller": labeller, "options": dict(options), "fidelity": theory},
        "failure.json": {
            "kind": failure.kind,
            "message": failure.message,
            "attempts": failure.attempts,
            "seconds": failure.seconds,
            "structure_key": failure.structure_key,
            "label_key": failure.key,
        },
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_structures(folder / "structure.xyz", [bare_copy(atoms)])
        for name, content in documents.items():
            write_bytes(folder / name, (json.dumps(content, indent=1) + "\n").encode())
        write_bytes(folder / "log.txt", (failure.log or failure.message).encode() + b"\n")
        script = rerun_script(failure, labeller=labeller, options=options)
        write_bytes(folder / "rerun.sh", script.encode())
    except (OSError, StorageFull) as error:
        logger.warning("no bundle of a failed label in %s: %s", folder, error)


def rerun_script(failure: LabelFailure, *, labeller: str, options: Mapping[str, Setting]) -> str:
    """Return a shell script that labels `structure.xyz` beside it as the campaign did."""
    words = ["tace-al", "label", "structure.xyz", "--labeller", labeller]
    for name, value in options.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        words += ["--option", f"{name}={text}"]
    words += ["--out", "labelled.xyz"]
    said = failure.message.replace("\n", " ")
    return (
        "#!/bin/sh\n"
        f"# failed after {failure.attempts} attempts ({failure.kind}): {said}\n"
        "# More options change how: sh rerun.sh --option max_iterations=500\n"
        f"PATH=$PATH:{shlex.quote(str(Path(sys.executable).parent))}\n"
        'cd "$(dirname "$0")" || exit 1\n'
        f'exec {shlex.join(words)} "$@"\n'
    )
