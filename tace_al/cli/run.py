"""`tace-al run`: start a campaign, or go on with one that was stopped or killed."""

import inspect
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tace_al.cli.options import Database
from tace_al.cli.workflow_file import build_campaign, load_workflow, parse_settings, with_fields
from tace_al.core.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from tace_al.campaign.config import Campaign

DEFAULT_ROOT = Path("runs")


def run(
    workflow: Annotated[
        str,
        typer.Argument(
            metavar="WORKFLOW",
            help="Workflow file, name of a packaged one, or the campaign.yaml of a report.",
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set an option of the workflow, or a field of its campaign by path "
            "(stopping.max_labels=100); lists as JSON. Repeat for more.",
        ),
    ] = None,
    database: Database = None,
    directory: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIR", help="Campaign folder; default: runs/NAME."),
    ] = None,
    machine: Annotated[
        str | None,
        typer.Option(
            "--machine", metavar="NAME", help="Where work runs: local, threads, or a machine file."
        ),
    ] = None,
    show_options: Annotated[
        bool, typer.Option("--options", help="List the workflow's options and stop.")
    ] = False,
) -> None:
    """Run a campaign; the same command goes on with one that was stopped or killed.

    Example: [bold]tace-al run workflows/catalysis.py --set reaction=surface_hop[/bold]
    """
    from rich.console import Console

    console = Console()
    if show_options:
        loaded = load_workflow(workflow)
        console.print(options_table(loaded.options))
        console.print(inspect.getdoc(loaded.function) or "", highlight=False, markup=False)
        return
    campaign = campaign_of(workflow, settings or [], machine=machine)
    folder = directory if directory is not None else DEFAULT_ROOT / campaign.name

    from tace_al.campaign.loop import run_campaign
    from tace_al.dispatch.slurm_commands import check_slurm

    check_slurm(campaign.machine)
    try:
        with terminated_like_interrupted():
            result = run_campaign(campaign, directory=folder, uri=database, console=console)
    except KeyboardInterrupt:
        console.print("Stopped. Nothing is lost: the same command goes on from here.")
        raise typer.Exit(130) from None
    console.print(result.summary(), highlight=False, soft_wrap=True)


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Stop as cleanly on SIGTERM (a batch system's, `timeout`'s) as on Ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def campaign_of(workflow: str, settings: Sequence[str], *, machine: str | None) -> "Campaign":
    """Return the campaign of a workflow with its settings, or of a YAML file as it stands."""
    from tace_al.campaign.config import Campaign
    from tace_al.dispatch.machine import machine_from_name

    chosen = parse_settings(settings)
    if Path(workflow).suffix in (".yaml", ".yml"):
        plain = [key for key in chosen if "." not in key]
        if plain:
            raise ConfigError(
                f"{workflow} is a finished campaign and has no option '{plain[0]}'; set a field by "
                "its path, such as --set stopping.max_labels=100"
            )
        campaign = with_fields(Campaign.from_yaml(Path(workflow)), chosen)
    else:
        campaign = build_campaign(load_workflow(workflow), chosen)
    if machine is None:
        return campaign
    return campaign.model_copy(update={"machine": machine_from_name(machine)})


def options_table(options: Mapping[str, inspect.Parameter]) -> "Table":
    """Return a workflow's options with their kinds and defaults."""
    from rich.table import Table

    table = Table(title="Options for --set KEY=VALUE", title_justify="left", header_style="bold")
    for column in ("key", "kind", "default"):
        table.add_column(column, overflow="fold")
    for name, parameter in options.items():
        required = parameter.default is inspect.Parameter.empty
        table.add_row(
            name,
            inspect.formatannotation(parameter.annotation).replace("typing.", ""),
            "[bold]needed[/bold]" if required else repr(parameter.default),
        )
    return table
