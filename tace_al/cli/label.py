"""`tace-al label`: energies and forces of the structures in a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tace_al.core.errors import DataError, LabelFailed, LabellerError

if TYPE_CHECKING:
    from ase import Atoms

    from tace_al.core.labels import Label
    from tace_al.engines.labelling.labeller import Labeller

MAX_SHOWN = 10
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
        typer.Option("--option", metavar="KEY=VALUE", help="Option of the labeller. Repeat."),
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

    A structure that fails is named and left out; the others are written.

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
    chosen = {key: setting(text) for key, text in parse_settings(options or [], "--option").items()}
    engine = labeller_from_name(labeller, chosen)
    frames = frames_to_label(file, index, charge=charge, multiplicity=multiplicity)
    labelled: list[Atoms] = []
    failed: list[str] = []
    try:
        _label_all(engine, frames, labelled, failed)
    finally:  # also after Ctrl-C: labels that were paid for are kept
        if labelled:
            write_structures(out, labelled)
    if failed:
        raise LabellerError(failure_text(failed, num_frames=len(frames), out=out))
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
    engine: "Labeller", frames: "Sequence[Atoms]", labelled: "list[Atoms]", failed: list[str]
) -> None:
    """Label every frame, appending to `labelled` and the failures' sentences to `failed`."""
    from rich.console import Console
    from rich.progress import Progress

    from tace_al.engines.labelling.guarded import guarded_label

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        for number in progress.track(range(len(frames)), description="labelling"):
            try:
                found = guarded_label(engine, frames[number])
            except LabelFailed as error:
                failed.append(f"structure {number} ({error.kind}): {error.message}")
            else:
                labelled.append(labelled_copy(frames[number], found, engine.fidelity.name))


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
