"""`tace-al db check|backup|restore`: is the database sound, and a copy of it in one file."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tace_al.cli.campaign_commands import open_campaign
from tace_al.cli.options import CampaignFolder, Database
from tace_al.core.errors import StoreError

if TYPE_CHECKING:
    from rich.table import Table

    from tace_al.core.labels import Label
    from tace_al.store.integrity import Finding
    from tace_al.store.store import Store

SHOWN_OF_A_KIND = 10

db = typer.Typer(
    name="db",
    help="Check, back up and restore a campaign's database.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@db.command()
def check(
    directory: CampaignFolder,
    database: Database = None,
    mend: Annotated[
        bool,
        typer.Option("--repair", help="Mend from label files, and queue stuck candidates again."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Every finding, as JSON.")] = False,
) -> None:
    """Recompute every key, follow every reference, compare with label and model files.

    Example: [bold]tace-al db check runs/catalysis --repair[/bold]
    """
    from rich.console import Console

    from tace_al.store.integrity_files import is_running
    from tace_al.store.repair import repair

    console = Console()
    with open_campaign(directory, database) as store:
        running = is_running(store.directory)
        if mend and running:
            raise StoreError(
                f"a campaign runs in {directory}; stop it before a repair (a check may go on)"
            )
        findings = all_findings(store, running=running)
        mended: list[Finding] = []
        if mend:
            mended = repair(store, findings, read_label=label_in_file, write_label=write_label_file)
        if mended:
            findings = all_findings(store, running=running)
        counts = store.counts()
    if as_json:
        content = {
            "findings": [asdict(finding) for finding in findings],
            "repaired": [asdict(finding) for finding in mended],
            "running": running,
        }
        typer.echo(json.dumps(content, indent=1))
    else:
        if findings:
            console.print(findings_table(findings), highlight=False)
        console.print(
            f"{counts['structures']} structures, {sum(counts['labels'].values())} labels and "
            f"{counts['models']} models checked"
            + (f", {len(mended)} findings repaired" if mended else "")
            + (" while the campaign runs" if running else ""),
            highlight=False,
        )
    if serious := [finding for finding in findings if finding.problem != "unread label"]:
        raise StoreError(verdict(directory, serious))


def all_findings(store: "Store", *, running: bool) -> "list[Finding]":
    """Run every check, telling a terminal what is being looked at."""
    from rich.console import Console

    from tace_al.store.integrity import check_records
    from tace_al.store.integrity_files import check_files, with_files

    with Console(stderr=True).status("checking") as status:
        found = check_records(
            store, running=running, progress=lambda name: status.update(f"checking {name}")
        )
        found = with_files(found, store.directory, label_in_file)
        status.update("checking files")
        return found + check_files(store, running=running, read_label=label_in_file)


@db.command()
def backup(
    directory: CampaignFolder,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Archive to write, such as c.zip.")],
    database: Database = None,
    models: Annotated[
        bool, typer.Option("--models/--no-models", help="Put the models' files in.")
    ] = True,
) -> None:
    """Write a campaign's database and models to one file, also while the campaign runs.

    Example: [bold]tace-al db backup runs/catalysis catalysis.zip[/bold]
    """
    from rich.console import Console

    from tace_al.store.archive import write_backup

    if file.is_dir():
        raise StoreError(f"{file} is a folder; name a file, such as {file / 'campaign.zip'}")
    with open_campaign(directory, database) as store:
        done = write_backup(store, file, models=models)
    console = Console()
    for path in done.missing_models:
        console.print(f"[yellow]missing, so left out:[/yellow] {path}", highlight=False)
    console.print(
        f"{sum(done.documents.values())} records, {done.models} models and "
        f"{file.stat().st_size / 1e6:.1f} MB in {file}",
        highlight=False,
        soft_wrap=True,
    )


@db.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Archive of `tace-al db backup`.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="New folder of the campaign.")],
    database: Database = None,
) -> None:
    """Make a campaign from a backup: verified first, whole or not at all, nothing overwritten.

    Example: [bold]tace-al db restore catalysis.zip runs/catalysis-again[/bold]
    """
    from rich.console import Console

    from tace_al.store.repair import write_label_files
    from tace_al.store.restore import restore_backup

    manifest = restore_backup(file, directory, uri=database)
    with open_campaign(directory, database) as store:
        num_labels = write_label_files(store, write_label_file)
    Console().print(
        f"campaign {manifest.campaign} of {manifest.written} in {directory}: "
        f"{sum(manifest.documents.values())} records, {num_labels} label files, "
        f"{len(manifest.models)} models; go on with tace-al run ... --dir {directory}",
        highlight=False,
        soft_wrap=True,
    )


def findings_table(findings: "Sequence[Finding]") -> "Table":
    """Return the findings by kind, a few of each."""
    from rich.table import Table

    from tace_al.store.integrity import PROBLEMS

    table = Table(title="Findings", title_justify="left", header_style="bold")
    for column in ("what", "key", "finding", "--repair would"):
        table.add_column(column, overflow="fold")
    for problem in PROBLEMS:
        own = [finding for finding in findings if finding.problem == problem]
        for finding in own[:SHOWN_OF_A_KIND]:
            table.add_row(problem, finding.key, finding.text, finding.repair or "–")
        if len(own) > SHOWN_OF_A_KIND:
            table.add_row(problem, "...", f"and {len(own) - SHOWN_OF_A_KIND} more; see --json", "")
    return table


def verdict(directory: Path, findings: "Sequence[Finding]") -> str:
    """Return the one sentence that ends a check with findings."""
    kinds = Counter(finding.problem for finding in findings)
    named = ", ".join(f"{number} of {kind}" for kind, number in kinds.most_common())
    mendable = sum(bool(finding.repair) for finding in findings)
    if mendable:
        todo = f"`tace-al db check {directory} --repair` mends {mendable} of them"
    else:
        todo = "none can be mended without a decision; `tace-al db restore` brings a backup back"
    return f"{len(findings)} things in {directory} are not as they should be ({named}); {todo}"


def label_in_file(path: Path) -> "Label | None":
    """Return the label in a worker's file, None for a failure."""
    from tace_al.core.labels import Label
    from tace_al.dispatch.label_file import read_label

    found = read_label(path)
    return found if isinstance(found, Label) else None


def write_label_file(path: Path, label: "Label") -> None:
    """Write a label as a worker does."""
    from tace_al.dispatch.label_file import write_label

    write_label(path, label)
