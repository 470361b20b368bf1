"""Platinum atoms on platinum: a sticking probability from first label, beside effective medium's.

    python -m benchmarks.beam_sticking --dir DIR

Runs `workflows/nonequilibrium.py` in DIR (or goes on with it), then the same beam on the labeller
itself, and writes `results/beam_sticking.{json,md,png}`.
"""

import argparse
import json
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from ase.calculators.emt import EMT
from rich.console import Console

from benchmarks.machine import processor
from tace_al.campaign.loop import run_campaign
from tace_al.core.atomic_write import write_bytes
from tace_al.engines.sampling.beam import BeamSettings, sticking
from tace_al.engines.sampling.beam_run import run_beam
from tace_al.engines.sampling.potential import CalculatorPotential
from tace_al.report.style import save
from tace_al.report.summary import read_summary
from tace_al.report.target_figure import target_convergence
from tace_al.store.store import Store
from tace_al.workflows.nonequilibrium import campaign, clean_surface

RESULTS = Path(__file__).parent / "results"
NUM_REFERENCE = 32


def reference(options: dict[str, Any]) -> dict[str, Any]:
    """Return the sticking of the campaign's beam on effective-medium theory itself."""
    names = ("projectile", "energy_ev", "angle", "temperature", "timestep_fs", "stick_fs")
    settings = BeamSettings(**{name: options[name] for name in names}, equilibration=100)
    batches = run_beam(
        CalculatorPotential(EMT()),
        clean_surface("Pt", "111"),
        settings,
        number=NUM_REFERENCE,
        seed=11,
    )
    return sticking([impact for batch in batches for impact in batch])


def main() -> None:
    """Run campaign and reference, and write what came of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", type=Path, required=True)
    directory = parser.parse_args().dir
    chosen = campaign()
    result = run_campaign(chosen, directory=directory, uri=None, console=Console())
    with Store.open(directory, create=False) as store:
        figure = target_convergence(read_summary(store))
    if figure is not None:
        save(figure, RESULTS / "beam_sticking.png")
    (name, found), *_ = result.targets.items()
    assert chosen.target is not None
    content = {
        "beam": {key: value for key, value in chosen.target.options.items() if key != "number"},
        "campaign": {key: found[key] for key in ("value", "error_bar", "members", "verdicts")},
        "reference": reference(chosen.target.options),
        "channel": name,
        "reason": result.reason,
        "labels": result.num_labels,
        "coverage": result.coverage,
        "seconds": result.seconds,
        "processor": processor(),
        "python": platform.python_version(),
        "versions": {package: metadata.version(package) for package in ("ase", "numpy", "torch")},
        "date": datetime.now(UTC).date().isoformat(),
    }
    text = json.dumps(content, indent=1) + "\n"
    write_bytes(RESULTS / "beam_sticking.json", text.encode())
    write_bytes(RESULTS / "beam_sticking.md", markdown(content).encode())


def told(verdicts: dict[str, int]) -> str:
    """Return how many atoms came to which end, as words."""
    return ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())


def markdown(content: dict[str, Any]) -> str:
    """Return the results as a page."""
    beam, mine, known = content["beam"], content["campaign"], content["reference"]
    return f"""# Sticking of {beam["projectile"]} on Pt(111)

{beam["energy_ev"]} eV, {beam["angle"]}° from the normal, {beam["temperature"]} K.

| | sticking probability | verdicts |
|---|---|---|
| committee | {mine["value"]:.3f} ± {mine["error_bar"]:.3f} | {told(mine["verdicts"])} |
| effective medium itself | {known["sticking_probability"]:.3f} ± \
{known["sticking_probability_error"]:.3f} | {told(known["verdicts"])} |

{content["labels"]} labels, {content["seconds"] / 60:.1f} minutes on two cores
({content["processor"]}), {content["date"]}. {content["reason"]}.

![convergence](beam_sticking.png)

`python -m benchmarks.beam_sticking --dir DIR`
"""


if __name__ == "__main__":
    main()
