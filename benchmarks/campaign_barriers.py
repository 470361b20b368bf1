"""What campaigns find, and what it costs: barriers with error bars against plain elastic bands.

    python -m benchmarks.campaign_barriers [NAME ...] [--seeds 3]

Runs whole campaigns (carbonic_acid, surface_hop, proton_transfer, or any reaction of
`tace_al.workflows.reactions` as one the settings were not tuned on) in fresh folders, one after the
other on all cores, and compares each barrier with the reference that a band on the labeller itself
gives (`benchmarks.reference_barriers`). Writes `results/campaign_barriers.json` and `.md`.
"""

import argparse
import json
import os
import platform
import tempfile
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console

from tace_al.campaign.config import Campaign, Stopping
from tace_al.campaign.loop import run_campaign
from tace_al.campaign.outcome import CampaignResult
from tace_al.core.atomic_write import write_bytes
from tace_al.workflows import catalysis, proton_transfer, reactions

RESULTS = Path(__file__).parent / "results"
DEFAULT = ("carbonic_acid", "surface_hop", "proton_transfer")


def campaign_of(name: str, seed: int) -> Campaign:
    """Return the campaign called `name`."""
    if name in catalysis.REACTIONS:
        return catalysis.campaign(reaction=name, seed=seed)
    if name == "proton_transfer":
        return proton_transfer.campaign(seed=seed)
    return catalysis.barrier_campaign(
        name,
        {name: reactions.BUILDERS[name]()},
        labeller="gfn2",
        stopping=Stopping(max_labels=300, max_seconds=720.0),
        references={name: reactions.REFERENCE_BARRIERS[name]},
        seed=seed,
    )


def rows_of(result: CampaignResult, seed: int) -> list[dict[str, Any]]:
    """Return one row a channel."""
    return [
        {
            "campaign": result.name,
            "channel": channel,
            "seed": seed,
            "barrier_ev": barrier["barrier"],
            "error_bar_ev": barrier["error_bar"],
            "reference_ev": result.references.get(channel),
            "labeller_at_saddle_ev": barrier["saddle_label"],
            "labels": result.num_labels,
            "coverage": result.coverage,
            "minutes": result.seconds / 60,
            "reason": result.reason,
        }
        for channel, barrier in result.barriers.items()
    ]


def markdown(rows: list[dict[str, Any]], setting: dict[str, Any]) -> str:
    """Return the table with its setting."""
    lines = [
        "# Barriers from campaigns",
        "",
        ", ".join(f"{key} {value}" for key, value in setting.items()),
        "",
        "| campaign | channel | seed | barrier, eV | reference | at saddle | labels | min | end |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        reference = "–" if row["reference_ev"] is None else f"{row['reference_ev']:.3f}"
        saddle = row["labeller_at_saddle_ev"]
        lines.append(
            f"| {row['campaign']} | {row['channel']} | {row['seed']} | {row['barrier_ev']:.3f} ± "
            f"{row['error_bar_ev']:.3f} | {reference} | "
            f"{'–' if saddle is None else f'{saddle:.3f}'} | {row['labels']} | "
            f"{row['minutes']:.1f} | {row['reason'].partition(':')[0]} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the campaigns and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(DEFAULT))
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    setting = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("torch", "tblite", "ase", "parsl", "tace-al")},
    }
    console = Console()
    rows: list[dict[str, Any]] = []
    for name in arguments.names:
        for seed in range(arguments.seeds):
            with tempfile.TemporaryDirectory() as folder:
                result = run_campaign(
                    campaign_of(name, seed), directory=Path(folder), uri=None, console=console
                )
            rows += rows_of(result, seed)
            # times mean little on cores that other programs use too
            setting["load average"] = f"{os.getloadavg()[2]:.1f}"
            console.print(result.summary(), highlight=False)
            content = json.dumps({"setting": setting, "rows": rows}, indent=1)
            write_bytes(RESULTS / "campaign_barriers.json", content.encode())
            write_bytes(RESULTS / "campaign_barriers.md", markdown(rows, setting).encode())


if __name__ == "__main__":
    main()
