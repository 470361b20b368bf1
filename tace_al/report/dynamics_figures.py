"""Figures of molecular dynamics: what was held, what drifted, what the committee did not know."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tace_al.report.style import label_axes, new_figure, save

MAX_POINTS = 2000
"""Points drawn of one curve; more would only make the file larger."""


def dynamics_figure(log: Mapping[str, np.ndarray], path: Path, *, num_atoms: int) -> Path:
    """Draw temperature, conserved energy, and volume or force error bars against time.

    Parameters
    ----------
    log
        Columns of a run's table (`tace_al.engines.sampling.recorded_run.COLUMNS`).
    """
    figure = new_figure(3, width=4.2, height=3.4)
    first, second, third = figure.axes
    volumes = log["volume_a3"]
    breathing = bool(np.isfinite(volumes).any()) and float(np.ptp(volumes)) > 1e-6
    for walker in np.unique(log["walker"]):
        own = np.flatnonzero(log["walker"] == walker)
        own = own[:: max(1, len(own) // MAX_POINTS)]
        picoseconds = log["time_fs"][own] / 1000.0
        first.plot(picoseconds, log["temperature_k"][own], linewidth=0.9)
        conserved = log["conserved_ev"][own]
        change = (conserved - conserved[0]) * 1e3 / num_atoms
        second.plot(picoseconds, change, linewidth=0.9)
        shown = volumes if breathing else log["uncertainty_ev_per_a"]
        third.plot(picoseconds, shown[own], linewidth=0.9)
    label_axes(first, x="time (ps)", y="temperature (K)")
    label_axes(second, x="time (ps)", y="conserved energy (meV/atom)")
    label_axes(third, x="time (ps)", y="volume (Å³)" if breathing else "force error bar (eV/Å)")
    return save(figure, path)


def ramp_figure(
    log: Mapping[str, np.ndarray], path: Path, *, num_atoms: int, heating: bool
) -> Path:
    """Draw energy, and volume or force error bars, against the temperature or time of a ramp."""
    figure = new_figure(2, width=4.6, height=3.4)
    first, second = figure.axes
    volumes = log["volume_a3"]
    breathing = bool(np.isfinite(volumes).any()) and float(np.ptp(volumes)) > 1e-6
    for walker in np.unique(log["walker"]):
        own = np.flatnonzero(log["walker"] == walker)
        own = own[:: max(1, len(own) // MAX_POINTS)]
        across = log["temperature_k"][own] if heating else log["time_fs"][own] / 1000.0
        energies = log["energy_ev"][own]
        style = "." if heating else "-"
        first.plot(across, (energies - energies[0]) / num_atoms, style, markersize=2)
        shown = volumes if breathing else log["uncertainty_ev_per_a"]
        second.plot(across, shown[own], style, markersize=2)
    below = "temperature (K)" if heating else "time (ps)"
    label_axes(first, x=below, y="potential energy (eV/atom)")
    label_axes(second, x=below, y="volume (Å³)" if breathing else "force error bar (eV/Å)")
    return save(figure, path)
