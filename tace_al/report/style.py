"""How figures look: one size, one palette that colour-blind readers can tell apart, 150 dpi.

Figures are made without pyplot, so nothing global is changed and nothing stays open.
Palette: Okabe and Ito, "Color universal design" (2008).
"""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tace_al.core.atomic_write import atomic_writer

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, AMBER, GREY, BLACK = "#56B4E9", "#E69F00", "#7F7F7F", "#222222"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, AMBER, SKY, GREY, BLACK)
DPI = 150


def new_figure(num_panels: int = 1, *, width: float = 6.0, height: float = 4.0) -> Figure:
    """Return a figure with panels side by side; sizes of one panel in inches."""
    figure = Figure(figsize=(width * num_panels, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    for index in range(num_panels):
        tidy(figure.add_subplot(1, num_panels, index + 1))
    return figure


def tidy(axes: Axes) -> None:
    """Draw a light grid behind the data and no box around it."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=BLACK, labelsize=9)
    axes.grid(visible=True, color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_prop_cycle(color=PALETTE)


def label_axes(axes: Axes, *, x: str, y: str, title: str = "") -> None:
    """Name both axes, with units, and the panel."""
    axes.set_xlabel(x, fontsize=10)
    axes.set_ylabel(y, fontsize=10)
    if title:
        axes.set_title(title, fontsize=11, loc="left", color=BLACK)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all, and return its path."""
    with atomic_writer(path) as stream:
        figure.savefig(stream, format="png", dpi=DPI)
    return path
