"""Publish what the path-integral campaign found: densities of a shared proton, with error bars.

    tace-al run workflows/path_integral.py
    python -m benchmarks.path_integral runs/path_integral_zundel

Reads the campaign's folder and writes benchmarks/results/NAME.json, .md and .png: the classical and
the quantum width of the last generation, how they came about generation by generation, and both
densities with the committee's band.
"""

import argparse
import json
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.machine import processor
from tace_al.report.curve_figure import target_curves
from tace_al.report.style import save
from tace_al.report.summary import CampaignSummary, read_summary
from tace_al.store.store import Store

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Read a campaign, write its result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--note", default="", help="How it was run, where that matters.")
    options = parser.parse_args()
    folder = options.folder
    with Store.open(folder, create=False) as store:
        summary = read_summary(store)
    figure = target_curves(summary)
    if figure is None:
        raise SystemExit(f"{folder} has no densities yet; let the campaign finish a generation")
    name = summary.name
    save(figure, RESULTS / f"{name}.png")
    content = {**result(summary), "note": options.note}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(text(summary, options.note))
    print(text(summary, options.note))


def result(summary: CampaignSummary) -> dict[str, object]:
    """Return the numbers as plain data."""
    last = next(one for one in reversed(summary.generations) if one.targets)
    seconds = (summary.last_seen - summary.created).total_seconds()
    return {
        "campaign": summary.name,
        "state": summary.state,
        "labels": last.num_labels,
        "coverage": last.coverage,
        "wall_s": round(seconds),
        "targets": {
            name: {"value": found.value, "error_bar": found.error_bar, "unit": found.unit}
            for name, found in summary.targets.items()
        },
        "generations": [
            {
                "number": one.number,
                "labels": one.num_labels,
                **{name: [found.value, found.error_bar] for name, found in one.targets.items()},
            }
            for one in summary.generations
            if one.targets
        ],
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in ("torch", "ipi", "tblite")},
    }


def text(summary: CampaignSummary, note: str) -> str:
    """Return the result as Markdown."""
    lines = [
        f"# {summary.name}",
        "",
        f"`tace-al run workflows/path_integral.py`, {processor()}, i-PI {version('ipi')}, "
        f"{datetime.now(UTC).date().isoformat()}; the campaign is {summary.state}. {note}".strip(),
        "",
        f"![Densities along the proton-sharing coordinate]({summary.name}.png)",
        "",
        "| generation | labels | classical width, Å | quantum width, Å |",
        "|---|---|---|---|",
    ]
    for one in summary.generations:
        if not one.targets:  # still training
            continue
        widths = [one.targets.get(name) for name in ("classical_width", "quantum_width")]
        told = [f"{w.value:.3f} ± {w.error_bar:.3f}" if w else "–" for w in widths]
        lines.append(f"| {one.number} | {one.num_labels} | {told[0]} | {told[1]} |")
    lines += [
        "",
        "Width: sqrt of the mean square of r(O–H) − r(H–O) at 300 K; error bars hold the "
        "committee's spread and sampling. Bands are one standard deviation of the members.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
