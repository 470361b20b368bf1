"""The five figures of a report, each a function of the campaign's summary.

A function returns None where the campaign has nothing to draw yet. Error bars of barriers are the
calibrated spread of the committee; the calibration figure shows how far they can be trusted.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from scipy.interpolate import PchipInterpolator

from tace_al.report.style import (
    AMBER,
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALETTE,
    label_axes,
    new_figure,
    tidy,
)
from tace_al.report.summary import Barrier, CampaignSummary, GenerationSummary, TaskSpan

MAX_POINTS = 4000  # of a scatter: more only makes the file large
TASK_COLOURS = {
    "label": BLUE,
    "train": ORANGE,
    "langevin": GREEN,
    "band": PALETTE[3],
    "assess": AMBER,
    "relax": PALETTE[5],
}


def learning_curve(summary: CampaignSummary) -> Figure | None:
    """Draw force and energy errors on the calibration set against the number of labels."""
    judged = [item for item in summary.generations if item.errors and item.num_labels]
    if not judged:
        return None
    figure = new_figure(2, width=4.6, height=3.6)
    forces, energies = figure.axes
    _error_panel(forces, judged, quantity="force", colour=BLUE)
    _error_panel(energies, judged, quantity="energy", colour=ORANGE)
    label_axes(forces, x="labels", y="force error (meV/Å)", title="Forces")
    label_axes(energies, x="labels", y="energy error (meV/atom)", title="Energies")
    return figure


def _error_panel(
    axes: Axes, judged: Sequence[GenerationSummary], *, quantity: str, colour: str
) -> None:
    """Draw root mean square and mean absolute error of one quantity."""
    for name, text, line in (("rmse", "root mean square", "o-"), ("mae", "mean absolute", "s--")):
        points = [
            (item.num_labels, item.errors[f"{quantity}_{name}"], item.number)
            for item in judged
            if np.isfinite(item.errors.get(f"{quantity}_{name}", np.nan))
        ]
        if not points:
            continue
        labels, errors, numbers = zip(*points, strict=True)
        axes.plot(labels, errors, line, color=colour, label=text, markersize=5, linewidth=1.6)
        if name == "rmse":
            for x, y, number in zip(labels, errors, numbers, strict=True):
                axes.annotate(
                    f"{number}",
                    (x, y),
                    xytext=(0, 6),
                    textcoords="offset points",
                    ha="center",
                    fontsize=7,
                    color=GREY,
                )
    axes.margins(y=0.15)
    axes.set_ylim(bottom=0.0)
    if axes.lines:
        axes.legend(frameon=False, fontsize=8)


def barrier_convergence(summary: CampaignSummary) -> Figure | None:
    """Draw each channel's barrier and error bar against the number of labels."""
    channels = sorted({channel for item in summary.generations for channel in item.barriers})
    if not channels:
        return None
    figure = new_figure(len(channels), width=4.6, height=3.6)
    for axes, channel, colour in zip(figure.axes, channels, _cycle(len(channels)), strict=True):
        judged = [item for item in summary.generations if channel in item.barriers]
        found = [item.barriers[channel] for item in judged]
        labels = [item.num_labels for item in judged]
        axes.errorbar(
            labels,
            [item.barrier for item in found],
            yerr=[item.error_bar for item in found],
            fmt="o-",
            color=colour,
            capsize=3,
            linewidth=1.4,
            markersize=5,
            label="committee",
        )
        checked = [
            (x, item.saddle_label)
            for x, item in zip(labels, found, strict=True)
            if item.saddle_label is not None
        ]
        if checked:
            axes.plot(
                *zip(*checked, strict=True), "D", color=BLACK, markersize=4, label="labeller there"
            )
        if channel in summary.references:
            axes.axhline(
                summary.references[channel], color=GREY, ls="--", lw=1.2, label="reference"
            )
        label_axes(axes, x="labels", y="barrier (eV)", title=channel)
        axes.legend(frameon=False, fontsize=8)
    return figure


def calibration(summary: CampaignSummary) -> Figure | None:
    """Draw actual force errors against error bars, and the share covered by generation."""
    judged = [item for item in summary.generations if item.coverage is not None]
    scattered = [item for item in summary.generations if item.spread.size]
    if not judged and not scattered:
        return None
    figure = new_figure(2, width=4.6, height=3.8)
    scatter, shares = figure.axes
    if scattered:
        _scatter_panel(scatter, scattered[-1])
    label_axes(
        scatter, x="error bar of the force (eV/Å)", y="actual error (eV/Å)", title="Error bars"
    )
    numbers = [item.number for item in judged]
    covered = [100 * (item.coverage or 0.0) for item in judged]
    shares.plot(numbers, covered, "o-", color=GREEN, label="found", linewidth=1.6)
    targets = [item for item in judged if item.target_coverage is not None]
    if targets:
        shares.plot(
            [item.number for item in targets],
            [100 * (item.target_coverage or 0.0) for item in targets],
            "--",
            color=GREY,
            label="asked for",
        )
    shares.set_ylim(0, 103)
    shares.xaxis.set_major_locator(MaxNLocator(integer=True))
    label_axes(shares, x="generation", y="errors within their bar (%)", title="Coverage")
    if judged:
        shares.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def _scatter_panel(axes: Axes, generation: GenerationSummary) -> None:
    """Draw one generation's errors against its error bars, both on logarithmic axes."""
    bars = generation.spread * (generation.scale or 1.0)
    keep = np.isfinite(bars) & np.isfinite(generation.error) & (bars > 0) & (generation.error > 0)
    bars, errors = bars[keep], generation.error[keep]
    if not bars.size:
        return
    stride = max(1, bars.size // MAX_POINTS)
    inside = errors <= bars
    for chosen, colour, text in ((inside, BLUE, "within"), (~inside, ORANGE, "beyond")):
        share = 100 * chosen.mean()
        axes.scatter(
            bars[chosen][::stride],
            errors[chosen][::stride],
            s=7,
            alpha=0.5,
            color=colour,
            edgecolors="none",
            label=f"{text} the bar: {share:.0f} %",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    ends = np.array([bars.min() / 1.5, bars.max() * 1.5])
    axes.plot(ends, ends, color=BLACK, linewidth=1.0)
    axes.set_xlim(*ends)
    axes.legend(
        frameon=False, fontsize=8, title=f"generation {generation.number}", title_fontsize=8
    )


def energy_profile(
    channel: str, found: Barrier, *, reference: float | None = None
) -> Figure | None:
    """Draw the mean path with its error band, the labeller's saddle and the reference.

    Parameters
    ----------
    channel
        Name of the reaction channel, the figure's title.
    found
        Barrier with the path it was read from.
    reference
        Known barrier in eV.
    """
    if found.energies.size < 2:
        return None
    x = found.coordinate if found.coordinate.size else np.arange(found.energies.size, dtype=float)
    band = found.band if found.band.size == x.size else np.zeros_like(x)
    energies = found.energies - found.energies[0]
    figure = new_figure(width=5.6, height=3.8)
    axes = figure.axes[0]
    fine = np.linspace(x[0], x[-1], 200)
    # Monotone between images, so that the drawing invents no maximum of its own.
    mean = PchipInterpolator(x, energies)(fine)
    half = PchipInterpolator(x, band)(fine)
    axes.fill_between(fine, mean - half, mean + half, color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(fine, mean, color=BLUE, linewidth=1.8)
    axes.plot(x, energies, "o", color=BLUE, markersize=5, label="committee ± error bar")
    top = x[int(np.argmax(energies))]
    if found.saddle_label is not None:
        axes.plot(
            [top], [found.saddle_label], "D", color=ORANGE, markersize=8, label="labeller at saddle"
        )
    if reference is not None:
        axes.axhline(reference, color=GREY, linestyle="--", linewidth=1.2, label="reference")
    axes.axhline(0.0, color=GREY, linewidth=0.6)
    axes.legend(frameon=False, fontsize=8)
    title = f"{channel}: {found.barrier:.3f} ± {found.error_bar:.3f} eV"
    label_axes(axes, x="path length (Å)", y="energy above the reactant (eV)", title=title)
    return figure


def worker_timeline(tasks: Sequence[TaskSpan]) -> Figure | None:
    """Draw what every worker did when; a hatched bar is a task that failed."""
    if not tasks:
        return None
    start = min(task.started for task in tasks)
    workers = sorted({task.worker for task in tasks})
    colours = _task_colours({task.kind for task in tasks})
    figure = new_figure(width=8.5, height=1.4 + 0.42 * len(workers))
    axes = figure.axes[0]
    tidy(axes)
    span = max(task.ended for task in tasks) - start
    unit, text = (60.0, "min") if span > 300 else (1.0, "s")
    for row, worker in enumerate(workers):
        for task in (task for task in tasks if task.worker == worker):
            axes.broken_barh(
                [((task.started - start) / unit, max(task.ended - task.started, 0.0) / unit)],
                (row - 0.38, 0.76),
                facecolor=colours[task.kind],
                edgecolor="white",
                linewidth=0.2,
                hatch=None if task.ok else "////",
            )
    axes.set_yticks(
        range(len(workers)), labels=[f"worker {row + 1}" for row in range(len(workers))]
    )
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    handles = [Patch(facecolor=colour, label=kind) for kind, colour in colours.items()]
    axes.legend(
        handles=handles,
        frameon=False,
        fontsize=8,
        ncols=len(handles),
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
    )
    label_axes(axes, x=f"time since the first task ({text})", y="")
    return figure


def _task_colours(kinds: set[str]) -> Mapping[str, str]:
    """Return a colour for each kind of task; the usual kinds always look the same."""
    spare = (colour for colour in PALETTE if colour not in TASK_COLOURS.values())
    return {kind: TASK_COLOURS.get(kind) or next(spare, GREY) for kind in sorted(kinds)}


def _cycle(count: int) -> list[str]:
    """Return `count` colours of the palette."""
    return [PALETTE[index % len(PALETTE)] for index in range(count)]
