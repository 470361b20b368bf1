"""Curves that a target drew beside its numbers: the mean of a committee within its members."""

import numpy as np
from matplotlib.figure import Figure

from tace_al.report.style import BLUE, ORANGE, PALETTE, label_axes, new_figure
from tace_al.report.summary import CampaignSummary

_COLOURS = {"classical": ORANGE, "quantum": BLUE}


def target_curves(summary: CampaignSummary) -> Figure | None:
    """Draw the last curves of every value of the target in one panel; None where there are none.

    The band is one standard deviation of the members on either side, the line their mean.
    """
    curves = {name: found.curve for name, found in summary.targets.items() if found.curve}
    if not curves:
        return None
    figure = new_figure(width=6.4, height=4.2)
    (axes,) = figure.axes
    for place, (name, curve) in enumerate(curves.items()):
        found = summary.targets[name]
        x, y = np.asarray(curve["x"], dtype=float), np.asarray(curve["y"], dtype=float)
        label = str(curve.get("label", name))
        colour = _COLOURS.get(label, PALETTE[place % len(PALETTE)])
        number = f"{found.value:.3f} ± {found.error_bar:.3f} {found.unit}".strip()
        axes.plot(x, y, color=colour, linewidth=1.8, label=f"{label}: {number}")
        if len(curve.get("members", ())) > 1:
            spread = np.std(np.asarray(curve["members"], dtype=float), axis=0, ddof=1)
            low = np.maximum(y - spread, 0.0) if (y >= 0.0).all() else y - spread
            axes.fill_between(x, low, y + spread, color=colour, alpha=0.25, linewidth=0)
    first = next(iter(curves.values()))
    label_axes(axes, x=str(first.get("x_label", "")), y=str(first.get("y_label", "")))
    axes.legend(frameon=False, fontsize=9)
    return figure
