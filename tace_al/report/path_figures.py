"""Figures of reaction paths: energies along a band with the committee's spread."""

from pathlib import Path

import numpy as np
from scipy.interpolate import CubicHermiteSpline

from tace_al.report.style import BLUE, GREY, ORANGE, label_axes, new_figure, save


def band_figure(
    path: Path,
    *,
    coordinate: np.ndarray,
    energies: np.ndarray,
    slopes: np.ndarray,
    spreads: np.ndarray,
    barrier: float,
) -> Path:
    """Draw a band.

    Parameters
    ----------
    coordinate
        (images,) arc length in A.
    energies, spreads
        (images,) in eV, relative to the first image, and their error bars.
    slopes
        (images,) dE/ds in eV/A, which shape the line between images.
    barrier
        In eV above the first image.
    """
    figure = new_figure()
    (axes,) = figure.axes
    fine = np.linspace(coordinate[0], coordinate[-1], 300)
    if np.diff(coordinate).min() > 0:
        axes.plot(fine, CubicHermiteSpline(coordinate, energies, slopes)(fine), color=BLUE)
    if spreads.max(initial=0.0) > 0.0:
        axes.fill_between(
            coordinate, energies - spreads, energies + spreads, color=BLUE, alpha=0.2, linewidth=0
        )
    axes.plot(coordinate, energies, "o", color=BLUE, markersize=5)
    axes.axhline(barrier, color=ORANGE, linewidth=0.9, linestyle="--")
    axes.axhline(0.0, color=GREY, linewidth=0.7)
    label_axes(
        axes, x="path length (Å)", y="energy (eV)", title=f"barrier {barrier:.3f} eV, dashed"
    )
    return save(figure, path)


def search_figure(
    path: Path, *, energies: np.ndarray, curvatures: np.ndarray, error_bars: np.ndarray
) -> Path:
    """Draw energy and lowest curvature along the steps of a saddle search.

    Parameters
    ----------
    energies, curvatures, error_bars
        (steps,) in eV, eV/A^2 and eV/A.
    """
    figure = new_figure(2, width=4.6, height=3.4)
    first, second = figure.axes
    steps = np.arange(len(energies))
    first.plot(steps, energies, color=BLUE)
    label_axes(first, x="step", y="energy above the start (eV)")
    second.plot(steps, curvatures, color=ORANGE)
    second.axhline(0.0, color=GREY, linewidth=0.7)
    label = "lowest curvature (eV/Å²)"
    if error_bars.max(initial=0.0) > 0.0:
        second.plot(steps, error_bars, color=BLUE)
        label += ", force error bar (eV/Å, blue)"
    label_axes(second, x="step", y=label)
    return save(figure, path)
