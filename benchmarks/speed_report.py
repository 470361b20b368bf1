"""The table and the figure of the speed benchmark."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FOOT = (
    "Ratios are of medians of processor time (on a GPU: of the clock), all columns of a row taken "
    "in turn (molecules five calls a turn), on one core and one thread, energy and forces through "
    "ASE's calculators, every structure rattled anew, random weights. Time by the clock is in "
    "brackets: on a machine that others share it says more about them."
)


def markdown(content: Mapping[str, Any]) -> str:
    """Return the whole report."""
    lines = [
        "# Speed",
        "",
        f"{content['date']}; {content['machine']}; PyTorch {content['torch']}"
        + ("; a short run (`--quick`)." if content["quick"] else "."),
        "",
        "| work | measured | ratio | goal | reached |",
        "|---|---|---|---|---|",
    ]
    lines += [line for row in content["rows"] for line in row_lines(row)]
    lines += ["", FOOT, ""]
    for name, versions in content["engines"].items():
        described = ", ".join(f"{package} {version}" for package, version in versions.items())
        lines.append(f"- {name}: {described}.")
    for name, reason in content["missing"].items():
        lines.append(f"- {name} is not available: {reason}.")
    lines += ["", "Written by `python -m benchmarks.speed`."]
    return "\n".join(lines) + "\n"


def row_lines(row: Mapping[str, Any]) -> list[str]:
    """Return the lines of one row, one a goal."""
    cells = "; ".join(cell_text(label, cell, row["unit"]) for label, cell in row["cells"].items())
    lines = []
    for index, goal in enumerate(row["goals"]):
        over, under = goal["ratio of"]
        bound = f"≥ {goal['at least']:g}" if "at least" in goal else f"≤ {goal['at most']:g}"
        ratio = goal["measured"]
        title, measured = (row["title"], cells) if index == 0 else ("", "")
        found = "not measured" if ratio is None else f"{ratio:.3g}"
        reached = {None: "", True: "yes", False: "no"}[goal["reached"]]
        lines.append(f"| {title} | {measured} | {over} / {under}: {found} | {bound} | {reached} |")
    return lines


def cell_text(label: str, cell: Mapping[str, Any], unit: str) -> str:
    """Return what one engine took."""
    if "value" not in cell:
        return f"{label}: {cell.get('failure', 'not measured')}"
    wall = f" ({cell['wall']:.3g})" if "wall" in cell else ""
    return f"{label} {cell['value']:.3g}{wall} {unit}"


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw how many times faster we are than the others, with the goals, and the scaling."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    compared = [row for row in rows if "MACE" in row["cells"] and row["unit"] == "ms"]
    scaled = [row for row in rows if row["unit"] == "µs"]
    if not compared:
        return
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for offset, code in ((-0.2, "MACE"), (0.2, "TensorNet")):
        places, ratios, bounds = [], [], []
        for index, row in enumerate(compared):
            for goal in row["goals"]:
                if goal["ratio of"][0] == code and goal["measured"] is not None:
                    places.append(index + offset)
                    ratios.append(goal["measured"])
                    bounds.append(goal["at least"])
        axes[0].barh(places, ratios, height=0.36, label=f"against {code}")
        axes[0].plot(bounds, places, "k|", markersize=14, label=None if offset > 0 else "goal")
    axes[0].set_yticks(range(len(compared)), [row["title"] for row in compared], fontsize=8)
    axes[0].invert_yaxis()
    axes[0].set_xlabel("times faster, processor time")
    axes[0].legend()
    points = {
        int(label.split()[1]): cell["value"]
        for row in scaled
        for label, cell in row["cells"].items()
        if "value" in cell
    }
    sizes = sorted(points)
    axes[1].plot(sizes, [points[size] for size in sizes], "o-")
    axes[1].set(xscale="log", xlabel="atoms of water", ylabel="µs per atom")
    axes[1].set_ylim(bottom=0.0)
    axes[1].set_xticks(sizes, [str(size) for size in sizes])
    axes[1].minorticks_off()
    axes[1].grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)
