"""A campaign on the hop of oxygen on Cu(100), beside GPAW's own band: table and figure.

    tace-al run workflows/catalysis.py --set reaction=surface_hop --set labeller=gpaw --dir runs/hop
    python -m benchmarks.gpaw_surface_hop_report runs/hop

Reads `results/gpaw_surface_hop.json`, which `benchmarks.gpaw_surface_hop` wrote, puts the campaign
into it, and writes `gpaw_surface_hop.md` and `.png` beside it.
"""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from benchmarks.machine import processor
from tace_al.core.atomic_write import write_bytes
from tace_al.report.style import BLUE, GREY, ORANGE, label_axes, new_figure, save
from tace_al.store.store import Store

RESULTS = Path(__file__).parent / "results"
CHANNEL = "surface_hop"


def campaign_row(directory: Path) -> dict[str, Any]:
    """Return what a finished campaign found and what it cost."""
    with Store.open(directory, create=False) as store:
        result = store.campaign().result
        barrier = result["barriers"][CHANNEL]
        history = [
            {
                "labels": generation.num_labels,
                "barrier": generation.barriers[CHANNEL]["barrier"],
                "error_bar": generation.barriers[CHANNEL]["error_bar"],
            }
            for generation in store.generations()
            if CHANNEL in generation.barriers
        ]
        seconds = [record.seconds for record in store.labels()]
        failed = len(store.labels(state="failed"))
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": processor(),
        "barrier": barrier["barrier"],
        "error_bar": barrier["error_bar"],
        "saddle_label": barrier["saddle_label"],
        "labels": result["labels"],
        "failed_labels": failed,
        "minutes": result["seconds"] / 60,
        "seconds_per_label": float(np.median(seconds)),
        "coverage": result["coverage"],
        "reason": result["reason"],
        "history": history,
        "coordinate": barrier["coordinate"],
        "energies": barrier["energies"],
        "band": barrier["band"],
    }


def markdown(content: dict[str, Any]) -> str:
    """Return the page with table, setting and figure."""
    row, settings = content["campaign"], content["fidelity"]
    plain = content["relaxation_labels"] + content["band_labels"]
    saddle = row["saddle_label"]
    lines = [
        "# The hop of oxygen on Cu(100) with GPAW",
        "",
        f"Nine atoms, {settings['code']}, {settings['xc']}, plane waves to "
        f"{settings['cutoff']:.0f} eV, k-points {settings['kpoints']}, grid "
        f"{settings['spacing']} A, smearing {settings['smearing']} eV, free energy. Band: "
        f"{content['date']}, ASE {content['ase']}, {len(content['energies'])} images, "
        f"{content['fmax_ev_per_angstrom']} eV/A, "
        f"{'converged' if content['converged'] else 'not converged'}. Campaign: {row['date']}, "
        f"{row['machine']}, two workers.",
        "",
        "| | barrier, eV | labels | s a label |",
        "|---|---|---|---|",
        f"| GPAW's own climbing band | {content['barrier']:.3f} | {plain} "
        f"({content['computed']} computed, the rest by symmetry) "
        f"| {content['seconds_per_label']:.1f} |",
        f"| campaign | {row['barrier']:.3f} ± {row['error_bar']:.3f} | {row['labels']} "
        f"({row['failed_labels']} failed) | {row['seconds_per_label']:.1f} |",
        "",
        f"The campaign took {row['minutes']:.1f} minutes and ended: {row['reason']}. Its labeller "
        f"at the saddle point: {'not asked' if saddle is None else f'{saddle:.3f} eV'}. Difference "
        f"to the band: {row['barrier'] - content['barrier']:+.3f} eV.",
        "",
        "![Profile and history](gpaw_surface_hop.png)",
        "",
        "Written by `python -m benchmarks.gpaw_surface_hop` and "
        "`python -m benchmarks.gpaw_surface_hop_report DIR`.",
    ]
    return "\n".join(lines) + "\n"


def draw(content: dict[str, Any], path: Path) -> None:
    """Draw the two profiles, and the campaign's barrier against its labels."""
    figure = new_figure(2, width=4.8, height=3.6)
    _draw_profiles(figure.axes[0], content)
    _draw_history(figure.axes[1], content)
    save(figure, path)


def _draw_profiles(axes: Axes, content: dict[str, Any]) -> None:
    """Draw energies along the path, with the committee's band."""
    row = content["campaign"]
    x = np.asarray(row["coordinate"]) / max(row["coordinate"])
    y, band = np.asarray(row["energies"]), np.asarray(row["band"])
    axes.fill_between(x, y - band, y + band, color=BLUE, alpha=0.25, linewidth=0)
    axes.plot(x, y, color=BLUE, marker="o", markersize=3, label="campaign")
    reference = np.asarray(content["coordinates"]) / content["coordinates"][-1]
    axes.plot(
        reference, content["energies"], "s", color=ORANGE, markersize=4, label="GPAW's own band"
    )
    label_axes(axes, x="share of the path", y="energy, eV", title="O on Cu(100)")
    axes.legend(frameon=False, fontsize=8)


def _draw_history(axes: Axes, content: dict[str, Any]) -> None:
    """Draw how the barrier settled."""
    history = content["campaign"]["history"]
    axes.errorbar(
        [entry["labels"] for entry in history],
        [entry["barrier"] for entry in history],
        yerr=[entry["error_bar"] for entry in history],
        color=BLUE,
        marker="o",
        capsize=3,
    )
    axes.axhline(content["barrier"], color=GREY, linestyle="--", label="GPAW's own band")
    low, high = content["barrier"] - 0.5, content["barrier"] + 0.5
    axes.set_ylim(low, high)
    label_axes(axes, x="labels", y="barrier, eV", title="How it settled")
    axes.legend(frameon=False, fontsize=8)


def main() -> None:
    """Put a campaign beside the band."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    source = RESULTS / "gpaw_surface_hop.json"
    content = json.loads(source.read_text())
    content["campaign"] = campaign_row(arguments.directory)
    write_bytes(source, (json.dumps(content, indent=1) + "\n").encode())
    write_bytes(RESULTS / "gpaw_surface_hop.md", markdown(content).encode())
    draw(content, RESULTS / "gpaw_surface_hop.png")


if __name__ == "__main__":
    main()
