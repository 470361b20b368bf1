"""`tace-al label`: energies and forces of the structures in a file."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tace_al.core.errors import DataError, LabellerError

if TYPE_CHECKING:
    from ase import Atoms

    from tace_al.core.labels import Label
    from tace_al.dispatch.label_file import LabelFailure
    from tace_al.engines.labelling.labeller import Labeller

MAX_SHOWN = 10
SAVE_SECONDS = 10.0
"""Labels that are this old are written, so that no more are lost with a process that is killed."""
LABELLERS = "gfn1, gfn2, emt, gpaw, pyscf, hf, mp2, or package.module:Calculator."


def label(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Structures: anything ASE reads, compressed too.")
    ],
    labeller: Annotated[str, typer.Option("--labeller", metavar="NAME", help=LABELLERS)],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Labelled structures, extended XYZ.")
    ],
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="KEY=VALUE",
            help="Option of the labeller. Repeat; of one name the last counts.",
        ),
    ] = None,
    index: Annotated[
        str, typer.Option("--index", metavar="SLICE", help="Which structures: -1, ::10, ...")
    ] = ":",
    charge: Annotated[
        int | None, typer.Option("--charge", help="Total charge in e; default: the file's, or 0.")
    ] = None,
    multiplicity: Annotated[
        int | None,
        typer.Option(
            "--multiplicity", min=1, help="2S + 1; default: the file's, or the lowest that fits."
        ),
    ] = None,
) -> None:
    """Label structures: total energy (eV), forces (eV/Å), stress (eV/Å³) where there is a cell.

    A structure that fails is named and left out, and FILE.log says more; the others are written.

    Example: [bold]tace-al label water.xyz --labeller gfn2 --out labelled.xyz[/bold]
    """
    from rich.console import Console

    from tace_al.cli.workflow_file import parse_settings
    from tace_al.core.atomic_write import require_free_space
    from tace_al.data.extxyz import write_structures
    from tace_al.engines.labelling.catalogue import labeller_from_name

    if out.is_dir():
        raise DataError(f"{out} is a folder; name a file to write, such as {out / 'labelled.xyz'}")
    require_free_space(out.absolute().parent)
    chosen = {}
    for option in options or []:  # one by one: `rerun.sh` is overruled by what follows it
        for key, text in parse_settings([option], "--option").items():
            chosen[key] = setting(text)
    engine = labeller_from_name(labeller, chosen)
    frames = frames_to_label(file, index, charge=charge, multiplicity=multiplicity)
    labelled: list[Atoms] = []
    failed: list[tuple[int, LabelFailure]] = []

    def save() -> None:
        if labelled:
            write_structures(out, labelled)

    try:
        _label_all(engine, frames, labelled, failed, save)
    finally:  # also after Ctrl-C: labels that were paid for are kept
        save()
        log = _log_written(out, failed)
    if failed:
        sentences = [
            f"structure {number} ({failure.kind}): {failure.message}" for number, failure in failed
        ]
        text = failure_text(sentences, num_frames=len(frames), out=out)
        raise LabellerError(f"{text}\nTracebacks and the code's last lines: {log}")
    Console().print(f"{len(labelled)} labels by {engine.fidelity.name} in {out}", highlight=False)


def frames_to_label(
    file: Path, index: str, *, charge: int | None, multiplicity: int | None
) -> "list[Atoms]":
    """Return the structures of a file with the charge and multiplicity that were asked for."""
    from tace_al.data.extxyz import read_structures
    from tace_al.data.frames import CHARGE, MULTIPLICITY

    frames = read_structures(file, index)
    for atoms in frames:
        if charge is not None:
            atoms.info[CHARGE] = charge
        if multiplicity is not None:
            atoms.info[MULTIPLICITY] = multiplicity
    return frames


def failure_text(failed: Sequence[str], *, num_frames: int, out: Path) -> str:
    """Return what failed: one sentence for one structure, a list for several."""
    done = num_frames - len(failed)
    kept = f" The other {done} labels are in {out}." if done else ""
    if len(failed) == 1:
        return failed[0] + "." * (not failed[0].endswith(".")) + kept
    listed = "".join(f"\n  {message}" for message in failed[:MAX_SHOWN])
    more = f"\n  and {len(failed) - MAX_SHOWN} more" if len(failed) > MAX_SHOWN else ""
    return (
        f"{len(failed)} of {num_frames} structures could not be labelled; correct or remove them."
        f"{kept}{listed}{more}"
    )


def _label_all(
    engine: "Labeller",
    frames: "Sequence[Atoms]",
    labelled: "list[Atoms]",
    failed: "list[tuple[int, LabelFailure]]",
    save: Callable[[], None],
) -> None:
    """Label every frame, appending to `labelled` and `failed`; call `save` now and then."""
    from rich.console import Console
    from rich.progress import Progress

    from tace_al.data.frames import structure_key
    from tace_al.dispatch.label_file import LabelFailure
    from tace_al.dispatch.tasks.label import label_or_failure
    from tace_al.engines.labelling.guards import FORCE_CEILING

    console = Console(stderr=True)
    saved, fidelity = time.monotonic(), engine.fidelity
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        for number in progress.track(range(len(frames)), description="labelling"):
            outcome = label_or_failure(
                engine,
                frames[number],
                structure=structure_key(frames[number]),
                fidelity=fidelity.key,
                force_ceiling=FORCE_CEILING,
            )
            if isinstance(outcome, LabelFailure):
                failed.append((number, outcome))
            else:
                labelled.append(labelled_copy(frames[number], outcome, fidelity.name))
            if time.monotonic() - saved > SAVE_SECONDS:
                save()
                saved = time.monotonic()


def _log_written(out: Path, failed: "Sequence[tuple[int, LabelFailure]]") -> Path:
    """Write what is known of every failure beside `out`; return the file's path."""
    from tace_al.core.atomic_write import write_bytes

    path = out.with_name(f"{out.name}.log")
    if failed:
        entries = [f"structure {number} ({one.kind})\n{one.log}" for number, one in failed]
        write_bytes(path, "\n\n".join(entries).encode() + b"\n")
    return path


def labelled_copy(atoms: "Atoms", found: "Label", fidelity: str) -> "Atoms":
    """Return the structure with its label under the `REF_*` keys."""
    from tace_al.data.extxyz import ENERGY, FORCES, STRESS
    from tace_al.data.frames import bare_copy

    copy = bare_copy(atoms)
    copy.info[ENERGY] = found.energy
    copy.info["fidelity"] = fidelity
    copy.set_array(FORCES, found.forces)
    if found.stress is not None:
        copy.info[STRESS] = found.stress
    if found.dipole is not None:
        copy.info["REF_dipole"] = found.dipole
    return copy


def setting(text: str) -> bool | int | float | str:
    """Return an option's value: true, false, a number, or the text itself.

    >>> setting("true"), setting("3"), setting("0.5"), setting("pbe")
    (True, 3, 0.5, 'pbe')
    """
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
