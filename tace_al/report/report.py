"""The report of a campaign: one Markdown file and its figures, written from the Store alone."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from matplotlib.figure import Figure

from tace_al.core.atomic_write import write_bytes
from tace_al.report import figures
from tace_al.report.curve_figure import target_curves
from tace_al.report.style import save
from tace_al.report.summary import Barrier, CampaignSummary, read_summary
from tace_al.report.tables import (
    barrier_text,
    coverage_text,
    duration,
    failures_by_kind,
    number_text,
    target_text,
)
from tace_al.report.target_figure import target_convergence

if TYPE_CHECKING:
    from tace_al.store.store import Store

REPORT_NAME = "report.md"
SETTINGS_NAME = "campaign.yaml"
MAX_NOTES = 20
GEOMETRY = ("initial", "final", "starts", "seeds")
DERIVED = ("content_key", "reference_barriers")
"""What the Store keeps with the settings that is not one of them."""


def write_report(store: "Store", folder: Path) -> Path:
    """Write `report.md`, its figures and `campaign.yaml`; return the report's path."""
    summary = read_summary(store)
    folder.mkdir(parents=True, exist_ok=True)
    drawn = _draw(summary, folder)
    text = report_text(summary, drawn)
    write_bytes(folder / SETTINGS_NAME, settings_text(summary).encode())
    path = folder / REPORT_NAME
    write_bytes(path, text.encode())
    return path


def report_text(summary: CampaignSummary, drawn: Mapping[str, str]) -> str:
    """Return the report as Markdown; `drawn` maps a figure's title to its file name."""
    sections = [
        f"# {summary.name}",
        " ".join(result_sentences(summary)),
        _barrier_table(summary),
        *(f"## {title}\n\n![{title}]({name})" for title, name in drawn.items()),
        _generation_section(summary),
        _label_section(summary),
        _failure_section(summary),
        _note_section(summary),
        _model_section(summary),
        _reproduce_section(summary),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def result_sentences(summary: CampaignSummary) -> list[str]:
    """Return what was found, in sentences: barriers, target, lowering, labels, coverage, state."""
    sentences = []
    if summary.barriers:
        found = "; ".join(
            f"{channel} {barrier_text(item)} eV" for channel, item in summary.barriers.items()
        )
        sentences.append(f"Barriers (committee ± calibrated error bar): **{found}**.")
    if summary.targets:
        found = "; ".join(
            f"{name} {target_text(item)} {item.unit}".strip()
            for name, item in summary.targets.items()
        )
        sentences.append(f"Target (committee ± error bar): **{found}**.")
    if not (summary.barriers or summary.targets):
        wanted = (summary.config.get("target") or {}).get("name", "barrier")
        missing = {"barrier": "No barrier has been found yet.", "none": ""}
        sentences.append(missing.get(wanted, "The target has not been evaluated yet."))
    lowering = summary.result.get("lowering")
    if lowering:
        sentences.append(lowering_sentence(lowering, summary.config.get("catalyst") or ()))
    effort = f"{summary.num_labels} labels were made"
    seconds = summary.result.get("seconds")
    if seconds:
        effort += f" in {duration(float(seconds))}"
    sentences.append(f"{effort} ({duration(summary.label_seconds)} of labeller time).")
    judged = [item for item in summary.generations if item.coverage is not None]
    if judged:
        last = judged[-1]
        target = last.target_coverage
        wanted = "" if target is None else f", {100 * target:.0f} % was asked for"
        sentences.append(
            f"On structures the models did not train on, {100 * (last.coverage or 0):.0f} % of the "
            f"force errors were within their error bars{wanted}."
        )
    reason = summary.result.get("reason")
    sentences.append(f"The campaign is {summary.state}" + (f": {reason}." if reason else "."))
    return [sentence for sentence in sentences if sentence]


def lowering_sentence(lowering: Mapping[str, Any], catalyst: Sequence[str]) -> str:
    """Return how far the catalyst lowers the barrier.

    Parameters
    ----------
    lowering
        "value" and "error" in eV.
    catalyst
        The channels without and with the catalyst, or nothing.
    """
    channels = f" ({catalyst[0]} → {catalyst[1]})" if len(catalyst) == 2 else ""
    value = f"{float(lowering['value']):.3f}"
    if lowering.get("error") is not None:
        value += f" ± {float(lowering['error']):.3f}"
    return f"The catalyst lowers the barrier by **{value} eV**{channels}."


def _draw(summary: CampaignSummary, folder: Path) -> dict[str, str]:
    """Write every figure there is data for and return title -> file name, in reading order."""
    drawings: dict[str, tuple[str, Callable[[], Figure | None]]] = {}
    for channel, found in summary.barriers.items():
        drawings[f"Energy profile: {channel}"] = (
            f"profile_{_file_stem(channel)}.png",
            _profile_drawing(channel, found, summary.references.get(channel)),
        )
    drawings |= {
        "Barriers": ("barriers.png", lambda: figures.barrier_convergence(summary)),
        "Target": ("target.png", lambda: target_convergence(summary)),
        "Curves": ("curves.png", lambda: target_curves(summary)),
        "Learning curve": ("learning_curve.png", lambda: figures.learning_curve(summary)),
        "Calibration": ("calibration.png", lambda: figures.calibration(summary)),
        "Workers": ("workers.png", lambda: figures.worker_timeline(summary.tasks)),
    }
    drawn = {}
    for title, (name, draw) in drawings.items():
        figure = draw()
        if figure is not None:
            save(figure, folder / name)
            drawn[title] = name
    return drawn


def _profile_drawing(
    channel: str, found: Barrier, reference: float | None
) -> Callable[[], Figure | None]:
    """Return the drawing of one channel, bound to its own data."""
    return lambda: figures.energy_profile(channel, found, reference=reference)


def _file_stem(channel: str) -> str:
    """Return a channel's name as a file name."""
    return "".join(letter if letter.isalnum() else "_" for letter in channel) or "channel"


def _barrier_table(summary: CampaignSummary) -> str:
    """Return one row a channel."""
    if not summary.barriers:
        return ""
    rows = [
        (
            channel,
            barrier_text(found),
            number_text(found.reverse, 3),
            number_text(found.saddle_label, 3),
            number_text(summary.references.get(channel), 3),
            "yes" if found.converged else "**no**",
        )
        for channel, found in summary.barriers.items()
    ]
    head = ("channel", "barrier, eV", "reverse, eV", "labeller at saddle, eV", "reference, eV")
    return _table((*head, "path converged"), rows)


def _generation_section(summary: CampaignSummary) -> str:
    """Return errors and coverage of every generation."""
    if not summary.generations:
        return ""
    rows = [
        (
            str(item.number),
            item.state,
            str(item.num_labels),
            number_text(item.errors.get("force_rmse"), 1),
            number_text(item.errors.get("force_mae"), 1),
            number_text(item.errors.get("energy_rmse"), 2),
            coverage_text(item),
            number_text(item.scale, 2),
        )
        for item in summary.generations
    ]
    head = (
        "generation",
        "state",
        "labels",
        "force RMSE, meV/Å",
        "force MAE, meV/Å",
        "energy RMSE, meV/atom",
        "coverage (target)",
        "scale",
    )
    return "## Generations\n\n" + _table(head, rows)


def _label_section(summary: CampaignSummary) -> str:
    """Return labels by why their structure was chosen, by use, and by level of theory."""
    rows = [(kind, str(count)) for kind, count in sorted(summary.label_kinds.items())]
    roles = ", ".join(f"{count} for {role}" for role, count in sorted(summary.labels.items()))
    used = f"\n\nUsed: {roles}." if roles else ""
    if len(summary.levels) > 1:
        levels = ", ".join(f"{count} of {name}" for name, count in sorted(summary.levels.items()))
        used += f"\n\nLevels of theory: {levels}."
    return "## Labels\n\n" + _table(("chosen as", "labels"), rows) + used


def _failure_section(summary: CampaignSummary) -> str:
    """Return the kinds of failed labels; a failed label is data, not a crash."""
    if not summary.failures:
        return "## Failures\n\nNo label failed."
    rows = [
        (kind, str(count), message) for kind, (count, message) in failures_by_kind(summary).items()
    ]
    return "## Failures\n\n" + _table(("kind", "labels", "last message"), rows)


def _note_section(summary: CampaignSummary) -> str:
    """Return the last warnings and other events that a reader should know of."""
    if not summary.notes:
        return ""
    lines = [
        f"- {time:%H:%M:%S} {kind}: {message}" for time, kind, message in summary.notes[-MAX_NOTES:]
    ]
    more = len(summary.notes) - len(lines)
    earlier = f"\n\nand {more} earlier ones." if more > 0 else ""
    return "## Notes\n\n" + "\n".join(lines) + earlier


def _model_section(summary: CampaignSummary) -> str:
    """Return the keys of the last generation's models."""
    with_models = [item for item in summary.generations if item.models]
    if not with_models:
        return ""
    last = with_models[-1]
    keys = "\n".join(f"- `{key}`" for key in last.models)
    return (
        f"## Models\n\nGeneration {last.number} ({last.state}):\n\n{keys}\n\n"
        "`tace-al lineage DIR KEY` lists a model's parents, training set, seed and labels."
    )


def _reproduce_section(summary: CampaignSummary) -> str:
    """Return what is needed to run the same campaign again."""
    settings = yaml.safe_dump(_without_geometry(summary.config), sort_keys=False)
    return (
        "## How to reproduce\n\n"
        f"`tace-al run {SETTINGS_NAME}` runs the same campaign again; the file beside this report "
        "holds every setting, structures included.\n\n"
        f"- seed {summary.seed}, code {summary.code_version}, settings `{summary.config_hash}`\n"
        f"- campaign `{summary.campaign}`, started {summary.created:%Y-%m-%d %H:%M} UTC\n\n"
        "<details><summary>Settings without the structures</summary>\n\n"
        f"```yaml\n{settings}```\n\n</details>"
    )


def settings_text(summary: CampaignSummary) -> str:
    """Return every setting as YAML, in the form that `tace-al run` reads."""
    settings = {key: item for key, item in summary.config.items() if key not in DERIVED}
    return yaml.safe_dump(_plain(settings), sort_keys=False, allow_unicode=True)


def _without_geometry(value: Any) -> Any:
    """Return settings as plain containers without the structures."""
    if isinstance(value, Mapping):
        kept = ((key, item) for key, item in value.items() if key not in GEOMETRY)
        return {str(key): _without_geometry(item) for key, item in kept}
    if isinstance(value, list | tuple):
        return [_without_geometry(item) for item in value]
    return _plain(value)


def _plain(value: Any) -> Any:
    """Return settings as plain containers; the database's own kinds of dict become dicts."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = (cell.replace("|", "\\|").replace("\n", " ") for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
