"""Figures of phonons: bands beside their density of states, and thermal properties.

A committee's bands are drawn from its mean potential, shaded by one error bar to either side;
another method's bands, where given, are dashed lines over them.
"""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from tace_al.analysis.bands import Bands
from tace_al.analysis.member_values import MemberValues
from tace_al.analysis.phonons import DensityOfStates, Phonons, ThermalProperties
from tace_al.report.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    label_axes,
    new_figure,
    save,
    tidy,
)


def band_figure(
    phonons: Phonons,
    path: Path,
    *,
    title: str = "",
    scale: float = 1.0,
    reference: Bands | None = None,
    reference_name: str = "reference",
) -> Path:
    """Draw bands and density of states, and return the file.

    Parameters
    ----------
    scale
        Error bars are this many spreads (a campaign's calibration).
    reference
        Bands of another method along the same path.
    """
    figure = new_figure(0, height=4.0)
    figure.set_size_inches(7.5, 4.2)
    grid = figure.add_gridspec(1, 2, width_ratios=(3.2, 1.0))
    left = figure.add_subplot(grid[0])
    right = figure.add_subplot(grid[1], sharey=left)
    for axes in (left, right):
        tidy(axes)
    draw_bands(left, phonons.bands, scale=scale)
    if reference is not None:
        _draw_reference(left, reference, reference_name)
    label_axes(left, x="", y="frequency (THz)", title=title)
    _draw_dos(right, phonons.dos, scale=scale)
    label_axes(right, x="states / THz", y="")
    high = max(float(values.value.max()) for values in phonons.bands.frequencies)
    left.set_ylim(min(1.1 * phonons.lowest, -0.02 * high), 1.06 * high)
    right.tick_params(labelleft=False)
    return save(figure, path)


def draw_bands(axes: Axes, bands: Bands, *, scale: float = 1.0, color: str = BLUE) -> None:
    """Draw bands with their error bars and name the points of the path."""
    for segment, values in zip(bands.segments, bands.frequencies, strict=True):
        error = scale * values.spread
        for band in range(values.value.shape[1]):
            line = values.value[:, band]
            axes.fill_between(
                segment.distances,
                line - error[:, band],
                line + error[:, band],
                color=color,
                alpha=0.25,
                linewidth=0,
            )
            axes.plot(segment.distances, line, color=color, linewidth=1.2)
    ticks = [bands.segments[0].distances[0], *(s.distances[-1] for s in bands.segments)]
    axes.set_xticks(ticks, bands.labels)
    axes.set_xlim(ticks[0], ticks[-1])
    axes.axhline(0.0, color=GREY, linewidth=0.8)


def thermal_figure(thermal: ThermalProperties, path: Path, *, scale: float = 1.0) -> Path:
    """Draw free energy, entropy and heat capacity against temperature, and return the file."""
    figure = new_figure(2, width=4.2, height=3.4)
    left, right = figure.axes
    kelvin = thermal.temperatures
    _draw_values(left, kelvin, thermal.free_energy, scale, BLUE, "free energy")
    label_axes(left, x="temperature (K)", y="free energy (kJ/mol)")
    _draw_values(right, kelvin, thermal.entropy, scale, ORANGE, "entropy")
    _draw_values(right, kelvin, thermal.heat_capacity, scale, GREEN, "heat capacity")
    label_axes(right, x="temperature (K)", y="J/(K mol)")
    right.legend(frameon=False, fontsize=9)
    return save(figure, path)


def _draw_values(
    axes: Axes, x: np.ndarray, values: MemberValues, scale: float, color: str, name: str
) -> None:
    """Draw one quantity with its error bar."""
    error = scale * values.spread
    axes.fill_between(
        x, values.value - error, values.value + error, color=color, alpha=0.25, linewidth=0
    )
    axes.plot(x, values.value, color=color, linewidth=1.5, label=name)


def _draw_dos(axes: Axes, dos: DensityOfStates, *, scale: float) -> None:
    """Draw the density of states sideways."""
    error = scale * dos.density.spread
    axes.fill_betweenx(
        dos.frequencies,
        np.maximum(dos.density.value - error, 0.0),
        dos.density.value + error,
        color=BLUE,
        alpha=0.25,
        linewidth=0,
    )
    axes.plot(dos.density.value, dos.frequencies, color=BLUE, linewidth=1.2)
    axes.set_xlim(left=0.0)


def _draw_reference(axes: Axes, bands: Bands, name: str) -> None:
    """Draw another method's bands as dashed lines."""
    for segment, values in zip(bands.segments, bands.frequencies, strict=True):
        for band in range(values.value.shape[1]):
            axes.plot(
                segment.distances,
                values.value[:, band],
                color=BLACK,
                linewidth=0.9,
                linestyle=(0, (4, 3)),
                label=name,
            )
            name = "_"  # one entry in the legend
    axes.legend(frameon=False, fontsize=9, loc="upper right")
