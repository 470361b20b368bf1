"""How fast energies, forces and training steps are, beside MACE and TensorNet.

    python -m benchmarks.speed [--quick] [--only ROW ...] [--peers mace tensornet] [--out FOLDER]

Builds each other code in an environment of its own on first use (`benchmarks.peers.environments`),
runs all engines in persistent processes of one pinned thread each, calls them in turn and writes
`speed.json`, `speed.md` and `speed.png`. A code that cannot be built is reported so. `--quick`
takes about ten minutes once the environments exist.
"""

import argparse
import json
import logging
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from benchmarks.machine import processor
from benchmarks.peers.connection import quietest_core
from benchmarks.peers.environments import ENVIRONMENTS, OWN
from benchmarks.speed_measurement import Budget, Engines, Measured, as_plain, measure
from benchmarks.speed_report import markdown, plot, row_lines
from benchmarks.speed_rows import GPU_ROWS, ROWS, Row
from tace_al.core.atomic_write import write_bytes

RESULTS = Path(__file__).parent / "results"
QUICK = Budget(turns=4, seconds=8.0)
FULL = Budget(turns=15, seconds=40.0)


def main() -> None:
    """Measure the rows that are asked for, show the table and write it."""
    options = parsed()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    rows = GPU_ROWS if options.device == "cuda" else ROWS
    chosen = options.only or [name for name in rows if not (options.quick and rows[name].long)]
    core = options.core if options.core is not None else quietest_core()
    peers = options.peers if options.peers is not None else used_peers(rows, chosen)
    engines = Engines([OWN, *peers], core=-1 if options.device == "cuda" else core)
    console = Console(width=140)
    budget = QUICK if options.quick else FULL
    measured: list[Measured] = []
    try:
        for name in chosen:
            measured.append(measure(name, rows[name], engines, budget))
            for line in row_lines(as_plain(measured[-1])):
                console.print(line, highlight=False, markup=False, soft_wrap=True)
    finally:
        engines.close()
    content = report(measured, engines, options)
    write(content, options.out, "speed_gpu" if options.device == "cuda" else "speed")
    console.print(Markdown(markdown(content)))


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few calls, no very large systems")
    names = [*ROWS, *GPU_ROWS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="ROW", help=", ".join(names))
    parser.add_argument("--peers", nargs="*", choices=sorted(ENVIRONMENTS), help="all by default")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--core", type=int, help="processor core; the quietest by default")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder to write to")
    return parser.parse_args(arguments)


def used_peers(rows: Mapping[str, Row], chosen: Sequence[str]) -> list[str]:
    """Return the other codes that the chosen rows compare with."""
    used = {case.engine for name in chosen for case in rows[name].cases.values()}
    return sorted(used - {OWN})


def report(
    measured: Sequence[Measured], engines: Engines, options: argparse.Namespace
) -> dict[str, Any]:
    """Return all results with what is needed to repeat them."""
    machine = f"{platform.system()} {platform.machine()}, {processor()}, one thread"
    if options.device == "cuda":
        import torch

        machine = f"{torch.cuda.get_device_name()}; host: {machine}"
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine,
        "torch": metadata.version("torch"),
        "quick": options.quick,
        "engines": engines.versions,
        "missing": engines.missing,
        "rows": [as_plain(row) for row in measured],
    }


def write(content: Mapping[str, Any], folder: Path, name: str) -> None:
    """Write the results as JSON, as a table and as a figure."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_bytes(folder / f"{name}.json", text.encode())
    write_bytes(folder / f"{name}.md", markdown(content).encode())
    plot(content["rows"], folder / f"{name}.png")


if __name__ == "__main__":
    main()
