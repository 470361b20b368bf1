"""`tace-al beam`: a hyperthermal beam on a surface, and how much of it sticks."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, final

import typer

from tace_al.cli.calculation_files import OutFolder
from tace_al.cli.dynamics import RecordEvery, Seed, StopAbove, Timestep
from tace_al.cli.options import Device, OwnDtype
from tace_al.cli.potential_options import CalculatorName, CalculatorOptions, Head, Models
from tace_al.core.errors import DataError, SamplerError

if TYPE_CHECKING:
    from ase import Atoms

    from tace_al.cli.potential_options import ChosenPotential
    from tace_al.engines.sampling.beam import BeamSettings, Impact

SUMMARY, FIGURE, STATE = "beam.json", "beam.png", "beam_state.json"

Surface = Annotated[
    Path, typer.Argument(metavar="SURFACE", help="Slab with its normal along z; any ASE format.")
]
Projectile = Annotated[
    str, typer.Option("--projectile", metavar="NAME", help="Pt, Au, ..., or N2, CO, ...")
]
Number = Annotated[
    int, typer.Option("--number", min=1, help="Trajectories; given again with more, goes on.")
]
BatchSize = Annotated[int, typer.Option("--batch", min=1, help="Trajectories at once.")]
StickTime = Annotated[float, typer.Option("--stick-fs", help="Stuck after so long in contact, fs.")]
Azimuth = Annotated[
    float | None, typer.Option("--azimuth", help="Degrees; default: random each time.")
]


def beam(
    surface: Surface,
    models: Models = None,
    projectile: Projectile = "Pt",
    energy_ev: Annotated[float, typer.Option("--energy-ev", help="Kinetic energy, eV.")] = 0.5,
    angle: Annotated[float, typer.Option("--angle", help="From the normal, degrees.")] = 0.0,
    azimuth: Azimuth = None,
    number: Number = 32,
    temperature: Annotated[float, typer.Option("--temperature", help="Of the slab, K.")] = 300.0,
    steps: Annotated[int, typer.Option("--steps", min=1, help="At most, each.")] = 2000,
    timestep: Timestep = 2.0,
    stick_fs: StickTime = 1000.0,
    equilibration: Annotated[
        int, typer.Option("--equilibration", min=0, help="Steps that warm the slab.")
    ] = 300,
    record_every: RecordEvery = 25,
    batch: BatchSize = 16,
    stop_above: StopAbove = None,
    seed: Seed = 0,
    calculator: CalculatorName = None,
    option: CalculatorOptions = None,
    device: Device = "cpu",
    dtype: OwnDtype = None,
    head: Head = None,
    out: OutFolder = Path("beam"),
) -> None:
    """Shoot atoms or molecules at a surface; the same command goes on with batches not yet done.

    Writes beam.json (verdict of each trajectory, sticking probability), trajectories as
    batch_*.xyz, and beam.png.

    Example: [bold]tace-al beam pt111.xyz --projectile Pt --energy-ev 5 --calculator emt[/bold]
    """
    from tace_al.cli.potential_options import choose_potential
    from tace_al.engines.sampling.beam import BeamSettings

    settings = BeamSettings(
        projectile=projectile,
        energy_ev=energy_ev,
        angle=angle,
        azimuth=azimuth,
        temperature=temperature,
        steps=steps,
        timestep_fs=timestep,
        stick_fs=stick_fs,
        equilibration=equilibration,
    )
    plan = BeamPlan(
        number=number, batch=batch, seed=seed, record_every=record_every, stop_above=stop_above
    )
    chosen = choose_potential(
        models, calculator, options=option, device=device, dtype=dtype, head=head, skin=0.5
    )
    shoot(surface, chosen, settings, plan, out)


@dataclass(frozen=True, kw_only=True, slots=True)
class BeamPlan:
    """How many trajectories, how many at once, and what is kept of them."""

    number: int
    batch: int
    seed: int
    record_every: int
    stop_above: float | None


def shoot(
    surface: Path, chosen: "ChosenPotential", settings: "BeamSettings", plan: BeamPlan, out: Path
) -> None:
    """Run a beam in a folder, or go on with it, and write what came of it."""
    from rich.console import Console

    from tace_al.cli.calculation_files import (
        prepare_folder,
        read_structure,
        run_settings,
        write_summary,
    )
    from tace_al.engines.sampling.beam import sticking
    from tace_al.engines.sampling.beam_run import Keeping, run_beam
    from tace_al.engines.sampling.sampler import Thresholds
    from tace_al.report.nonequilibrium_figures import beam_figure

    atoms = read_structure(surface)
    folder = prepare_folder(out)
    inputs = {**asdict(settings), **asdict(plan)}
    told = {name: value for name, value in inputs.items() if name != "number"}
    state = BatchState(folder, run_settings(told, atoms, chosen.description), plan)
    limits = None
    if plan.stop_above is not None:
        limits = Thresholds(low=0.0, high=plan.stop_above, scale=chosen.force_scale)
    batches = run_beam(
        chosen.potential,
        atoms,
        settings,
        number=plan.number,
        seed=plan.seed,
        keeping=Keeping(every=plan.record_every, thresholds=limits),
        batch=plan.batch,
        first=state.num_batches,
    )
    state.gather(batches)
    impacts = state.impacts
    found = sticking(impacts)
    trajectories = [_plain(impact) for impact in impacts]
    beam_figure(trajectories, folder / FIGURE, title=_title(settings))
    results = {**found, "trajectories": trajectories}
    inputs |= {"surface": surface, "potential": chosen.description}
    write_summary(folder / SUMMARY, inputs=inputs, results=results)
    if "sticking_probability" not in found:
        reasons = sorted({impact.reason for impact in impacts})
        raise SamplerError(
            f"no trajectory was decided ({'; '.join(reasons[:3])}); give more --steps and another "
            f"--out, or another potential. What there is lies in {folder}"
        )
    Console().print(_sentence(found, folder), highlight=False, soft_wrap=True)


@final
class BatchState:
    """What a run has done so far, in its folder: one file of frames a batch, and their verdicts.

    Parameters
    ----------
    folder
        Of the results.
    told
        What was asked for but the number of trajectories; a folder of anything else is refused.
    plan
        With more trajectories than before, a last batch that was not full is done again.
    """

    def __init__(self, folder: Path, told: dict[str, Any], plan: BeamPlan) -> None:
        from tace_al.cli.calculation_files import plain

        self.folder, self.told = folder, plain(told)
        self.impacts: list[Impact] = []
        self.num_batches = 0
        path = folder / STATE
        if not path.exists():
            return
        content = _read_state(path)
        if content["told"] != self.told:
            raise DataError(
                f"{folder} holds a beam with other settings; choose another folder with --out, or "
                "run with the settings it began with"
            )
        for index, kept in enumerate(content["impacts"]):
            if len(kept) < min(plan.batch, plan.number - index * plan.batch):
                break
            self.impacts += _read_batch(folder / _batch_name(index), kept)
            self.num_batches += 1

    def gather(self, batches: "Iterator[list[Impact]]") -> None:
        """Keep every batch as it comes."""
        from tace_al.core.atomic_write import write_bytes
        from tace_al.data.extxyz import write_structures

        kept: list[list[dict[str, Any]]] = []
        if self.num_batches:
            kept = _read_state(self.folder / STATE)["impacts"][: self.num_batches]
        for impacts in batches:
            frames = _marked(impacts, first=len(self.impacts))
            write_structures(self.folder / _batch_name(self.num_batches), frames)
            kept.append([_plain(impact) for impact in impacts])
            self.impacts += impacts
            self.num_batches += 1
            content = {"told": self.told, "impacts": kept}
            write_bytes(self.folder / STATE, json.dumps(content).encode())


def _read_state(path: Path) -> dict[str, Any]:
    """Return what a run has kept.

    Raises
    ------
    DataError
        The file is damaged.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        return {name: content[name] for name in ("told", "impacts")}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is no state of a beam ({error}); remove it to begin anew"
        ) from error


def _batch_name(index: int) -> str:
    """Return the file of a batch's frames."""
    return f"batch_{index:03d}.xyz"


def _marked(impacts: "Sequence[Impact]", *, first: int) -> "list[Atoms]":
    """Return the frames of a batch and last ones, each with its trajectory's number."""
    frames = []
    for number, impact in enumerate(impacts, start=first):
        for frame in (*impact.frames, impact.final):
            marked = frame.copy()
            marked.info["trajectory"] = number
            marked.info["beam_verdict"] = impact.verdict
            frames.append(marked)
    return frames


def _plain(impact: "Impact") -> dict[str, Any]:
    """Return what became of a projectile without frames."""
    return {
        "verdict": impact.verdict,
        "reason": impact.reason,
        "time_fs": impact.time_fs,
        "energy_ev": impact.energy_ev,
        "conserved_drift_ev": impact.conserved_drift_ev,
        "max_force_error_bar_ev_per_a": impact.max_uncertainty,
    }


def _read_batch(path: Path, kept: list[dict[str, Any]]) -> "list[Impact]":
    """Return the trajectories of a batch from what was kept of them."""
    from tace_al.data.extxyz import read_structures
    from tace_al.engines.sampling.beam import Impact

    last: dict[int, Atoms] = {}
    for frame in read_structures(path):
        last[int(frame.info["trajectory"])] = frame
    return [
        Impact(
            verdict=one["verdict"],
            reason=one["reason"],
            time_fs=one["time_fs"],
            energy_ev=one["energy_ev"],
            conserved_drift_ev=one["conserved_drift_ev"],
            max_uncertainty=one["max_force_error_bar_ev_per_a"],
            final=final,
        )
        for one, final in zip(kept, (last[number] for number in sorted(last)), strict=True)
    ]


def _title(settings: "BeamSettings") -> str:
    """Return what was shot how."""
    return f"{settings.projectile}, {settings.energy_ev:g} eV at {settings.angle:g}°"


def _sentence(found: Mapping[str, Any], folder: Path) -> str:
    """Return the result in one line."""
    verdicts = ", ".join(f"{count} {name}" for name, count in found["verdicts"].items())
    return (
        f"sticking probability {found['sticking_probability']:.3f} ± "
        f"{found['sticking_probability_error']:.3f} ({verdicts}); files in {folder}"
    )
