"""`tace-al plan`: what a campaign would run where, and nothing is submitted."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tace_al.cli.options import Database, MachineName, Settings

if TYPE_CHECKING:
    from rich.console import Console

    from tace_al.campaign.plan import Plan


def plan(
    workflow: Annotated[
        str,
        typer.Argument(metavar="WORKFLOW", help="As for tace-al run: a workflow or campaign.yaml."),
    ],
    settings: Settings = None,
    database: Database = None,
    directory: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIR", help="Campaign folder; default: runs/NAME."),
    ] = None,
    machine: MachineName = None,
) -> None:
    """Show what would run where, its budget and its disk; start nothing and submit nothing.

    Example: [bold]tace-al plan workflows/catalysis.py --machine my_cluster.yaml[/bold]
    """
    from rich.console import Console

    from tace_al.campaign.plan import plan_campaign
    from tace_al.cli.run import DEFAULT_ROOT, campaign_of
    from tace_al.core.errors import DispatchError
    from tace_al.dispatch.slurm_commands import check_slurm

    campaign = campaign_of(workflow, settings or [], machine=machine)
    folder = directory if directory is not None else DEFAULT_ROOT / campaign.name
    console = Console()
    show(plan_campaign(campaign, directory=folder, uri=database), console)
    if campaign.machine.slurm is None:
        return
    try:
        check_slurm(campaign.machine)
    except DispatchError as error:
        console.print(f"Not checked with Slurm: {error}", soft_wrap=True, highlight=False)
    else:
        console.print("Slurm would take these blocks; none was submitted.")


def show(planned: "Plan", console: "Console") -> None:
    """Print the plan's tables."""
    from rich.table import Table

    campaign = planned.campaign
    console.print(f"{campaign.name} on machine {campaign.machine.name}", style="bold")
    tasks = Table(title="Tasks", title_justify="left", header_style="bold")
    for column in ("kind", "what", "how many", "where", "time of one"):
        tasks.add_column(column, overflow="fold")
    for task in planned.tasks:
        tasks.add_row(task.kind, task.purpose, task.number, task.where, task.seconds)
    workers = Table(title="Workers", title_justify="left", header_style="bold")
    for column in ("name", "at once", "made of", "wall time", "drain"):
        workers.add_column(column, overflow="fold")
    for pool in planned.workers:
        workers.add_row(pool.name, str(pool.workers), pool.resources, pool.walltime, pool.drain)
    budget = Table(title="Budget", title_justify="left", show_header=False)
    for name, text in planned.budget.items():
        budget.add_row(name, text)
    for table in (tasks, workers, budget):
        console.print(table)
