"""Tables and learning curves of the accuracy benchmarks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy_tasks import Task

LEARNING_CURVES = ("acac",)
"""Tasks whose held-out errors are followed during training."""
HEADINGS = {
    "energy_rmse_mev": "energy, meV",
    "energy_rmse_mev_per_atom": "energy, meV/atom",
    "forces_rmse_mev_per_angstrom": "forces, meV/A",
    "stress_rmse_mev_per_angstrom3": "stress, meV/A^3",
    "dipole_rmse": "dipole, e A",
    "dipole_mae": "dipole (mean abs.), e A",
    "polarizability_rmse": "polarisability, e A^2/V",
    "polarizability_mae": "polarisability (mean abs.), e A^2/V",
    "born_charges_rmse": "Born charges, e",
    "magnetic_forces_rmse": "magnetic forces, eV/mu_B",
    "magnetic_forces_mae": "magnetic forces (mean abs.), eV/mu_B",
}


def markdown(task: Task, name: str, rows: Sequence[dict[str, Any]]) -> str:
    """Return one table for each set of held-out frames."""
    lines = [f"# {task.title}", "", task.protocol, ""]
    for held_out in rows[0]["errors"]:
        metrics = [key for key in task.metrics if any(key in _errors(r, held_out) for r in rows)]
        lines += [f"## {held_out}", "", "Root mean square errors unless said otherwise.", ""]
        lines.append(
            "| model | product | preset | parameters | training, min | epochs | "
            + " | ".join(HEADINGS[key] for key in metrics)
            + " |"
        )
        lines.append("|" + "---|" * (6 + len(metrics)))
        lines += [_line(row, held_out, metrics) for row in rows]
        lines.append("")
    settings = dict.fromkeys(_setting(row) for row in rows if "machine" in row)
    lines += [*settings, ""]
    lines.append(
        f"Written by `python -m benchmarks.accuracy {name}`. Trained for a given time by the clock "
        "on a machine that other work shared; in brackets, minutes of processor time. Options of "
        "every row are in the JSON file beside this one."
    )
    return "\n".join(lines) + "\n"


def plot_learning(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw held-out errors against training time, one line a model."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter

    trained = [row for row in rows if row.get("curve")]
    if not trained:
        return
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for row in trained:
        minutes = [point["seconds"] / 60 for point in row["curve"]]
        label = f"{row['model']}, {row['product']}, {row['preset']}, {row['device']}"
        for axis, quantity in zip(axes, ("forces", "energy"), strict=True):
            errors = [1e3 * point[quantity] for point in row["curve"]]
            axis.plot(minutes, errors, marker=".", label=label)
    for axis, unit in zip(axes, ("forces, meV/A", "energy, meV/atom"), strict=True):
        axis.set(xlabel="training time, min", ylabel=f"held-out error of {unit}")
        axis.set(xscale="log", yscale="log")
        for scale in (axis.xaxis, axis.yaxis):
            scale.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            scale.set_major_formatter("{x:g}")
            scale.set_minor_formatter(NullFormatter())
        axis.grid(which="both", alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _errors(row: dict[str, Any], held_out: str) -> dict[str, float]:
    """Return a row's errors on one set of frames."""
    errors: dict[str, float] = row["errors"].get(held_out, {})
    return errors


def _line(row: dict[str, Any], held_out: str, metrics: Sequence[str]) -> str:
    """Return one row of a table."""
    cells = [row["model"], row.get("product", ""), row.get("preset", "")]
    cells.append(f"{row['parameters']:,}" if "parameters" in row else "")
    time = ""
    if "training_seconds" in row:
        time = f"{row['training_seconds'] / 60:.1f} ({row['processor_seconds'] / 60:.1f})"
    cells += [time, str(row.get("epochs", ""))]
    errors = _errors(row, held_out)
    cells += [f"{errors[key]:.3g}" if key in errors else "-" for key in metrics]
    return "| " + " | ".join(cells) + " |"


def _setting(row: dict[str, Any]) -> str:
    """Return where and when a row was measured."""
    return f"- {row['date']}; {row['machine']}; {row['versions']}; seed {row['seed']}."
