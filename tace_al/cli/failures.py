"""`tace-al failures` and `tace-al retry`: what could not be labelled, and trying it again."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tace_al.cli.campaign_commands import open_campaign
from tace_al.cli.options import CampaignFolder, Database

if TYPE_CHECKING:
    from rich.table import Table

    from tace_al.campaign.retrying import FailedLabel

Kind = Annotated[
    str | None, typer.Option("--kind", metavar="KIND", help="Only failures of this kind.")
]


def failures(
    directory: CampaignFolder,
    kind: Kind = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
    database: Database = None,
) -> None:
    """List the labels that failed, why, and the folder that repeats each.

    Example: [bold]tace-al failures runs/catalysis[/bold]
    """
    from rich.console import Console

    from tace_al.campaign.retrying import failed_labels

    with open_campaign(directory, database) as store:
        found = failed_labels(store, kind)
    if as_json:
        typer.echo(json.dumps([asdict(failure) for failure in found], indent=1))
        return
    console = Console()
    if not found:
        console.print(f"no label has failed in {directory}", highlight=False, soft_wrap=True)
        return
    console.print(failure_table(found, directory))
    console.print("by kind: " + counted(found), highlight=False, soft_wrap=True)
    console.print(
        f"repeat one: sh BUNDLE/rerun.sh; try all again: tace-al retry {directory}",
        highlight=False,
        soft_wrap=True,
    )


def retry(
    directory: CampaignFolder,
    kind: Kind = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--labeller-option",
            metavar="KEY=VALUE",
            help="Another way to the same number: max_iterations=300, mixing=0.02. Repeat.",
        ),
    ] = None,
    now: Annotated[
        bool, typer.Option("--now", help="Label here at once; default: with the next run.")
    ] = False,
    database: Database = None,
) -> None:
    """Put failed labels back into the queue; the next `tace-al run` in the folder labels them.

    Example: [bold]tace-al retry runs/catalysis --kind convergence --labeller-option mixing=0.02[/]
    """
    from contextlib import nullcontext

    from rich.console import Console

    from tace_al.campaign.retrying import failed_labels, label_now, requeue, standing_still
    from tace_al.cli.label import setting
    from tace_al.cli.workflow_file import parse_settings

    chosen = {
        key: setting(text)
        for key, text in parse_settings(options or [], "--labeller-option").items()
    }

    def say(text: str) -> None:
        Console().print(text, highlight=False, soft_wrap=True)

    with (
        open_campaign(directory, database) as store,
        standing_still(store.directory) if now else nullcontext(),
    ):
        queued = requeue(store, failed_labels(store, kind), chosen)
        if not queued:
            say(f"nothing to try again in {directory}")
        elif not now:
            say(
                f"{len(queued)} structures wait for a label ({counted(queued)}); run the "
                "campaign's own command again"
            )
        else:
            problems = []
            for failure, problem in label_now(store, queued, chosen):
                problems.append(problem)
                say(f"{failure.formula} {failure.structure[:10]}: {problem or 'labelled'}")
            say(
                f"{problems.count('')} of {len(queued)} labelled; the next run of the campaign "
                "takes them up"
            )


def failure_table(found: "Sequence[FailedLabel]", directory: Path) -> "Table":
    """Return one row a failed label."""
    from rich.table import Table

    table = Table(title=f"Failed labels of {directory}", title_justify="left")
    for name in ("kind", "structure", "level", "tries", "state", "message", "bundle"):
        table.add_column(name, overflow="fold", no_wrap=name == "kind")
    for failure in found:
        table.add_row(
            failure.kind,
            f"{failure.formula} {failure.structure[:10]}\n{failure.channel}",
            failure.fidelity,
            str(failure.attempts),
            failure.state,
            failure.message,
            _below(failure.bundle, directory),
        )
    return table


def counted(found: "Sequence[FailedLabel]") -> str:
    """Return how many failures there are of each kind."""
    kinds = Counter(failure.kind for failure in found)
    return ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())


def _below(bundle: str, directory: Path) -> str:
    """Return a bundle's path the way the campaign's folder was named."""
    if not bundle:
        return "–"
    path, root = Path(bundle), directory.resolve()
    return str(directory / path.relative_to(root)) if path.is_relative_to(root) else bundle
