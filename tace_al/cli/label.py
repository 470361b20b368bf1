"""`tace-al label`: energies and forces of the structures in a file."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tace_al.core.errors import LabellerError
from tace_al.core.labels import Label

if TYPE_CHECKING:
    from ase import Atoms

    from tace_al.core.labels import Setting
    from tace_al.dispatch.label_file import LabelFailure
    from tace_al.engines.labelling.labeller import Labeller

MAX_SHOWN = 10
SAVE_SECONDS = 10.0
"""Labels that are this old are written, so that no more are lost with a process that is killed."""
LABELLERS = "gfn1, gfn2, emt, gpaw, dft or pyscf, hf, mp2, or package.module:Calculator."


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

    from tace_al.core.atomic_write import require_free_space
    from tace_al.data.extxyz import check_file_name
    from tace_al.engines.labelling.catalogue import labeller_from_name

    check_file_name(out)
    require_free_space(out.absolute().parent)
    engine = labeller_from_name(labeller, labeller_options(options or []))
    frames = frames_to_label(file, index, charge=charge, multiplicity=multiplicity)
    failed = labelled_file(engine, frames, out)
    if failed:
        text = failure_text(failed, num_frames=len(frames), out=out)
        raise LabellerError(f"{text}\nTracebacks and the code's last lines: {log_path(out)}")
    Console().print(f"{len(frames)} labels by {engine.fidelity.name} in {out}", highlight=False)


def labeller_options(texts: Sequence[str]) -> "dict[str, Setting]":
    """Return the options of a labeller from key=value texts; of one name the last counts.

    `rerun.sh` of a failed label is so overruled by what follows it.
    """
    from tace_al.cli.workflow_file import parse_settings

    parsed = [parse_settings([text], "--option") for text in texts]
    return {key: setting(text) for one in parsed for key, text in one.items()}


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


def labelled_file(engine: "Labeller", frames: "Sequence[Atoms]", out: Path) -> list[str]:
    """Label every frame into `out`, now and then and at the end; return what failed, and why.

    Also after Ctrl-C the labels that were paid for are in the file, and beside it a log of what
    failed (`log_path`).
    """
    from rich.console import Console
    from rich.progress import Progress

    from tace_al.core.atomic_write import write_bytes
    from tace_al.data.extxyz import write_structures

    console = Console(stderr=True)
    labelled: list[Atoms] = []
    failed, logs, saved = list[str](), list[str](), time.monotonic()
    try:
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            for number in progress.track(range(len(frames)), description="labelling"):
                outcome = _outcome(engine, frames[number])
                if isinstance(outcome, Label):
                    labelled.append(labelled_copy(frames[number], outcome, engine.fidelity.name))
                else:
                    title = f"structure {number} ({outcome.kind})"
                    failed.append(f"{title}: {outcome.message}")
                    logs.append(f"{title}\n{outcome.log}\n")
                if labelled and time.monotonic() - saved > SAVE_SECONDS:
                    write_structures(out, labelled)
                    saved = time.monotonic()
    finally:
        if labelled:
            write_structures(out, labelled)
        if logs:
            write_bytes(log_path(out), "\n".join(logs).encode())
    return failed


def log_path(out: Path) -> Path:
    """Return where the log of failed labels lies, beside the file of the others."""
    return out.with_name(f"{out.name}.log")


def _outcome(engine: "Labeller", atoms: "Atoms") -> "Label | LabelFailure":
    """Return the guarded label of a structure, or why there is none."""
    from tace_al.data.frames import structure_key
    from tace_al.dispatch.tasks.label import label_or_failure
    from tace_al.engines.labelling.guards import FORCE_CEILING

    return label_or_failure(
        engine,
        atoms,
        structure=structure_key(atoms),
        fidelity=engine.fidelity.key,
        force_ceiling=FORCE_CEILING,
    )


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
