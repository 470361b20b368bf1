"""Tables for the terminal: where a campaign stands."""

from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tace_al.report.summary import (
    Barrier,
    CampaignSummary,
    GenerationSummary,
    Target,
    TaskSpan,
)

STATE_COLOURS = {"running": "cyan", "finished": "green", "stopped": "yellow", "failed": "red"}
RECENT_SECONDS = 300.0
SILENT_SECONDS = 600.0
"""A running campaign that has said nothing for so long has probably been killed."""


def status_tables(summary: CampaignSummary, *, now: datetime | None = None) -> RenderableType:
    """Return the campaign's header, generations, queue, rates and last events."""
    now = now or datetime.now(UTC)
    parts: list[RenderableType] = [header(summary, now=now)]
    if summary.generations:
        parts.append(generation_table(summary))
    else:
        parts.append(Text("No generation has been trained yet.", style="dim"))
    parts.append(queue_table(summary))
    if summary.tasks:
        parts.append(rate_table(summary.tasks))
    if summary.failures:
        parts.append(failure_table(summary))
    for time, kind, message in summary.notes[-3:]:
        parts.append(Text(f"{time:%H:%M:%S} {kind}: {message}", style="dim"))
    return Group(*parts)


def header(summary: CampaignSummary, *, now: datetime) -> Text:
    """Return name, state, age and the number of labels on one line."""
    colour = STATE_COLOURS.get(summary.state, "white")
    silent = (now - summary.last_seen).total_seconds()
    alive = summary.state == "running" and silent < SILENT_SECONDS
    end = now if alive else summary.last_seen
    line = Text()
    line.append(summary.name, style="bold")
    line.append("  ")
    line.append(summary.state, style=f"bold {colour}")
    line.append(f"  {duration((end - summary.created).total_seconds())}")
    line.append(f"  {summary.num_labels} labels", style="bold")
    reason = summary.result.get("reason")
    if reason:
        line.append(f"  ({reason})", style="dim")
    if summary.state == "running" and not alive:
        line.append(
            f"\nno sign of life for {duration(silent)}: it was killed or waits for a long task; "
            "the command that started it goes on with it",
            style="yellow",
        )
    return line


def generation_table(summary: CampaignSummary) -> Table:
    """Return one row a generation: labels, errors, coverage, every barrier and every target."""
    units = {name: one.unit for item in summary.generations for name, one in item.targets.items()}
    channels = sorted({channel for item in summary.generations for channel in item.barriers})
    table = Table(title="Generations", title_justify="left", header_style="bold")
    table.add_column("gen", justify="right")
    table.add_column("state")
    for column in ("labels", "force RMSE\nmeV/Å", "energy RMSE\nmeV/atom", "coverage\n(target)"):
        table.add_column(column, justify="right")
    for channel in channels:
        table.add_column(f"{channel}\neV", justify="right")
    for name, unit in units.items():
        table.add_column(f"{name}\n{unit}".strip(), justify="right")
    for item in summary.generations:
        table.add_row(
            str(item.number),
            item.state,
            str(item.num_labels),
            number_text(item.errors.get("force_rmse"), 1),
            number_text(item.errors.get("energy_rmse"), 2),
            coverage_text(item),
            *(barrier_text(item.barriers.get(channel)) for channel in channels),
            *(target_text(item.targets.get(name)) for name in units),
        )
    return table


def queue_table(summary: CampaignSummary) -> Table:
    """Return candidates by state and labels by role."""
    table = Table(title="Queue and labels", title_justify="left", header_style="bold")
    table.add_column("what")
    table.add_column("count", justify="right")
    for state in ("flagged", "queued", "running", "labelled", "failed", "rejected", "expired"):
        if summary.candidates.get(state):
            table.add_row(f"candidates {state}", str(summary.candidates[state]))
    for role, count in sorted(summary.labels.items()):
        table.add_row(f"labels for {role}", str(count))
    if len(summary.levels) > 1:
        for level, count in sorted(summary.levels.items(), key=lambda item: -item[1]):
            table.add_row(f"labels of {level}", str(count))
    table.add_row("labels failed", str(len(summary.failures)))
    return table


def rate_table(tasks: tuple[TaskSpan, ...]) -> Table:
    """Return how many tasks of each kind ran, how long they take, and how many a minute."""
    table = Table(title="Work done", title_justify="left", header_style="bold")
    table.add_column("task")
    for column in ("done", "failed", "mean s", "per minute"):
        table.add_column(column, justify="right")
    end = max(task.ended for task in tasks)
    for kind in sorted({task.kind for task in tasks}):
        mine = [task for task in tasks if task.kind == kind]
        recent = [task for task in mine if task.ended > end - RECENT_SECONDS]
        begin = min(task.started for task in tasks if task.ended > end - RECENT_SECONDS)
        minutes = max(end - begin, 1.0) / 60.0
        table.add_row(
            kind,
            str(sum(task.ok for task in mine)),
            str(sum(not task.ok for task in mine)),
            f"{np.mean([task.ended - task.started for task in mine]):.1f}",
            f"{len(recent) / minutes:.1f}",
        )
    return table


def failure_table(summary: CampaignSummary) -> Table:
    """Return the kinds of failed labels, each with its count and one message."""
    table = Table(title="Failed labels", title_justify="left", header_style="bold")
    table.add_column("kind")
    table.add_column("count", justify="right")
    table.add_column("last message", overflow="fold")
    for kind, (count, message) in failures_by_kind(summary).items():
        table.add_row(kind, str(count), message)
    return table


def failures_by_kind(summary: CampaignSummary) -> Mapping[str, tuple[int, str]]:
    """Return count and last message of each kind of failed label."""
    found: dict[str, tuple[int, str]] = {}
    for kind, message in summary.failures:
        found[kind] = (found.get(kind, (0, ""))[0] + 1, message)
    return dict(sorted(found.items()))


def barrier_text(found: Barrier | None) -> str:
    """Return "0.985 ± 0.012", or a dash."""
    return "–" if found is None else f"{found.barrier:.3f} ± {found.error_bar:.3f}"


def target_text(found: Target | None) -> str:
    """Return "15.31 ± 0.042", or a dash.

    >>> target_text(Target(value=15.3141, error_bar=0.0417, unit="THz")), target_text(None)
    ('15.31 ± 0.042', '–')
    """
    return "–" if found is None else f"{found.value:.4g} ± {found.error_bar:.2g}"


def coverage_text(item: GenerationSummary) -> str:
    """Return "91 % (90 %)", or a dash."""
    if item.coverage is None:
        return "–"
    target = "" if item.target_coverage is None else f" ({100 * item.target_coverage:.0f} %)"
    return f"{100 * item.coverage:.0f} %{target}"


def number_text(value: float | None, digits: int) -> str:
    """Return a number with `digits` decimals, or a dash."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def duration(seconds: float) -> str:
    """Return a duration for people.

    >>> duration(42), duration(185), duration(7260)
    ('42 s', '3 min 05 s', '2 h 01 min')
    """
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
