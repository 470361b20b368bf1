"""`tace-al heat`: the heat current between a hot and a cold slab of one cell."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tace_al.cli.calculation_files import Charge, Multiplicity, OutFolder, Structure
from tace_al.cli.dynamics import Friction, RecordEvery, Seed, Timestep
from tace_al.cli.options import Device, OwnDtype
from tace_al.cli.potential_options import CalculatorName, CalculatorOptions, Head, Models
from tace_al.core.errors import ConfigError, SamplerError

if TYPE_CHECKING:
    from tace_al.cli.potential_options import ChosenPotential
    from tace_al.engines.sampling.heat_flow import HeatFlow
    from tace_al.engines.sampling.heat_run import HeatRun

SUMMARY, FIGURE = "heat.json", "heat.png"
SHORTEST = 7
"""Blocks without which a current has no error bar."""
Slices = Annotated[int, typer.Option("--slices", help="Of the cell, an even number.")]
Axis = Annotated[int, typer.Option("--axis", help="0, 1 or 2: along which heat flows.")]


def heat(
    structure: Structure,
    models: Models = None,
    hot: Annotated[float, typer.Option("--hot", help="Temperature of the hot slab, K.")] = 350.0,
    cold: Annotated[float, typer.Option("--cold", help="Temperature of the cold slab, K.")] = 250.0,
    axis: Axis = 2,
    slices: Slices = 8,
    steps: Annotated[int, typer.Option("--steps", min=10, help="Length of the run.")] = 20000,
    settle: Annotated[
        int | None, typer.Option("--settle", help="Steps left out of means; default: a third.")
    ] = None,
    timestep: Timestep = 1.0,
    friction: Friction = 0.01,
    record_every: RecordEvery = 200,
    seed: Seed = 0,
    calculator: CalculatorName = None,
    option: CalculatorOptions = None,
    device: Device = "cpu",
    dtype: OwnDtype = None,
    head: Head = None,
    charge: Charge = None,
    multiplicity: Multiplicity = None,
    out: OutFolder = Path("heat"),
) -> None:
    """Hold two slabs of a cell at two temperatures; the same command goes on where it was.

    Writes heat.json (heat_current_w_per_m2, profile, conductivity), trajectory.xyz and heat.png.

    Example: [bold]tace-al heat cu.xyz --calculator emt --hot 400 --cold 200 --slices 6[/bold]
    """
    from tace_al.cli.dynamics import PotentialSource, start_and_potential
    from tace_al.engines.sampling.heat_flow import HeatFlow
    from tace_al.engines.sampling.heat_run import BLOCK

    plan = HeatPlan(timestep_fs=timestep, record_every=record_every, seed=seed)
    source = PotentialSource(
        calculator=calculator, options=option, device=device, dtype=dtype, head=head
    )
    atoms, chosen = start_and_potential(structure, models, source, (charge, multiplicity))
    flow = HeatFlow(atoms, hot=hot, cold=cold, axis=axis, slices=slices, friction=friction)
    begin = steps // 3 if settle is None else settle
    least = SHORTEST * BLOCK
    if not 0 <= begin <= steps - least:
        raise ConfigError(
            f"--settle {begin} leaves too little of {steps} steps; at least {least} are needed"
        )
    run_heat(flow, chosen, plan, steps=steps, settle=begin, out=out)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeatPlan:
    """What decides the numbers of a run beside structure, baths, potential and length."""

    timestep_fs: float
    record_every: int
    seed: int


def run_heat(
    flow: "HeatFlow",
    chosen: "ChosenPotential",
    plan: HeatPlan,
    *,
    steps: int,
    settle: int,
    out: Path,
) -> None:
    """Run a plan in a folder, or go on with it, and write what came of it."""
    from rich.console import Console

    from tace_al.cli.calculation_files import prepare_folder, run_settings, write_summary
    from tace_al.cli.dynamics import bond_events
    from tace_al.engines.sampling.heat_run import BLOCK, HeatRun
    from tace_al.engines.sampling.recorded_run import record_run

    run = HeatRun(
        flow,
        chosen.potential,
        steps=steps,
        timestep_fs=plan.timestep_fs,
        record_every=plan.record_every,
        seed=plan.seed,
        scale=chosen.force_scale,
    )
    folder = prepare_folder(out)
    baths = {name: getattr(flow, name) for name in ("hot", "cold", "axis", "slices", "friction")}
    settings = run_settings({**asdict(plan), **baths}, flow.atoms, chosen.description)
    record_run(run, folder, settings=settings, block=BLOCK)
    found = results(flow, plan, run, steps=steps, settle=settle)
    draw(folder / FIGURE, flow, plan, run, settle=settle)
    found |= {"reason": run.trajectory.reason, "bond_events": bond_events(folder)}
    inputs = {**asdict(plan), **baths, "settle": settle, "potential": chosen.description}
    write_summary(folder / SUMMARY, inputs=inputs, results=found)
    if found["steps"] < steps:
        raise SamplerError(
            f"the run ended after {found['steps']} steps: {found['reason']}; see {folder}"
        )
    Console().print(
        f"heat current {found['heat_current_w_per_m2']:.3g} ± "
        f"{found['heat_current_w_per_m2_error']:.2g} W/m², from hot to cold; files in {folder}",
        highlight=False,
        soft_wrap=True,
    )


def results(
    flow: "HeatFlow",
    plan: HeatPlan,
    run: "HeatRun",
    *,
    steps: int,
    settle: int,
) -> dict[str, Any]:
    """Return current, profile and conductivity of the steps after `settle`."""
    import numpy as np

    from tace_al.analysis.time_series import mean_and_error
    from tace_al.engines.sampling.heat_run import BLOCK

    given = run.given[: -(-steps // BLOCK)]
    first = settle // BLOCK
    found: dict[str, Any] = {"steps": len(given) * BLOCK}
    if len(given) < first + 2:
        return found
    time_fs = BLOCK * plan.timestep_fs
    currents = np.array([flow.current(one, time_fs) for one in np.diff(given[first:], axis=0)])
    value, error = mean_and_error(currents)
    profile = run.profiles[first : len(given)].mean(axis=0)
    taken = given[-1] - given[first]
    whole = (len(given) - 1 - first) * time_fs
    return found | {
        "heat_current_w_per_m2": value,
        "heat_current_w_per_m2_error": error,
        "hot_bath_gave_ev": float(taken[0]),
        "cold_bath_gave_ev": float(taken[1]),
        "temperature_profile_k": profile,
        "temperature_fall_k_per_a": flow.gradient(profile),
        "conductivity_w_per_m_k": flow.conductivity(taken, whole, profile),
    }


def draw(
    path: Path,
    flow: "HeatFlow",
    plan: HeatPlan,
    run: "HeatRun",
    *,
    settle: int,
) -> None:
    """Draw the temperature profile and how the current settled."""
    import numpy as np

    from tace_al.engines.sampling.heat_run import BLOCK
    from tace_al.report.nonequilibrium_figures import profile_figure

    first = settle // BLOCK
    given, profiles = run.given[first:], run.profiles[first:]
    if len(given) < 2:
        return
    times = np.arange(1, len(given)) * BLOCK * plan.timestep_fs
    running = [
        flow.current(one - given[0], time) for one, time in zip(given[1:], times, strict=True)
    ]
    profile_figure(
        path,
        places=flow.width * (0.5 + np.arange(flow.slices)),
        profile=profiles.mean(axis=0),
        quantity="temperature (K)",
        times=(settle * plan.timestep_fs + times) / 1000.0,
        running=np.array(running),
        result="heat current (W/m²)",
    )
