"""`tace-al shear`: the viscosity of a liquid from steady shear."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tace_al.cli.calculation_files import Charge, Multiplicity, OutFolder, Structure
from tace_al.cli.dynamics import RecordEvery, Seed, Timestep
from tace_al.cli.options import Device, OwnDtype
from tace_al.cli.potential_options import CalculatorName, CalculatorOptions, Head, Models
from tace_al.core.errors import ConfigError, SamplerError

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms

    from tace_al.cli.potential_options import ChosenPotential

SUMMARY, FIGURE = "shear.json", "shear.png"
PROFILE_BINS = 8


def shear(
    structure: Structure,
    models: Models = None,
    rate_per_ps: Annotated[
        float, typer.Option("--rate-per-ps", help="Gradient of the flow, 1/ps.")
    ] = 0.1,
    temperature: Annotated[float, typer.Option("--temperature", help="K.")] = 300.0,
    steps: Annotated[int, typer.Option("--steps", min=10, help="Length of the run.")] = 10000,
    settle: Annotated[
        int | None, typer.Option("--settle", help="Steps left out of means; default: a fifth.")
    ] = None,
    timestep: Timestep = 1.0,
    record_every: RecordEvery = 100,
    seed: Seed = 0,
    calculator: CalculatorName = None,
    option: CalculatorOptions = None,
    device: Device = "cpu",
    dtype: OwnDtype = None,
    head: Head = None,
    charge: Charge = None,
    multiplicity: Multiplicity = None,
    out: OutFolder = Path("shear"),
) -> None:
    """Shear a liquid steadily (SLLOD); the same command goes on where it was, also further.

    Flow along x, gradient along y. Writes shear.json (viscosity_mpa_s), trajectory.xyz, shear.png.

    Example: [bold]tace-al shear argon.xyz model.tace --rate-per-ps 0.2 --temperature 90[/bold]
    """
    from tace_al.cli.dynamics import PotentialSource, start_and_potential

    plan = ShearPlan(
        rate_per_ps=rate_per_ps,
        temperature=temperature,
        timestep_fs=timestep,
        record_every=record_every,
        seed=seed,
    )
    source = PotentialSource(
        calculator=calculator, options=option, device=device, dtype=dtype, head=head
    )
    atoms, chosen = start_and_potential(structure, models, source, (charge, multiplicity))
    begin = steps // 5 if settle is None else settle
    if not 0 <= begin < steps:
        raise ConfigError(f"--settle {begin} leaves nothing of {steps} steps; give fewer")
    run_shear(atoms, chosen, plan, steps=steps, settle=begin, out=out)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShearPlan:
    """Everything that decides the numbers of a run but structure, potential and length."""

    rate_per_ps: float
    temperature: float
    timestep_fs: float
    record_every: int
    seed: int


def run_shear(
    atoms: "Atoms",
    chosen: "ChosenPotential",
    plan: ShearPlan,
    *,
    steps: int,
    settle: int,
    out: Path,
) -> None:
    """Run a plan in a folder, or go on with it, and write what came of it."""
    from rich.console import Console

    from tace_al.cli.calculation_files import prepare_folder, run_settings, write_summary
    from tace_al.cli.dynamics import bond_events
    from tace_al.engines.sampling.recorded_run import record_run
    from tace_al.engines.sampling.shear import Shear
    from tace_al.engines.sampling.shear_run import ShearRun

    flow = Shear(
        chosen.potential,
        rate_per_ps=plan.rate_per_ps,
        temperature=plan.temperature,
        timestep_fs=plan.timestep_fs,
        seed=plan.seed,
    )
    run = ShearRun(
        flow, atoms, steps=steps, record_every=plan.record_every, scale=chosen.force_scale
    )
    folder = prepare_folder(out)
    settings = run_settings(asdict(plan), atoms, chosen.description)
    record_run(run, folder, settings=settings, block=plan.record_every)
    series = run.shear_pressure[:steps]
    profile = _flow_profile(folder, plan)
    draw(folder / FIGURE, series, plan, profile, settle=settle)
    found = viscosity(series, plan, settle=settle)
    found |= {"steps": len(series), "reason": run.reason or "all steps done"}
    found |= {"flow_profile_a_per_fs": profile[1], "conserved_drift_ev": run.drift}
    found["bond_events"] = bond_events(folder)
    inputs = {**asdict(plan), "settle": settle, "potential": chosen.description}
    write_summary(folder / SUMMARY, inputs=inputs, results=found)
    if len(series) < steps:
        raise SamplerError(f"the flow ended after {len(series)} steps: {run.reason}; see {folder}")
    Console().print(
        f"viscosity {found['viscosity_mpa_s']:.4g} ± {found['viscosity_mpa_s_error']:.2g} mPa s "
        f"at {plan.rate_per_ps:g} /ps; files in {folder}",
        highlight=False,
        soft_wrap=True,
    )


def viscosity(series: "np.ndarray", plan: ShearPlan, *, settle: int) -> dict[str, Any]:
    """Return the viscosity with its error from blocks, and the shear pressure."""
    from tace_al.analysis.time_series import mean_and_error
    from tace_al.core.units import GPA
    from tace_al.engines.sampling.shear import viscosity_mpa_s

    kept = series[settle:]
    value, error = mean_and_error(viscosity_mpa_s(kept, plan.rate_per_ps))
    return {
        "viscosity_mpa_s": value,
        "viscosity_mpa_s_error": error,
        "shear_pressure_gpa": float(kept.mean() / GPA) if len(kept) else None,
        "rate_per_ps": plan.rate_per_ps,
        "num_steps_in_means": len(kept),
    }


def _flow_profile(folder: Path, plan: ShearPlan) -> "tuple[np.ndarray, np.ndarray]":
    """Return heights (A) of bins along y, and mean velocities along x there in A/fs."""
    import numpy as np
    from ase import units

    from tace_al.cli.dynamics import recorded_frames

    frames = recorded_frames(folder)
    height = float(frames[-1].cell.array[1, 1]) if frames else 1.0
    edges = np.linspace(0.0, height, PROFILE_BINS + 1)
    sums, counts = np.zeros(PROFILE_BINS), np.zeros(PROFILE_BINS)
    for frame in frames:
        heights = frame.positions[:, 1] % height
        own = frame.get_velocities()[:, 0] * units.fs + plan.rate_per_ps * 1e-3 * heights
        places = np.minimum((heights / height * PROFILE_BINS).astype(int), PROFILE_BINS - 1)
        sums += np.bincount(places, weights=own, minlength=PROFILE_BINS)
        counts += np.bincount(places, minlength=PROFILE_BINS)
    return 0.5 * (edges[1:] + edges[:-1]), sums / np.maximum(counts, 1)


def draw(
    path: Path,
    series: "np.ndarray",
    plan: ShearPlan,
    profile: "tuple[np.ndarray, np.ndarray]",
    *,
    settle: int,
) -> None:
    """Draw the flow's profile and how the viscosity settled."""
    import numpy as np

    from tace_al.engines.sampling.shear import viscosity_mpa_s
    from tace_al.report.nonequilibrium_figures import profile_figure

    kept = viscosity_mpa_s(series[settle:], plan.rate_per_ps)
    running = np.cumsum(kept) / np.arange(1, len(kept) + 1)
    every = max(1, len(kept) // 1000)
    times = (settle + np.arange(len(kept))) * plan.timestep_fs / 1000.0
    profile_figure(
        path,
        places=profile[0],
        profile=profile[1],
        quantity="mean velocity along x (Å/fs)",
        times=times[::every],
        running=running[::every],
        result="viscosity (mPa s)",
    )
