"""What a preset costs: parameters, time and memory of energy and forces through ASE, one thread.

    python -m benchmarks.preset_costs

Presets `small`, `medium` and `large`, and each option of the interaction on `small`, on 64 water
molecules in a periodic box (192 atoms) and on ethanol (9 atoms). Every case has a process of its
own, whose memory is measured from the loaded model to the highest point of the evaluation. Times
are processor time of the fastest of many calls: other work on the machine only ever adds to it.
"""

import json
import multiprocessing
import platform
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule
from rich.console import Console
from rich.progress import track
from scipy.spatial.transform import Rotation

from benchmarks.machine import processor
from tace_al.core.atomic_write import write_bytes
from tace_al.data.graph import graph_from_atoms
from tace_al.model.calculator import TaceCalculator
from tace_al.model.tace import Tace

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "numpy", "ase")
ELEMENTS = ["H", "C", "O"]
SYSTEMS = ("water", "ethanol")
MINIMUM_CALLS, MEASURED_SECONDS = 5, 6.0
OPTIONS: dict[str, dict[str, object]] = {
    "Chebyshev basis": {"radial_basis": "chebyshev"},
    "Gaussian basis": {"radial_basis": "gaussian"},
    "Agnesi transform": {"distance_transform": "agnesi"},
    "species-dependent radial weights": {"species_radial": True},
    "density normalisation": {"density_normalisation": True},
    "gates": {"gate": True},
    "no residual in the first layer": {"first_layer_residual": False},
    "channels 64, then 32": {"channels": (64, 32)},
    "three layers": {"num_layers": 3},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One model on one system; `label` says what differs from the preset."""

    preset: str
    system: str
    label: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What a case costs; parameters are those of a model of three elements."""

    preset: str
    option: str
    system: str
    atoms: int
    edges: int
    parameters: int
    parameters_per_element: int
    milliseconds: float
    median_milliseconds: float
    peak_mib: float


def main() -> None:
    """Run every case in turn, show the tables and write them as JSON."""
    console = Console(width=120)
    cases = [
        Case(preset=preset, system=system)
        for preset in ("small", "medium", "large")
        for system in SYSTEMS
    ]
    cases += [
        Case(preset="small", system=system, label=label) for label in OPTIONS for system in SYSTEMS
    ]
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        rows = list(
            track(pool.imap(measured, cases, chunksize=1), "cases", len(cases), console=console)
        )
    setting = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {processor()}, one thread",
        "versions": ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES),
        "dtype": "float32",
        "cutoff_angstrom": 5.0,
        "elements": ELEMENTS,
    }
    content = json.dumps({**setting, "rows": [asdict(row) for row in rows]}, indent=1) + "\n"
    RESULTS.mkdir(exist_ok=True)
    write_bytes(RESULTS / "preset_costs.json", content.encode())
    console.print(markdown(rows))


def measured(case: Case) -> Row:
    """Return what a case costs; runs in a fresh process."""
    torch.set_num_threads(1)
    options = OPTIONS.get(case.label, {})
    model = Tace.from_preset(case.preset, elements=ELEMENTS, **options)
    larger = Tace.from_preset(case.preset, elements=[*ELEMENTS, "N"], **options)
    per_element = larger.num_parameters - model.num_parameters
    del larger
    atoms = structure(case.system)
    graph = graph_from_atoms(atoms, model.config.cutoff)
    calculator, generator = TaceCalculator(model), np.random.default_rng(0)
    before = start_of_memory()
    times = []
    start = time.perf_counter()
    while len(times) < MINIMUM_CALLS or time.perf_counter() - start < MEASURED_SECONDS:
        moved = atoms.copy()
        moved.positions += generator.normal(scale=0.02, size=moved.positions.shape)
        began = time.process_time()  # waiting for a core is not the model's cost
        calculator.calculate(moved, ("energy", "forces"))
        times.append(time.process_time() - began)
    return Row(
        preset=case.preset,
        option=case.label,
        system=case.system,
        atoms=graph.num_atoms,
        edges=graph.sender.shape[0],
        parameters=model.num_parameters,
        parameters_per_element=per_element,
        milliseconds=1e3 * min(times),
        median_milliseconds=1e3 * float(np.median(times)),
        peak_mib=(memory("VmHWM") - before) / 1024,
    )


def structure(name: str) -> Atoms:
    """Return ethanol, or 64 water molecules at 1 g/cm^3 on a cubic grid, turned at random."""
    if name == "ethanol":
        return molecule("CH3CH2OH")
    edge = 12.42  # Angstrom
    turns = Rotation.random(64, rng=0).as_matrix()
    box = Atoms(cell=[edge] * 3, pbc=True)
    for index, turn in zip(np.ndindex(4, 4, 4), turns, strict=True):
        water = molecule("H2O")
        water.positions = water.positions @ turn.T + (np.array(index) + 0.5) * edge / 4
        box += water
    return box


def start_of_memory() -> int:
    """Forget the highest memory so far and return the present one, KiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def memory(field: str) -> int:
    """Return a line of /proc/self/status in KiB; "VmHWM" is the highest since the start."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def markdown(rows: list[Row]) -> str:
    """Return one line a model, with both systems side by side."""
    lines = [
        "| preset | parameters | per further element | water, ms | MiB | ethanol, ms | MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for water, ethanol in zip(rows[::2], rows[1::2], strict=True):
        name = f"`{water.preset}`" + (f", {water.option}" if water.option else "")
        lines.append(
            f"| {name} | {water.parameters:,} | {water.parameters_per_element:,} "
            f"| {water.milliseconds:.0f} | {water.peak_mib:.0f} "
            f"| {ethanol.milliseconds:.1f} | {ethanol.peak_mib:.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
