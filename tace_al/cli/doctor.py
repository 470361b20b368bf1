"""`tace-al doctor`: one structure through every stage, and which one fails and why."""

import logging
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tace_al.cli.options import Database, MachineName, Settings
from tace_al.cli.time_limit import seconds_from_text

if TYPE_CHECKING:
    from rich.table import Table

    from tace_al.campaign.checkup import Finding
    from tace_al.campaign.config import Campaign

DEFAULT_WAIT_S = 900.0
STYLES = {"ok": "green", "note": "yellow", "failed": "bold red", "skipped": "dim"}


def doctor(
    workflow: Annotated[
        str | None,
        typer.Argument(
            metavar="WORKFLOW",
            help="Workflow or campaign.yaml whose first structure, labeller and model are tried; "
            "default: a water molecule with GFN2-xTB.",
        ),
    ] = None,
    settings: Settings = None,
    machine: MachineName = None,
    database: Database = None,
    root: Annotated[
        Path,
        typer.Option(
            "--dir", metavar="DIR", help="Where a folder for it is made; workers must see it."
        ),
    ] = Path("runs"),
    wait_s: Annotated[
        float | None,
        typer.Option(
            "--wait",
            parser=seconds_from_text,
            metavar="TIME",
            help="How long one task may take, waiting for a block included; default: 15m.",
        ),
    ] = None,
) -> None:
    """Send one structure through every stage on a machine; say which stage fails and why.

    Example: [bold]tace-al doctor workflows/catalysis.py --machine my_cluster.yaml[/bold]
    """
    from rich.console import Console

    from tace_al.campaign.checkup import check_up
    from tace_al.cli.run import campaign_of, terminated_like_interrupted

    if workflow is None:
        campaign = water_campaign(machine or "local")
    else:
        campaign = campaign_of(workflow, settings or [], machine=machine)
    folder = root / f"doctor-{secrets.token_hex(4)}"
    console = Console()
    findings: list[Finding] = []
    # one structure determines no energies of atoms, which does not matter here
    quiet = only_errors("tace_al.model")
    checks = check_up(campaign, folder, uri=database, wait_s=wait_s or DEFAULT_WAIT_S)
    try:
        with quiet, terminated_like_interrupted(), console.status("disk") as status:
            for finding in checks:
                findings.append(finding)
                status.update(f"{finding.stage} {finding.state}, going on")
    finally:  # also what was found before Ctrl-C
        console.print(findings_table(campaign.machine.name, findings))
    broken = ", ".join(finding.stage for finding in findings if finding.state == "failed")
    if broken:
        console.print(f"{broken} failed; logs and files are in {folder}", soft_wrap=True)
        raise typer.Exit(2)
    shutil.rmtree(folder, ignore_errors=True)
    console.print("Everything a campaign needs works here.")


@contextmanager
def only_errors(logger_name: str) -> Iterator[None]:
    """Keep warnings of a part of the package to itself for a while."""
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def water_campaign(machine: str) -> "Campaign":
    """Return the campaign that is tried when none is named."""
    from ase.build import molecule

    from tace_al.campaign.config import Campaign
    from tace_al.campaign.structure import Structure
    from tace_al.dispatch.machine import machine_from_name

    start = Structure.from_atoms(molecule("H2O"))
    return Campaign.build(
        name="doctor",
        structures=[{"name": "water", "starts": [start]}],
        machine=machine_from_name(machine),
    )


def findings_table(machine: str, findings: list["Finding"]) -> "Table":
    """Return one row a stage."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"machine {machine}", title_justify="left", header_style="bold")
    for column in ("stage", "", "time"):
        table.add_column(column, no_wrap=True)
    table.add_column("what was found", overflow="fold")
    for finding in findings:
        seconds = f"{finding.seconds:.1f} s" if finding.state != "skipped" else ""
        state = Text(finding.state, style=STYLES[finding.state])
        table.add_row(finding.stage, state, seconds, Text(finding.detail))
    return table
