"""How many expensive labels two levels of theory save: GFN1 and GFN2-xTB.

    python -m benchmarks.two_fidelities [REACTION ...] [--seeds 3] [--only two|single] [--dir DIR]

Runs campaigns with GFN2 alone and with GFN1 everywhere and GFN2 where the levels' difference is
uncertain, same network, same stopping rule, same end states, and counts the GFN2 labels each needed
for a barrier within 0.03 eV of GFN2's own. Reactions: `malonaldehyde`, the proton transfer (GFN1
0.056, GFN2 0.163 eV; ten minutes a campaign), and `ammonia_inversion` (0.185, 0.265 eV; half a
minute). Every campaign lies in its own folder below `--dir` (runs/two_fidelities): the same command
goes on with what was begun and runs what is missing. Writes `results/two_fidelities.json`, `.md`
and `.png`.

What a campaign needed is counted in two ways, alike for both kinds:

- converged: the GFN2 labels spent when the campaign's own rule (`selection/stopping.py`: two
  generations agree, error bars at most 0.025 eV, the labeller agrees at the saddle point) ended it,
  if its barrier was then within 0.03 eV;
- settled: the GFN2 labels in the Store when the first generation began whose barrier, and that of
  all later ones, lay within 0.03 eV on a converged path. Only hindsight tells it.

Every GFN2 label counts: relaxation of end states, isolated atoms, calibration, checks of saddle
points, failed ones.
"""

import argparse
import itertools
import json
import os
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.machine import processor
from tace_al.campaign.config import Campaign
from tace_al.campaign.loop import run_campaign
from tace_al.core.atomic_write import write_bytes
from tace_al.report.style import BLUE, GREY, ORANGE, label_axes, new_figure, save
from tace_al.store.store import Store
from tace_al.workflows.catalysis import barrier_campaign
from tace_al.workflows.reactions import BUILDERS, REFERENCE_BARRIERS

RESULTS = Path(__file__).parent / "results"
TOLERANCE = 0.03
EXPENSIVE = "gfn2"
KINDS = ("single", "two")
MODELS: dict[str, dict[str, Any]] = {
    "malonaldehyde": {"members": 3, "first_epochs": 80, "epochs": 25, "seconds": 600.0},
    "ammonia_inversion": {
        "options": {"channels": 16},
        "members": 3,
        "first_epochs": 40,
        "epochs": 15,
        "seconds": 600.0,
    },
}
"""Epochs, not seconds, end a training, so that a busy machine changes no number of labels."""
MINUTES = 40.0


def campaign_of(reaction: str, kind: str, seed: int) -> Campaign:
    """Return one campaign; both kinds differ in their levels alone."""
    campaign = barrier_campaign(
        reaction, {reaction: BUILDERS[reaction]()}, labeller=EXPENSIVE, seed=seed
    )
    content = campaign.model_dump(mode="json")
    content["model"] |= MODELS[reaction]
    content["stopping"] |= {"max_labels": 500, "max_seconds": 60 * MINUTES}
    if kind == "two":
        content["fidelities"] = ["gfn1", EXPENSIVE]
    return Campaign.build(**content)


def row_of(reaction: str, kind: str, seed: int, directory: Path) -> dict[str, Any]:
    """Return what the Store of a finished campaign says."""
    reference = REFERENCE_BARRIERS[reaction]
    with Store.open(directory, create=False) as store:
        labels = store.labels(state=None)
        result = dict(store.campaign().result)
        generations = [
            {
                "number": record.number,
                "expensive_labels": sum(
                    label.fidelity_name == EXPENSIVE and label.created <= record.started
                    for label in labels
                ),
                **{
                    name: (record.barriers or {}).get(reaction, {}).get(name)
                    for name in ("barrier", "error_bar", "converged")
                },
            }
            for record in store.generations()
            if record.state in ("serving", "retired")
        ]
    barrier = result["barriers"][reaction]
    expensive = sum(label.fidelity_name == EXPENSIVE for label in labels)
    converged = result["reason"].startswith("converged")
    right = abs(barrier["barrier"] - reference) <= TOLERANCE
    return {
        "reaction": reaction,
        "kind": kind,
        "seed": seed,
        "barrier_ev": barrier["barrier"],
        "error_bar_ev": barrier["error_bar"],
        "error_ev": barrier["barrier"] - reference,
        "expensive_labels": expensive,
        "cheap_labels": len(labels) - expensive,
        "needed_converged": expensive if converged and right else None,
        "needed_settled": settled(generations, reference),
        "reason": result["reason"].partition(":")[0],
        "minutes": result["seconds"] / 60,
        "generations": generations,
    }


def settled(generations: list[dict[str, Any]], reference: float) -> int | None:
    """Return the labels with which the barrier first was, and stayed, within the tolerance."""
    needed = None
    for generation in generations:
        value = generation["barrier"]
        right = generation["converged"] and abs(value - reference) <= TOLERANCE
        if not right:
            needed = None
        elif needed is None:
            needed = generation["expensive_labels"]
    return needed


def ratios(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return by reaction what two levels needed over what one did, by the seeds that both have."""
    reactions = dict.fromkeys(row["reaction"] for row in rows)
    return {name: _ratios([r for r in rows if r["reaction"] == name]) for name in reactions}


def _ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the ratios of one reaction, means over seeds."""
    found = {}
    for name in ("needed_converged", "needed_settled"):
        by_kind = {
            kind: {row["seed"]: row[name] for row in rows if row["kind"] == kind and row[name]}
            for kind in KINDS
        }
        shared = by_kind["single"].keys() & by_kind["two"].keys()
        if shared:
            two, single = (sum(by_kind[kind][s] for s in shared) for kind in ("two", "single"))
            found[name] = two / single
    return found


def markdown(rows: list[dict[str, Any]], setting: dict[str, Any]) -> str:
    """Return the table with its setting."""
    lines = [
        "# Two levels of theory against one",
        "",
        ", ".join(f"{key} {value}" for key, value in setting.items()),
        "",
        "Written by `python -m benchmarks.two_fidelities`, whose opening defines what is counted.",
        f"Tolerance {TOLERANCE} eV; every GFN2 label counts, in both kinds of campaign.",
        "",
        "![Error of the barrier by GFN2 labels](two_fidelities.png)",
        "",
        "| reaction | levels | seed | barrier, eV | reference | GFN2 labels | GFN1 labels | "
        "needed, converged | needed, settled | min | end |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (row["reaction"], row["kind"], row["seed"])):
        levels = "GFN1 + GFN2" if row["kind"] == "two" else "GFN2"
        needed = [row["needed_converged"], row["needed_settled"]]
        told = " | ".join("not reached" if one is None else str(one) for one in needed)
        lines.append(
            f"| {row['reaction']} | {levels} | {row['seed']} | {row['barrier_ev']:.3f} ± "
            f"{row['error_bar_ev']:.3f} | {REFERENCE_BARRIERS[row['reaction']]:.3f} | "
            f"{row['expensive_labels']} | {row['cheap_labels']} | {told} | "
            f"{row['minutes']:.1f} | {row['reason']} |"
        )
    for reaction, found in ratios(rows).items():
        for name, ratio in found.items():
            word = name.removeprefix("needed_")
            lines += [
                "",
                f"{reaction}, share of the single level's labels, {word}: **{ratio:.0%}**",
            ]
    return "\n".join(lines) + "\n"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the error of every generation's barrier by its GFN2 labels, a panel a reaction."""
    reactions = list(dict.fromkeys(row["reaction"] for row in rows))
    figure = new_figure(len(reactions), width=4.6, height=3.4)
    for axes, reaction in zip(figure.axes, reactions, strict=True):
        for row in (row for row in rows if row["reaction"] == reaction):
            kept = [one for one in row["generations"] if one["converged"]]
            errors = [one["barrier"] - REFERENCE_BARRIERS[reaction] for one in kept]
            two = row["kind"] == "two"
            axes.plot(
                [one["expensive_labels"] for one in kept],
                errors,
                "o-" if two else "s-",
                color=ORANGE if two else BLUE,
                label=("GFN1 + GFN2" if two else "GFN2") if row["seed"] == 0 else None,
                markersize=4,
                linewidth=1.2,
            )
        axes.axhspan(-TOLERANCE, TOLERANCE, color=GREY, alpha=0.15, linewidth=0)
        label_axes(
            axes, x="GFN2 labels", y="error of the barrier, eV", title=reaction.replace("_", " ")
        )
        axes.legend(fontsize=9, frameon=False)
    save(figure, path)


def main() -> None:
    """Run what is missing and write the results after every campaign."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reactions", nargs="*", default=list(MODELS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=KINDS)
    parser.add_argument("--dir", type=Path, default=Path("runs/two_fidelities"))
    parser.add_argument("--report", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    console, rows = Console(), []
    cases = itertools.product(arguments.reactions, range(arguments.seeds), KINDS)
    for reaction, seed, kind in cases:
        directory = arguments.dir / f"{reaction}-{kind}-{seed}"
        wanted = arguments.only in (None, kind) and not arguments.report
        if wanted and not finished(directory):
            campaign = campaign_of(reaction, kind, seed)
            run_campaign(campaign, directory=directory, uri=None, console=console)
        if finished(directory):
            rows.append(row_of(reaction, kind, seed, directory))
            write_results(rows)


def write_results(rows: list[dict[str, Any]]) -> None:
    """Write the table and everything it was made from."""
    setting = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{processor()}, {len(os.sched_getaffinity(0))} cores",
        **{name: metadata.version(name) for name in ("torch", "tblite", "ase", "tace-al")},
    }
    content = {"setting": setting, "ratios": ratios(rows), "rows": rows}
    write_bytes(RESULTS / "two_fidelities.json", json.dumps(content, indent=1).encode())
    write_bytes(RESULTS / "two_fidelities.md", markdown(rows, setting).encode())
    draw(rows, RESULTS / "two_fidelities.png")


def finished(directory: Path) -> bool:
    """Return whether a folder holds a campaign that ended."""
    if not (directory / "campaign.json").exists():
        return False
    with Store.open(directory, create=False) as store:
        return store.campaign().state == "finished"


if __name__ == "__main__":
    main()
