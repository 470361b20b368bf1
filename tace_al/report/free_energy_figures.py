"""Figures of free energies in one or two collective variables."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tace_al.report.style import BLUE, label_axes, new_figure, save

SHOWN = 1.5
"""eV above the lowest; higher is cut off, for it was hardly visited."""


def profile_figure(
    path: Path, *, grid: np.ndarray, energies: np.ndarray, errors: np.ndarray, label: str
) -> Path:
    """Draw F(s) in eV with its error band."""
    figure = new_figure()
    (axes,) = figure.axes
    axes.fill_between(
        grid, energies - errors, energies + errors, color=BLUE, alpha=0.25, linewidth=0
    )
    axes.plot(grid, energies, color=BLUE)
    axes.set_ylim(bottom=min(0.0, float((energies - errors).min())), top=None)
    if energies.max() > SHOWN:
        axes.set_ylim(top=SHOWN)
    label_axes(axes, x=label, y="free energy (eV)")
    return save(figure, path)


def surface_figure(
    path: Path, *, axes: Sequence[np.ndarray], energies: np.ndarray, labels: Sequence[str]
) -> Path:
    """Draw F(s, t) in eV, (first, second) on its grid, as a map."""
    figure = new_figure()
    (plot,) = figure.axes
    plot.grid(visible=False)
    highest = min(SHOWN, float(energies.max()))
    levels = np.linspace(0.0, max(highest, 1e-3), 16)
    shown = plot.contourf(axes[0], axes[1], energies.T, levels=levels, cmap="viridis_r")
    figure.colorbar(shown, label="free energy (eV)")
    label_axes(plot, x=labels[0], y=labels[1])
    return save(figure, path)
