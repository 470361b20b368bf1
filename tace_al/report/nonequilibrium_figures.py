"""Figures of beams, shear and heat currents."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tace_al.report.style import BLUE, GREY, ORANGE, PALETTE, label_axes, new_figure, save

VERDICTS = ("stuck", "penetrated", "reflected", "sputtered", "undecided", "broken")


def beam_figure(impacts: Sequence[Mapping[str, Any]], path: Path, *, title: str) -> Path:
    """Draw how many trajectories came to what, and the projectiles' energies afterwards."""
    figure = new_figure(2, width=4.2, height=3.4)
    bars, energies = figure.axes
    counts = Counter(impact["verdict"] for impact in impacts)
    seen = [verdict for verdict in VERDICTS if counts[verdict]]
    for place, verdict in enumerate(seen):
        colour = PALETTE[VERDICTS.index(verdict)]
        bars.bar(place, counts[verdict], color=colour)
        own = [one["energy_ev"] for one in impacts if one["verdict"] == verdict]
        energies.plot(
            [one["time_fs"] for one in impacts if one["verdict"] == verdict],
            own,
            "o",
            markersize=4,
            color=colour,
            label=verdict,
        )
    bars.set_xticks(range(len(seen)), labels=seen)
    label_axes(bars, x="", y="trajectories", title=title)
    label_axes(energies, x="length of the trajectory (fs)", y="projectile's last energy (eV)")
    energies.legend(frameon=False, fontsize=8)
    return save(figure, path)


def profile_figure(
    path: Path,
    *,
    places: np.ndarray,
    profile: np.ndarray,
    quantity: str,
    times: np.ndarray,
    running: np.ndarray,
    result: str,
) -> Path:
    """Draw a steady profile, and how a running mean settled.

    Parameters
    ----------
    places, profile
        (bins,) in A, and the profile there.
    quantity, result
        Names with units, for the axes.
    times, running
        In ps, and the running mean of the result.
    """
    figure = new_figure(2, width=4.4, height=3.4)
    first, second = figure.axes
    first.plot(places, profile, "o-", color=BLUE, markersize=4, linewidth=1.2)
    label_axes(first, x="place in the cell (Å)", y=quantity)
    second.plot(times, running, color=ORANGE, linewidth=1.4)
    if len(running):
        second.axhline(float(running[-1]), color=GREY, linestyle="--", linewidth=1.0)
    label_axes(second, x="time (ps)", y=f"running mean: {result}")
    return save(figure, path)
