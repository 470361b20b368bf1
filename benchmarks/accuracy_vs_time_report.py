"""The table and the curves of `benchmarks.accuracy_vs_time`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

GOAL = 0.8
"""Our force error as a share of the better of the others."""
LABELS = {"tace": "tace-al", "mace": "MACE", "tensornet": "TensorNet"}


def markdown(content: Mapping[str, Any]) -> str:
    """Return the whole report."""
    kind = "published test files" if content["test"] else "frames set aside before training"
    lines = [
        f"# Accuracy after {content['minutes']:g} minutes: {content['title']}",
        "",
        f"{content['date']}; {content['machine']}; PyTorch {content['torch']}. From nothing, the "
        f"same frames and time by the clock; judged on {kind}. Root mean square errors: forces in "
        "meV/A, energy in meV per atom.",
        "",
    ]
    for judged in judged_names(content["rows"]):
        lines += [
            f"## {judged}",
            "",
            "| code | seed | parameters | epochs | processor, min | forces | energy |",
            "|---|---|---|---|---|---|---|",
            *(row_line(row, judged) for row in content["rows"]),
            "",
            goal_line(content["rows"], judged),
            "",
        ]
    lines.append("Written by `python -m benchmarks.accuracy_vs_time`.")
    return "\n".join(lines) + "\n"


def judged_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of all sets of judged frames."""
    return list(dict.fromkeys(name for row in rows for name in row.get("errors", {})))


def row_line(row: Mapping[str, Any], judged: str) -> str:
    """Return one line of a table."""
    label = LABELS[row["engine"]]
    if "failure" in row:
        return f"| {label} | {row['seed']} | not available: {row['failure']} |||||"
    errors = row["errors"][judged]
    return (
        f"| {label} | {row['seed']} | {row['parameters']:,} | {row['epochs']} "
        f"| {row['processor_seconds'] / 60:.1f} | {1e3 * errors['forces']:.1f} "
        f"| {1e3 * errors['energy']:.2f} |"
    )


def goal_line(rows: Sequence[Mapping[str, Any]], judged: str) -> str:
    """Return how our error compares with the better of the others, by means over seeds."""
    means: dict[str, float] = {}
    for engine in LABELS:
        found = [row["errors"][judged]["forces"] for row in rows_of(rows, engine)]
        if found:
            means[engine] = float(np.mean(found))
    others = {engine: error for engine, error in means.items() if engine != "tace"}
    if "tace" not in means or not others:
        return f"Goal: at most {GOAL} of the better of the others; not measured."
    best = min(others, key=lambda engine: others[engine])
    ratio = means["tace"] / others[best]
    reached = "reached" if ratio <= GOAL else "not reached"
    return f"Forces: {ratio:.2f} of {LABELS[best]}'s error; goal at most {GOAL}: {reached}."


def rows_of(rows: Sequence[Mapping[str, Any]], engine: str) -> list[Mapping[str, Any]]:
    """Return the rows of an engine that have a result."""
    return [row for row in rows if row["engine"] == engine and "errors" in row]


def plot(content: Mapping[str, Any], path: Path) -> None:
    """Draw force errors of the frames that choose the epoch against minutes."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter

    figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
    for index, (engine, label) in enumerate(LABELS.items()):
        for number, row in enumerate(rows_of(content["rows"], engine)):
            minutes = [point["seconds"] / 60 for point in row["curve"]]
            errors = [1e3 * point["forces"] for point in row["curve"]]
            name = label if number == 0 else None
            axis.plot(minutes, errors, color=f"C{index}", label=name)
    axis.set(
        xlabel="minutes of training",
        ylabel="error of forces on validation frames, meV/A",
        yscale="log",
        title=content["title"],
    )
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.grid(which="both", alpha=0.3)
    if axis.get_legend_handles_labels()[0]:
        axis.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
