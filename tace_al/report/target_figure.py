"""How a campaign's target converged: its values with their error bars against the labels used."""

from matplotlib.figure import Figure

from tace_al.report.style import PALETTE, label_axes, new_figure
from tace_al.report.summary import CampaignSummary

MOST_PANELS = 6


def target_convergence(summary: CampaignSummary) -> Figure | None:
    """Draw every value of the target against the number of labels; None without a target."""
    units = {name: one.unit for item in summary.generations for name, one in item.targets.items()}
    names = list(units)[:MOST_PANELS]
    if not names:
        return None
    figure = new_figure(len(names), width=4.6, height=3.6)
    for place, (axes, name) in enumerate(zip(figure.axes, names, strict=True)):
        judged = [item for item in summary.generations if name in item.targets]
        axes.errorbar(
            [item.num_labels for item in judged],
            [item.targets[name].value for item in judged],
            yerr=[item.targets[name].error_bar for item in judged],
            fmt="o-",
            color=PALETTE[place % len(PALETTE)],
            capsize=3,
            linewidth=1.4,
            markersize=5,
        )
        unit = f" ({units[name]})" if units[name] else ""
        label_axes(axes, x="labels", y=f"value{unit}", title=name)
    return figure
