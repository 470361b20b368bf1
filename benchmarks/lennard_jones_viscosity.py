"""Shear viscosity of the Lennard-Jones liquid near its triple point, by steady shear.

    python -m benchmarks.lennard_jones_viscosity       every rate not yet done, and the page
    python -m benchmarks.lennard_jones_viscosity 0.2   one rate, half a minute

SLLOD at several rates (108 atoms, rho* = 0.8442, T* = 0.722, cut and shifted at 2.5 sigma), the
value at rest by a straight line in the square root of the rate, the form that mode coupling gives
and that simulations have been read with (Evans, 10.1103/PhysRevA.23.1988). Literature for this
state point lies at 3.2 to 3.3 (Meier, Laesecke, Kabelac, 10.1063/1.1770695 and earlier work).
"""

import json
import platform
import sys
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import bulk

from benchmarks.machine import processor
from tace_al.analysis.time_series import mean_and_error
from tace_al.core.atomic_write import write_bytes
from tace_al.core.units import GPA
from tace_al.engines.sampling.lennard_jones import LennardJones
from tace_al.engines.sampling.shear import FlowWatch, Shear, viscosity_mpa_s
from tace_al.report.style import BLUE, GREY, label_axes, new_figure, save

RESULTS = Path(__file__).parent / "results"
EPSILON, SIGMA, MASS = 0.0103, 3.405, 39.948  # eV, A, amu: argon's, the result does not see them
DENSITY, TEMPERATURE = 0.8442, 0.722
LITERATURE = 3.25
STEPS = {0.1: 32_000, 0.2: 28_000, 0.4: 20_000, 0.8: 12_000}  # by reduced rate
EQUILIBRATION = 2_500
TIMESTEP = 0.005  # reduced
TAU_FS = SIGMA * np.sqrt(MASS / EPSILON) / units.fs


def liquid() -> Atoms:
    """Return 108 atoms on an fcc lattice, a little displaced; shear melts them."""
    lattice = SIGMA * (4.0 / DENSITY) ** (1.0 / 3.0)
    atoms = bulk("Ar", a=lattice, cubic=True) * (3, 3, 3)
    atoms.positions += np.random.default_rng(1).normal(scale=0.15, size=(len(atoms), 3))
    atoms.set_masses(np.full(len(atoms), MASS))
    return atoms


def sheared(atoms: Atoms, rate: float, steps: int) -> tuple[np.ndarray, Atoms]:
    """Return reduced viscosities step by step at a reduced rate, and the last frame."""
    rate_per_ps = rate / TAU_FS * 1e3
    shear = Shear(
        LennardJones(epsilon=EPSILON, sigma=SIGMA),
        rate_per_ps=rate_per_ps,
        temperature=TEMPERATURE * EPSILON / units.kB,
        timestep_fs=TIMESTEP * TAU_FS,
        seed=7,
    )
    watch, done = FlowWatch(), 0
    while done < steps:
        walk = shear.run(atoms, steps - done, stops=(watch,))
        done, atoms = done + walk.steps, walk.final
    series = viscosity_mpa_s(np.array(watch.shear_pressure), rate_per_ps)
    return series * 1e3 * GPA * SIGMA**3 / (EPSILON * TAU_FS), atoms


def measured(rate: float, steps: int) -> dict[str, float]:
    """Return one rate's viscosity, from the folder of results if it is there."""
    path = RESULTS / "lennard_jones_viscosity" / f"rate_{rate}.json"
    if not path.exists():
        started = time.process_time()
        _, atoms = sheared(liquid(), 1.0, EQUILIBRATION)
        _, atoms = sheared(atoms, rate, EQUILIBRATION)
        value, error = mean_and_error(sheared(atoms, rate, steps)[0])
        row = {"rate": rate, "steps": steps, "viscosity": value, "error": error}
        row["processor_seconds"] = time.process_time() - started
        path.parent.mkdir(exist_ok=True)
        write_bytes(path, (json.dumps(row) + "\n").encode())
    row = json.loads(path.read_text())
    print(row, flush=True)
    return row


def main() -> None:
    """Run every rate that is not done, and write results and figure."""
    if len(sys.argv) > 1:
        measured(float(sys.argv[1]), STEPS[float(sys.argv[1])])
        return
    rows = [measured(rate, steps) for rate, steps in STEPS.items()]
    roots = np.sqrt([row["rate"] for row in rows])
    weights = 1.0 / np.array([max(row["error"], 0.01) for row in rows])
    values = np.array([row["viscosity"] for row in rows])
    (slope, rest), covariance = np.polyfit(roots, values, 1, w=weights, cov="unscaled")
    content = {
        "rows": rows,
        "viscosity_at_rest": rest,
        "error": float(np.sqrt(covariance[1, 1])),
        "slope_in_root_of_rate": slope,
        "literature": LITERATURE,
        "deviation_percent": 100.0 * (rest / LITERATURE - 1.0),
        "processor_seconds": sum(row["processor_seconds"] for row in rows),
        "processor": processor(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in ("ase", "numpy", "vesin")},
        "date": datetime.now(UTC).date().isoformat(),
    }
    write_bytes(
        RESULTS / "lennard_jones_viscosity.json", (json.dumps(content, indent=1) + "\n").encode()
    )
    write_bytes(RESULTS / "lennard_jones_viscosity.md", markdown(content).encode())
    figure = new_figure(width=5.0, height=3.6)
    (axes,) = figure.axes
    axes.errorbar(roots, values, [row["error"] for row in rows], fmt="o", color=BLUE, capsize=3)
    line = np.array([0.0, roots.max()])
    axes.plot(line, rest + slope * line, color=BLUE, linewidth=1.2)
    axes.axhline(LITERATURE, color=GREY, linestyle="--", linewidth=1.0)
    label_axes(axes, x="square root of the rate (reduced)", y="viscosity (reduced)")
    save(figure, RESULTS / "lennard_jones_viscosity.png")


def markdown(content: dict[str, object]) -> str:
    """Return the results as a page."""
    rows = content["rows"]
    assert isinstance(rows, list)
    table = "\n".join(
        f"| {row['rate']} | {row['steps']} | {row['viscosity']:.3f} ± {row['error']:.3f} |"
        for row in rows
    )
    return f"""# Shear viscosity of the Lennard-Jones liquid

108 atoms, rho* = {DENSITY}, T* = {TEMPERATURE}, cut and shifted at 2.5 sigma; SLLOD
(`tace_al/engines/sampling/shear.py`). Reduced units.

| rate | steps | viscosity |
|---|---|---|
{table}

At rest, by a line in the square root of the rate: **{content["viscosity_at_rest"]:.2f} ±
{content["error"]:.2f}**; literature {LITERATURE} ({content["deviation_percent"]:+.1f} %).

![viscosity](lennard_jones_viscosity.png)

{content["processor"]}, one thread, {content["processor_seconds"]:.0f} s of processor time,
{content["date"]}. `python -m benchmarks.lennard_jones_viscosity`
"""


if __name__ == "__main__":
    main()
