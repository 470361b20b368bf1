"""Figure of frequencies: one line a mode, with a committee's spread."""

from pathlib import Path

from tace_al.analysis.normal_modes import IMAGINARY, NormalModes
from tace_al.report.style import BLUE, GREY, ORANGE, label_axes, new_figure, save


def frequency_figure(modes: NormalModes, path: Path, *, title: str = "") -> Path:
    """Draw the frequencies in order, imaginary ones below zero, and return the file."""
    figure = new_figure(1, width=6.0, height=3.6)
    (axes,) = figure.axes
    values, spread = modes.frequencies.value, modes.frequencies.spread
    colors = [ORANGE if value < IMAGINARY else BLUE for value in values]
    numbers = range(1, len(values) + 1)
    axes.vlines(numbers, 0.0, values, color=colors, linewidth=1.5)
    axes.errorbar(numbers, values, yerr=spread, fmt="none", ecolor=GREY, capsize=2)
    axes.scatter(numbers, values, color=colors, s=16, zorder=3)
    axes.axhline(0.0, color=GREY, linewidth=0.8)
    label_axes(axes, x="mode", y="frequency (1/cm)", title=title)
    return save(figure, path)
