"""`tace-al metad`: well-tempered metadynamics on distances and coordination numbers."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tace_al.cli.calculation_files import Charge, Multiplicity, OutFolder, Structure
from tace_al.cli.dynamics import (
    Friction,
    NumWalkers,
    PotentialSource,
    RecordEvery,
    Seed,
    Steps,
    Temperature,
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
    from tace_al.engines.sampling.bias import HillBias
    from tace_al.engines.sampling.metadynamics import Hills, Metadynamics
    from tace_al.engines.sampling.walkers import Walker

Variables = Annotated[
    list[str] | None,
    typer.Option("--cv", help="distance:0,1, difference:0,1,2 or coordination:O,H,1.2. Repeat."),
]
Widths = Annotated[
    list[float] | None, typer.Option("--width", help="Of hills, one a variable, in its unit.")
]
Walls = Annotated[
    list[str] | None,
    typer.Option("--wall", metavar="CV:LIMIT", help="Keep variable 0, 1 below a limit. Repeat."),
]
Height = Annotated[float, typer.Option("--height", help="Of the first hills, eV.")]
Pace = Annotated[int, typer.Option("--pace", min=1, help="Steps between two hills of a walker.")]
BiasFactor = Annotated[
    float, typer.Option("--bias-factor", help="Above 1: barriers up to this times kT flatten.")
]
MAX_VARIABLES, GRID_1D, GRID_2D = 2, 400, 80


def metad(
    structure: Structure,
    models: Models = None,
    cv: Variables = None,
    width: Widths = None,
    height: Height = 0.02,
    pace: Pace = 50,
    bias_factor: BiasFactor = 10.0,
    wall: Walls = None,
    temperature: Temperature = 300.0,
    steps: Steps = 10000,
    timestep: Timestep = 0.5,
    friction: Friction = 0.01,
    record_every: RecordEvery = 50,
    walkers: NumWalkers = 1,
    seed: Seed = 0,
    calculator: CalculatorName = None,
    option: CalculatorOptions = None,
    device: Device = "cpu",
    dtype: OwnDtype = None,
    head: Head = None,
    charge: Charge = None,
    multiplicity: Multiplicity = None,
    out: OutFolder = Path("metad"),
) -> None:
    """Fill the free-energy basins of one or two collective variables with hills.

    Writes trajectory.xyz, log.csv, hills.csv, free_energy.csv, metad.json and metad.png; the same
    command goes on where it was, also with more steps.
    Example: [bold]tace-al metad mol.xyz m.tace --cv difference:0,8,1 --wall 0:2.5[/bold]
    """
    from tace_al.cli.calculation_files import prepare_folder
    from tace_al.engines.sampling.integrators import Langevin
    from tace_al.engines.sampling.metadynamics import Hills, Metadynamics
    from tace_al.engines.sampling.metadynamics_sampler import hill_bias, upper_walls

    check_variables(cv)
    source = PotentialSource(
        calculator=calculator, options=option, device=device, dtype=dtype, head=head
    )
    atoms, chosen = start_and_potential(
        structure, models, source, (charge, multiplicity), stress=False
    )
    hills = Hills(height=height, pace=pace, bias_factor=bias_factor, temperature=temperature)
    bias = hill_bias(tuple(cv or ()), tuple(width or ()), atoms)
    run = Metadynamics(
        chosen.potential,
        starts(atoms, steps=steps, temperature=temperature, seeds=range(seed, seed + walkers)),
        hills,
        bias,
        integrator=Langevin(friction=friction),
        timestep_fs=timestep,
        record_every=record_every,
        walls=upper_walls(tuple(wall or ()), bias),
    )
    settings = {"walls": wall or [], "seed": seed, "walkers": walkers, "friction": friction}
    folder = prepare_folder(out)
    _carry_out(run, atoms, chosen, settings=settings, structure=structure, folder=folder)


def check_variables(texts: Sequence[str] | None) -> None:
    """Refuse no variables, and more than can be filled."""
    if not texts:
        raise ConfigError(
            "metadynamics needs a collective variable; give --cv distance:0,1 or another"
        )
    if len(texts) > MAX_VARIABLES:
        raise ConfigError(
            f"{len(texts)} collective variables cannot be filled with hills; give one or two --cv"
        )


def starts(atoms: "Atoms", *, steps: int, temperature: float, seeds: range) -> "list[Walker]":
    """Return one guarded walker a seed."""
    from tace_al.engines.sampling.walkers import Unphysical, Walker

    guard = Unphysical(every=10, max_separation=15.0)
    return [
        Walker(atoms, steps=steps, temperature=temperature, seed=seed, stops=(guard,))
        for seed in seeds
    ]


def _carry_out(
    run: "Metadynamics",
    atoms: "Atoms",
    chosen: "ChosenPotential",
    *,
    settings: Mapping[str, Any],
    structure: Path,
    folder: Path,
) -> None:
    """Run, and write everything."""
    from dataclasses import asdict

    from rich.console import Console

    from tace_al.cli.calculation_files import run_settings, write_summary
    from tace_al.cli.dynamics import outcome_of, raise_if_broken
    from tace_al.engines.sampling.recorded_run import record_run

    own = {
        **settings,
        **asdict(run.hills),
        "variables": [variable.name for variable in run.bias.variables],
        "widths": run.bias.widths.tolist(),
        "timestep_fs": run.dynamics.timestep_fs,
        "record_every": run.dynamics.record_every,
    }
    known = run_settings(own, atoms, chosen.description)
    run.scale = chosen.force_scale
    record_run(run, folder, settings=known, block=run.hills.pace)
    walks = run.trajectories()
    found = {**outcome_of(walks, folder), "num_hills": run.bias.num_hills}
    if run.bias.num_hills > 1:
        found |= free_energy_results(run.bias, run.hills, folder)
    inputs = {**own, "structure": structure, "potential": chosen.description}
    write_summary(folder / "metad.json", inputs=inputs, results=found)
    raise_if_broken(walks, folder)
    Console().print(
        f"{found['outcome']} after {max(found['steps'])} steps, {run.bias.num_hills} hills"
        f"{_told(found)}; files in {folder}",
        highlight=False,
        soft_wrap=True,
    )


def _told(found: Mapping[str, Any]) -> str:
    """Return basins and barriers in words."""
    if not found.get("minima"):
        return ""
    said = [f"{where:.2f} ({energy:.3f} eV)" for where, energy in found["minima"]]
    tops = [f"{energy:.3f} eV at {where:.2f}" for where, energy in found["barriers"]]
    between = f", between them {', '.join(tops)}" if tops else ""
    return f": free-energy minima at {', '.join(said)}{between}"


def free_energy_results(bias: "HillBias", hills: "Hills", folder: Path) -> dict[str, Any]:
    """Write hills, free energy and figure; return what the summary says about them."""
    import numpy as np
    from ase import units

    from tace_al.analysis.profile_minima import basins
    from tace_al.engines.sampling.metadynamics import free_energy_with_error
    from tace_al.report.free_energy_figures import profile_figure, surface_figure

    names = [variable.name.replace(",", "-") for variable in bias.variables]  # one column each
    labels = [variable.label for variable in bias.variables]
    _write_table(folder / "hills.csv", [*names, "height_ev"], [*bias.centres.T, bias.heights])
    axes = grids(bias)
    points = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1)
    energies, errors = free_energy_with_error(bias, points, hills)
    columns = [*points.T, energies, errors]
    _write_table(folder / "free_energy.csv", [*names, "free_energy_ev", "error_ev"], columns)
    found: dict[str, Any] = {"last_hill_ev": float(bias.heights[-1])}
    if len(axes) == 2:
        shape = (len(axes[0]), len(axes[1]))
        surface = energies.reshape(shape)
        surface_figure(folder / "metad.png", axes=axes, energies=surface, labels=labels)
        place = points[energies.argmin()]
        return {**found, "lowest": place, "minima": [], "barriers": []}
    kT = units.kB * hills.temperature
    well = basins(axes[0], energies, depth=0.5 * kT)
    profile_figure(
        folder / "metad.png", grid=axes[0], energies=energies, errors=errors, label=labels[0]
    )
    return {
        **found,
        "minima": np.stack([well.places, well.energies], axis=1).tolist(),
        "barriers": np.stack([well.tops, well.barriers], axis=1).tolist(),
        "mean_error_ev": float(errors[energies < 10.0 * kT].mean()),
    }


def grids(bias: "HillBias") -> "list[np.ndarray]":
    """Return a grid for each variable, over where hills are."""
    import numpy as np

    number = GRID_1D if len(bias.variables) == 1 else GRID_2D
    low, high = bias.centres.min(axis=0), bias.centres.max(axis=0)
    return [np.linspace(a, b, number) for a, b in zip(low, high, strict=True)]


def _write_table(path: Path, names: Sequence[str], columns: "Sequence[np.ndarray]") -> None:
    """Write columns as CSV."""
    from tace_al.core.atomic_write import write_bytes

    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(names)
    writer.writerows(zip(*(column.tolist() for column in columns), strict=True))
    write_bytes(path, text.getvalue().encode())
