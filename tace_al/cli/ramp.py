"""`tace-al ramp`: heat, cool, squeeze or stretch steadily, and read response functions off it."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tace_al.cli.calculation_files import Charge, Multiplicity, OutFolder, Structure
from tace_al.cli.dynamics import (
    CellChanges,
    DynamicsPlan,
    Friction,
    MaxSeparation,
    NumWalkers,
    PotentialSource,
    PressureEnd,
    PressurePeriod,
    PressureStart,
    RecordEvery,
    Seed,
    Steps,
    StopAbove,
    Temperature,
    TemperatureEnd,
    Timestep,
    start_and_potential,
)
from tace_al.cli.options import Device, OwnDtype
from tace_al.cli.potential_options import CalculatorName, CalculatorOptions, Head, Models
from tace_al.core.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms


def ramp(
    structure: Structure,
    models: Models = None,
    temperature: Temperature = 300.0,
    temperature_end: TemperatureEnd = None,
    pressure: PressureStart = None,
    pressure_end: PressureEnd = None,
    steps: Steps = 10000,
    timestep: Timestep = 0.5,
    friction: Friction = 0.01,
    pressure_period: PressurePeriod = 500.0,
    cell: CellChanges = "isotropic",
    record_every: RecordEvery = 10,
    walkers: NumWalkers = 1,
    seed: Seed = 0,
    stop_above: StopAbove = None,
    max_separation: MaxSeparation = 8.0,
    calculator: CalculatorName = None,
    option: CalculatorOptions = None,
    device: Device = "cpu",
    dtype: OwnDtype = None,
    head: Head = None,
    charge: Charge = None,
    multiplicity: Multiplicity = None,
    out: OutFolder = Path("ramp"),
) -> None:
    """Change temperature or pressure linearly in time; the same command goes on where it was.

    Writes trajectory.xyz, log.csv, ramp.json (heat capacity, thermal expansion or bulk modulus from
    the slopes) and ramp.png.

    Example: [bold]tace-al ramp cu.xyz --calculator emt --temperature-end 1200[/bold]
    """
    plan = DynamicsPlan(
        ensemble="nvt" if pressure is None else "npt",
        friction=friction,
        pressure_period_fs=pressure_period,
        shape=cell,
        temperature=temperature,
        temperature_end=temperature_end,
        pressure_gpa=pressure or 0.0,
        pressure_end_gpa=pressure_end,
        steps=steps,
        timestep_fs=timestep,
        record_every=record_every,
        walkers=walkers,
        seed=seed,
        stop_above=stop_above,
        max_separation=max_separation,
    )
    source = PotentialSource(
        calculator=calculator, options=option, device=device, dtype=dtype, head=head
    )
    _carry_out(plan, structure, models, source, electrons=(charge, multiplicity), out=out)


def _carry_out(
    plan: DynamicsPlan,
    structure: Path,
    models: list[Path] | None,
    source: PotentialSource,
    *,
    electrons: tuple[int | None, int | None],
    out: Path,
) -> None:
    """Check, run, and write everything."""
    from rich.console import Console

    from tace_al.cli.calculation_files import prepare_folder, write_summary
    from tace_al.cli.dynamics import raise_if_broken, run_dynamics
    from tace_al.report.dynamics_figures import ramp_figure

    if plan.ensemble == "nvt" and plan.pressure_end_gpa is not None:
        raise ConfigError(
            f"--pressure-end {plan.pressure_end_gpa} has no beginning; give --pressure too"
        )
    if not plan_heats(plan) and not plan_squeezes(plan):
        raise ConfigError(
            "nothing changes in this ramp; give --temperature-end or --pressure-end, or use "
            "`tace-al md`"
        )
    atoms, chosen = start_and_potential(structure, models, source, electrons)
    folder = prepare_folder(out)
    result = run_dynamics(chosen, atoms, plan, folder)
    found = {**result.summary, **responses(result.log, plan, atoms)}
    ramp_figure(result.log, folder / "ramp.png", num_atoms=len(atoms), heating=plan_heats(plan))
    inputs = {**asdict(plan), "structure": structure, "potential": chosen.description}
    write_summary(folder / "ramp.json", inputs=inputs, results=found)
    raise_if_broken(result.walks, folder)
    said = ", ".join(
        f"{name.replace('_', ' ')} {value:.3g}"
        for name, value in found["responses"].items()
        if value == value  # not NaN
    )
    text = f"{found['outcome']} after {max(found['steps'])} steps: {said or 'no slope to tell'}"
    Console().print(f"{text}; files in {folder}", highlight=False, soft_wrap=True)


def plan_heats(plan: DynamicsPlan) -> bool:
    """Return whether the temperature changes."""
    return plan.temperature_end is not None and plan.temperature_end != plan.temperature


def plan_squeezes(plan: DynamicsPlan) -> bool:
    """Return whether the pressure changes."""
    return plan.pressure_end_gpa is not None and plan.pressure_end_gpa != plan.pressure_gpa


def responses(
    log: "Mapping[str, np.ndarray]", plan: DynamicsPlan, atoms: "Atoms"
) -> dict[str, Any]:
    """Return the slopes of energy (enthalpy at constant pressure) and volume along the ramp.

    At a steady rate these are the equilibrium response functions only where the ramp is slow
    against relaxation, and they include phase changes on the way. Only where one of temperature and
    pressure changes are they named.
    """
    import numpy as np
    from ase import units

    from tace_al.analysis.time_series import slope
    from tace_al.core.units import GPA
    from tace_al.engines.sampling.walkers import degrees_of_freedom

    share = log["step"] / plan.steps
    found: dict[str, Any] = {}
    heats, squeezes = plan_heats(plan), plan_squeezes(plan)
    log_volume = np.log(np.where(log["volume_a3"] > 0, log["volume_a3"], np.nan))
    if heats and not squeezes:
        assert plan.temperature_end is not None
        bath = plan.temperature + share * (plan.temperature_end - plan.temperature)
        content = log["energy_ev"]
        if plan.ensemble == "npt":
            content = content + plan.pressure_gpa * GPA * log["volume_a3"]
        # k/2 for each free momentum, which follows the bath
        momenta = 0.5 * degrees_of_freedom(atoms, still=False)
        total = slope(bath, content) / units.kB + momenta
        found["heat_capacity_kb_per_atom"] = total / len(atoms)
        if plan.ensemble == "npt":
            found["volume_expansion_per_k"] = slope(bath, log_volume)
    if squeezes and not heats:
        assert plan.pressure_end_gpa is not None
        push = plan.pressure_gpa + share * (plan.pressure_end_gpa - plan.pressure_gpa)
        found["bulk_modulus_gpa"] = -1.0 / slope(push, log_volume)
    return {
        "responses": found,
        "num_frames": len(log["step"]),
        "final_temperature_k": float(log["temperature_k"][-1]) if len(share) else None,
        "max_force_error_bar_ev_per_a": (
            float(np.nanmax(log["uncertainty_ev_per_a"])) if len(share) else None
        ),
    }
