"""What `tace-al md` and `tace-al ramp` share: options, the run itself, what is said about it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tace_al.core.errors import ConfigError, SamplerError

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms

    from tace_al.cli.potential_options import ChosenPotential
    from tace_al.engines.sampling.walkers import Trajectory, Walker

Timestep = Annotated[float, typer.Option("--timestep", help="Time step, fs.")]
Friction = Annotated[float, typer.Option("--friction", help="Langevin friction, 1/fs.")]
PressurePeriod = Annotated[
    float, typer.Option("--pressure-period", help="Time in which the cell answers, fs.")
]
CellChanges = Annotated[
    Literal["isotropic", "axes"],
    typer.Option("--cell", help="At constant pressure: all lengths together, or each axis."),
]
RecordEvery = Annotated[
    int, typer.Option("--record-every", min=1, help="Steps from one kept frame to the next.")
]
NumWalkers = Annotated[
    int, typer.Option("--walkers", min=1, help="Independent copies, evaluated as one batch.")
]
Seed = Annotated[int, typer.Option("--seed", help="Of first velocities and noise.")]
StopAbove = Annotated[
    float | None,
    typer.Option("--stop-above", help="Stop where a force error bar is larger, eV/Å."),
]
MaxSeparation = Annotated[
    float, typer.Option("--max-separation", help="Stop where a fragment is further away, Å.")
]
EnsembleName = Annotated[
    Literal["nve", "nvt", "npt"], typer.Option("--ensemble", help="What is held constant.")
]
Temperature = Annotated[float, typer.Option("--temperature", help="K; of a ramp its start.")]
TemperatureEnd = Annotated[
    float | None, typer.Option("--temperature-end", help="K, at the last step; default: the same.")
]
Pressure = Annotated[float, typer.Option("--pressure", help="GPa, for npt.")]
PressureStart = Annotated[
    float | None,
    typer.Option("--pressure", help="GPa, at the first step; without it the cell stays."),
]
PressureEnd = Annotated[
    float | None, typer.Option("--pressure-end", help="GPa, at the last step; default: the same.")
]
Steps = Annotated[int, typer.Option("--steps", min=1, help="Length of the run.")]
ThermostatName = Annotated[
    Literal["langevin", "nose-hoover"], typer.Option("--thermostat", help="For nvt.")
]
Equilibration = Annotated[
    int | None, typer.Option("--equilibration", help="Steps left out of means; default: a fifth.")
]


@dataclass(frozen=True, kw_only=True, slots=True)
class DynamicsPlan:
    """Everything that decides the numbers of a run but structure and potential.

    Parameters
    ----------
    ensemble, thermostat, friction, pressure_period_fs, shape
        As `integrator_for` takes them.
    temperature, temperature_end, pressure_gpa, pressure_end_gpa
        In K and GPa at the first and last step; constant without an end.
    steps, timestep_fs, record_every, walkers, seed
        Length, time step, cadence of frames, number of copies, first seed.
    stop_above, max_separation
        Guards: eV/A, A.
    """

    ensemble: Literal["nve", "nvt", "npt"]
    thermostat: Literal["langevin", "nose-hoover"] = "langevin"
    friction: float = 0.01
    pressure_period_fs: float = 500.0
    shape: Literal["isotropic", "axes"] = "isotropic"
    temperature: float = 300.0
    temperature_end: float | None = None
    pressure_gpa: float = 0.0
    pressure_end_gpa: float | None = None
    steps: int = 1000
    timestep_fs: float = 0.5
    record_every: int = 10
    walkers: int = 1
    seed: int = 0
    stop_above: float | None = None
    max_separation: float = 8.0

    def __post_init__(self) -> None:
        """Refuse what cannot run."""
        if not self.timestep_fs > 0.0:
            raise ConfigError(f"--timestep is {self.timestep_fs} fs; give a positive number")
        if self.record_every > self.steps:
            raise ConfigError(
                f"--record-every {self.record_every} keeps nothing of {self.steps} steps; give "
                "fewer, or more --steps"
            )
        for name, given, needed in (
            ("--pressure", self.pressure_gpa != 0.0, ("npt",)),
            ("--cell axes", self.shape == "axes", ("npt",)),
            ("--thermostat nose-hoover", self.thermostat != "langevin", ("nvt",)),
        ):
            if given and self.ensemble not in needed:
                raise ConfigError(
                    f"{name} says nothing to ensemble {self.ensemble}; leave it out, or take "
                    f"--ensemble {needed[0]}"
                )
        ends = (self.temperature, self.temperature_end or 1.0)
        if not min(ends) > 0.0:
            raise ConfigError(f"a temperature of {min(ends)} K moves nothing; give more than 0")

    @property
    def settings(self) -> dict[str, Any]:
        """What a state must agree with: all but the length, where nothing depends on it."""
        settings = asdict(self)
        if self.temperature_end is None and self.pressure_end_gpa is None:
            del settings["steps"]
        return settings


@dataclass(frozen=True, kw_only=True, slots=True)
class DynamicsResult:
    """A finished run.

    Parameters
    ----------
    log
        Columns of the table by name.
    walks
        How each walker ended.
    summary
        Plain results for the JSON file.
    resumed
        Whether an earlier run went on.
    """

    log: "Mapping[str, np.ndarray]"
    walks: "tuple[Trajectory, ...]"
    summary: dict[str, Any]
    resumed: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class PotentialSource:
    """The options of a command that say what drives it, beside its models."""

    calculator: str | None
    options: Sequence[str] | None
    device: str
    dtype: Literal["float32", "float64"] | None
    head: str | None


def start_and_potential(
    structure: Path,
    models: Sequence[Path] | None,
    source: PotentialSource,
    electrons: tuple[int | None, int | None],
    *,
    stress: bool = True,
) -> "tuple[Atoms, ChosenPotential]":
    """Return where dynamics starts and what drives it, with stress where there is a cell.

    Parameters
    ----------
    electrons
        Charge and multiplicity, None where the file's count.
    stress
        Ask models for the stress too, which costs extra, where there is a cell.
    """
    from tace_al.cli.calculation_files import read_structure
    from tace_al.cli.potential_options import choose_potential

    atoms = read_structure(structure, charge=electrons[0], multiplicity=electrons[1])
    chosen = choose_potential(
        models,
        source.calculator,
        options=source.options,
        device=source.device,
        dtype=source.dtype,
        head=source.head,
        stress=stress and bool(atoms.pbc.all()),
        skin=0.5,
    )
    return atoms, chosen


def run_dynamics(
    chosen: "ChosenPotential", atoms: "Atoms", plan: DynamicsPlan, folder: Path
) -> DynamicsResult:
    """Run a plan in a folder, or go on with it."""
    from tace_al.cli.calculation_files import run_settings
    from tace_al.engines.sampling.batched_md import BatchedDynamics
    from tace_al.engines.sampling.md import integrator_for
    from tace_al.engines.sampling.recorded_run import WalkerRun, read_log, record_run

    integrator = integrator_for(
        plan.ensemble,
        thermostat=plan.thermostat,
        friction=plan.friction,
        pressure_period_fs=plan.pressure_period_fs,
        shape=plan.shape,
    )
    walkers = [_walker(atoms, plan, plan.seed + index, chosen) for index in range(plan.walkers)]
    dynamics = BatchedDynamics(
        chosen.potential,
        walkers,
        integrator,
        timestep_fs=plan.timestep_fs,
        record_every=plan.record_every,
    )
    run = WalkerRun(dynamics, scale=chosen.force_scale)
    settings = run_settings(plan.settings, atoms, chosen.description)
    resumed = record_run(run, folder, settings=settings, block=plan.record_every)
    walks = run.trajectories()
    log = read_log(folder)
    return DynamicsResult(log=log, walks=walks, summary=outcome_of(walks, folder), resumed=resumed)


def outcome_of(walks: "tuple[Trajectory, ...]", folder: Path) -> dict[str, Any]:
    """Return how the walkers ended and what bonds formed and broke, for a summary."""
    outcomes = [walk.outcome for walk in walks]
    worst = next(name for name in ("broken", "stopped", "running", "done") if name in outcomes)
    return {
        "outcome": worst,
        "reasons": [walk.reason for walk in walks],
        "steps": [walk.steps for walk in walks],
        "bond_events": bond_events(folder),
    }


def bond_events(folder: Path) -> list[dict[str, Any]]:
    """Return the frames of a trajectory at which a bond formed or broke."""
    names = ("walker", "step", "time_fs", "bonds_formed", "bonds_broken")
    return [
        {name: frame.info.get(name, "") for name in names}
        for frame in recorded_frames(folder)
        if frame.info.get("bond_event")
    ]


def recorded_frames(folder: Path) -> "list[Atoms]":
    """Return the frames of a run's trajectory, none where none were kept."""
    from tace_al.data.extxyz import read_structures
    from tace_al.engines.sampling.recorded_run import TRAJECTORY

    path = folder / TRAJECTORY
    return list(read_structures(path)) if path.exists() else []


def raise_if_broken(walks: "Sequence[Trajectory]", folder: Path) -> None:
    """Say that a run has left physics, once its files are written."""
    broken = [walk for walk in walks if walk.outcome == "broken"]
    if broken:
        raise SamplerError(
            f"{len(broken)} of {len(walks)} walkers broke ({broken[0].reason}); try a "
            "shorter time step, a relaxed start or a better potential. What was good is in "
            f"{folder}"
        )


def _walker(atoms: "Atoms", plan: DynamicsPlan, seed: int, chosen: "ChosenPotential") -> "Walker":
    """Return one start with its guards."""
    from tace_al.core.units import GPA
    from tace_al.engines.sampling.walkers import (
        StopCondition,
        UncertaintyAbove,
        Unphysical,
        Walker,
    )

    stops: list[StopCondition] = [Unphysical(max_separation=plan.max_separation, every=10)]
    if plan.stop_above is not None:
        stops.append(UncertaintyAbove(limit=plan.stop_above, scale=chosen.force_scale))
    end = plan.pressure_end_gpa
    return Walker(
        atoms,
        steps=plan.steps,
        temperature=plan.temperature,
        temperature_end=plan.temperature_end,
        pressure=plan.pressure_gpa * GPA,
        pressure_end=None if end is None else end * GPA,
        seed=seed,
        stops=tuple(stops),
    )
