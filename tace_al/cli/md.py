"""`tace-al md`: molecular dynamics at constant energy, temperature or pressure."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tace_al.cli.calculation_files import Charge, Multiplicity, OutFolder, Structure
from tace_al.cli.dynamics import (
    CellChanges,
    DynamicsPlan,
    EnsembleName,
    Equilibration,
    Friction,
    MaxSeparation,
    NumWalkers,
    PotentialSource,
    Pressure,
    PressurePeriod,
    RecordEvery,
    Seed,
    Steps,
    StopAbove,
    Temperature,
    ThermostatName,
    Timestep,
    start_and_potential,
)
from tace_al.cli.options import Device, OwnDtype
from tace_al.cli.potential_options import CalculatorName, CalculatorOptions, Head, Models
from tace_al.core.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms

    from tace_al.cli.potential_options import ChosenPotential


def md(
    structure: Structure,
    models: Models = None,
    ensemble: EnsembleName = "nvt",
    temperature: Temperature = 300.0,
    pressure: Pressure = 0.0,
    steps: Steps = 1000,
    timestep: Timestep = 0.5,
    thermostat: ThermostatName = "langevin",
    friction: Friction = 0.01,
    pressure_period: PressurePeriod = 500.0,
    cell: CellChanges = "isotropic",
    record_every: RecordEvery = 10,
    equilibration: Equilibration = None,
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
    out: OutFolder = Path("md"),
) -> None:
    """Run molecular dynamics; the same command goes on where it was, also with more steps.

    Writes trajectory.xyz (forces, error bars, bond events), log.csv, md.json and md.png.

    Example: [bold]tace-al md water.xyz m1.tace m2.tace --temperature 350 --steps 20000[/bold]
    """
    plan = DynamicsPlan(
        ensemble=ensemble,
        thermostat=thermostat,
        friction=friction,
        pressure_period_fs=pressure_period,
        shape=cell,
        temperature=temperature,
        pressure_gpa=pressure,
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
    atoms, chosen = start_and_potential(structure, models, source, (charge, multiplicity))
    _carry_out(plan, atoms, chosen, structure=structure, out=out, equilibration=equilibration)


def _carry_out(
    plan: DynamicsPlan,
    atoms: "Atoms",
    chosen: "ChosenPotential",
    *,
    structure: Path,
    out: Path,
    equilibration: int | None,
) -> None:
    """Run, and write everything."""
    from rich.console import Console

    from tace_al.cli.calculation_files import prepare_folder, write_summary
    from tace_al.cli.dynamics import raise_if_broken, run_dynamics
    from tace_al.report.dynamics_figures import dynamics_figure

    begin = plan.steps // 5 if equilibration is None else equilibration
    if begin // plan.record_every >= plan.steps // plan.record_every:
        raise ConfigError(
            f"--equilibration {begin} leaves no frame of {plan.steps} steps for means; give fewer, "
            "or more --steps"
        )
    folder = prepare_folder(out)
    result = run_dynamics(chosen, atoms, plan, folder)
    found = {**result.summary, **averages(result.log, len(atoms), begin=begin)}
    dynamics_figure(result.log, folder / "md.png", num_atoms=len(atoms))
    inputs = {**asdict(plan), "structure": structure, "potential": chosen.description}
    write_summary(folder / "md.json", inputs=inputs, results=found)
    raise_if_broken(result.walks, folder)
    Console().print(sentence(found, folder), highlight=False, soft_wrap=True)


def averages(log: "Mapping[str, np.ndarray]", num_atoms: int, *, begin: int) -> dict[str, Any]:
    """Return means with standard errors, and how well the conserved energy was kept.

    Parameters
    ----------
    begin
        Means take the steps after this one.
    """
    import numpy as np

    from tace_al.analysis.time_series import drift_and_noise, mean_and_error

    kept = log["step"] > begin
    found: dict[str, Any] = {"num_frames": len(log["step"]), "num_frames_in_means": int(kept.sum())}
    for name in ("temperature_k", "energy_ev", "pressure_gpa", "volume_a3"):
        found[f"mean_{name}"], found[f"mean_{name}_error"] = mean_and_error(log[name][kept])
    drifts = []
    for walker in np.unique(log["walker"]):
        own = log["walker"] == walker
        drifts.append(drift_and_noise(log["time_fs"][own] / 1000.0, log["conserved_ev"][own]))
    rates, noises = np.array(drifts).T if drifts else (np.array([np.nan]), np.array([np.nan]))
    found["conserved_drift_mev_per_atom_per_ps"] = float(np.abs(rates).max() * 1e3 / num_atoms)
    found["conserved_noise_mev_per_atom"] = float(noises.max() * 1e3 / num_atoms)
    bars = log["uncertainty_ev_per_a"]
    found["max_force_error_bar_ev_per_a"] = float(np.nanmax(bars)) if bars.size else None
    found["mean_force_error_bar_ev_per_a"] = float(np.nanmean(bars)) if bars.size else None
    return found


def sentence(found: Mapping[str, Any], folder: Path) -> str:
    """Return the result in one line."""
    steps = max(found["steps"])
    pressure = found["mean_pressure_gpa"]
    squeezed = "" if pressure != pressure else f", {pressure:.3g} GPa"
    return (
        f"{found['outcome']} after {steps} steps: {found['mean_temperature_k']:.0f} K{squeezed}, "
        f"energy drift {found['conserved_drift_mev_per_atom_per_ps']:.2g} meV/atom/ps, "
        f"{len(found['bond_events'])} frames with bond events; files in {folder}"
    )
