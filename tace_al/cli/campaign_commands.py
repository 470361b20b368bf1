"""`tace-al status`, `report`, `lineage`, `export`: what a campaign knows, also while it runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tace_al.cli.options import CampaignFolder, Database
from tace_al.core.errors import DataError

if TYPE_CHECKING:
    from tace_al.store.store import Store


def open_campaign(directory: Path, database: str | None) -> "Store":
    """Open the Store of a campaign that exists."""
    from tace_al.store.store import Store

    return Store.open(directory, uri=database, create=False)


def status(directory: CampaignFolder, database: Database = None) -> None:
    """Show where a campaign stands: generations, labels, queue, coverage, errors, rates.

    Example: [bold]tace-al status runs/catalysis[/bold]
    """
    from rich.console import Console

    from tace_al.report.summary import read_summary
    from tace_al.report.tables import status_tables

    with open_campaign(directory, database) as store:
        summary = read_summary(store)
    Console().print(status_tables(summary))


def report(
    directory: CampaignFolder,
    database: Database = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Default: DIR/report.")
    ] = None,
) -> None:
    """Write a Markdown report with figures: profiles, learning curve, calibration, workers.

    Example: [bold]tace-al report runs/catalysis[/bold]
    """
    from rich.console import Console

    from tace_al.report.report import write_report

    folder = out if out is not None else directory / "report"
    if folder.is_file():
        raise DataError(f"{folder} is a file; name a folder for the report")
    with open_campaign(directory, database) as store:
        path = write_report(store, folder)
    Console().print(f"report in {path}", highlight=False, soft_wrap=True)


def export(
    directory: CampaignFolder,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Extended XYZ; .xz, .gz or .bz2 compresses it.")
    ],
    fidelity: Annotated[
        list[str] | None,
        typer.Option(
            "--fidelity",
            metavar="NAME",
            help="Level of theory; default: the only one. Repeat for several, told apart by head=.",
        ),
    ] = None,
    channel: Annotated[
        str | None, typer.Option("--channel", metavar="NAME", help="Only this reaction channel.")
    ] = None,
    generation: Annotated[
        int | None, typer.Option("--generation", help="Only what this generation asked for.")
    ] = None,
    role: Annotated[
        str | None, typer.Option("--role", help="Only labels used for: train or calibration.")
    ] = None,
    state: Annotated[
        str,
        typer.Option(
            "--state", help="Frames in another state, without labels: flagged, failed, rejected..."
        ),
    ] = "labelled",
    database: Database = None,
) -> None:
    """Write labelled structures with REF_energy (eV), REF_forces (eV/Å) and their provenance.

    The file can be trained on as it is, and what is trained can be traced back here.
    Example: [bold]tace-al export runs/catalysis labels.xyz.xz --channel bare[/bold]
    """
    from rich.console import Console

    from tace_al.data.extxyz import check_file_name, write_structures
    from tace_al.store.export import Selection, exported_frames

    check_file_name(out)
    selection = Selection(
        fidelities=tuple(fidelity or ()),
        channel=channel,
        generation=generation,
        role=role,
        state=state,
    )
    with open_campaign(directory, database) as store:
        frames = exported_frames(store, selection)
    write_structures(out, frames)
    Console().print(f"{len(frames)} {state} structures in {out}", highlight=False, soft_wrap=True)


def lineage(
    directory: CampaignFolder,
    identifier: Annotated[
        str,
        typer.Argument(
            metavar="KEY",
            help="First digits of the key of a model, structure or label, or a .tace file.",
        ),
    ],
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--file",
            metavar="FILE",
            help="With a structure: tell whether this file of tace-al train saw it. Repeat.",
        ),
    ] = None,
    database: Database = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """Trace a model to its parents, settings and labels, or a structure to the models that saw it.

    A file that `tace-al train --start` made leads back to the campaign's models.
    Example: [bold]tace-al lineage runs/catalysis 3fa8c1[/bold]
    """
    from rich.console import Console

    from tace_al.report.lineage_tables import lineage_json, lineage_tables

    path = Path(identifier)
    is_file = path.suffix == ".tace" or path.is_file()
    if is_file and files:
        raise DataError("--file goes with the key of a structure or label, not with another file")
    with open_campaign(directory, database) as store:
        found = (
            store.lineage_of_file(path)
            if is_file
            else store.lineage(identifier.lower(), files=files or ())
        )
    if as_json:
        typer.echo(lineage_json(found))
    else:
        Console().print(lineage_tables(found))
