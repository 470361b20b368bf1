"""`tace-al train`: one model from a file of labelled structures."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tace_al.cli.options import (
    BatchSize,
    Data,
    Device,
    Dtype,
    EnergyKey,
    ForcesKey,
    StressKey,
    Threads,
    TimeLimit,
)
from tace_al.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from ase import Atoms

    from tace_al.data.extxyz import LabelKeys
    from tace_al.model.config import Dtype as Precision
    from tace_al.model.config import TaceConfig
    from tace_al.model.tace import Tace
    from tace_al.model.trainer import TrainingOptions, TrainingResult

LINE_SECONDS = 10.0
"""Where there is no terminal to draw a bar in, a line is written this often."""


def train(
    data: Data,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the model goes.")],
    validation: Annotated[
        Path | None,
        typer.Option("--valid", metavar="FILE", help="Held-out structures; default: a share."),
    ] = None,
    valid_fraction: Annotated[
        float,
        typer.Option("--valid-fraction", min=0.0, max=0.9, help="Share of DATA to hold out."),
    ] = 0.1,
    energy_key: EnergyKey = "REF_energy",
    forces_key: ForcesKey = "REF_forces",
    stress_key: StressKey = "REF_stress",
    preset: Annotated[
        str, typer.Option("--preset", help="Size of the network: tiny, small, medium, large.")
    ] = "small",
    cutoff: Annotated[float, typer.Option("--cutoff", min=0.5, help="Å.")] = 5.0,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Passes, at most.")] = 200,
    time_limit: TimeLimit = None,
    batch_size: BatchSize = 8,
    learning_rate: Annotated[float, typer.Option("--learning-rate", min=0.0)] = 0.03,
    start: Annotated[
        Path | None, typer.Option("--start", metavar="MODEL", help="Warm start: go on from this.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Weights, order and held-out share.")] = 0,
    dtype: Dtype = "float32",
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Train a TACE model on energies, forces and stress, with a progress bar.

    A key left at its default gives way to the file's calculator results where it has none.

    Example: [bold]tace-al train data.xyz.xz --preset small --time-limit 10m --out m.tace[/bold]
    """
    from tace_al.data.extxyz import LabelKeys
    from tace_al.model import checkpoint
    from tace_al.model.trainer import TrainingOptions

    check_target(out, device=device, threads=threads)
    keys = LabelKeys(energy=energy_key, forces=forces_key, stress=stress_key)
    frames, held_out = read_sets(data, validation, keys, fraction=valid_fraction, seed=seed)
    warm = None if start is None else checkpoint.load(start, device=device)
    config = network_config(frames + held_out, preset=preset, cutoff=cutoff, dtype=dtype, warm=warm)
    options = TrainingOptions(
        epochs=epochs,
        time_limit_s=math.inf if time_limit is None else time_limit,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        device=device,
    )
    result = train_with_progress(frames, held_out, config=config, options=options, start=warm)
    result.model.metadata |= provenance(frames, data, seed=seed, preset=preset, start=start)
    checkpoint.save(result.model, out)
    show_result(result, held_out, out)


def check_target(out: Path, *, device: str, threads: int) -> None:
    """Refuse, before the work begins, a target or device that cannot be used."""
    import torch

    from tace_al.cli.evaluate import check_device
    from tace_al.core.allocator import keep_freed_memory
    from tace_al.core.atomic_write import require_free_space

    check_device(device)
    if out.is_dir():
        raise DataError(f"{out} is a folder; name a file to write, such as {out / 'model.tace'}")
    require_free_space(out.absolute().parent)
    keep_freed_memory()
    torch.set_num_threads(threads)


def read_sets(
    data: Path, validation: Path | None, keys: "LabelKeys", *, fraction: float, seed: int
) -> "tuple[list[Atoms], list[Atoms]]":
    """Return training and held-out frames: the file's own, or a share of the data."""
    from tace_al.data.extxyz import read_labelled

    frames = read_labelled(data, keys)
    if validation is not None:
        return frames, read_labelled(validation, keys)
    return split(frames, fraction, seed=seed)


def show_result(result: "TrainingResult", held_out: "Sequence[Atoms]", out: Path) -> None:
    """Show why training stopped, and the errors on held-out structures."""
    from rich.console import Console

    from tace_al.cli.evaluate import metrics_table
    from tace_al.model import evaluation

    console = Console()
    console.print(
        f"{len(result.history)} epochs, stopped by {result.stopped}; model in {out}",
        highlight=False,
    )
    if held_out:
        metrics = evaluation.evaluate(result.model, held_out)
        console.print(metrics_table(metrics, title="Held-out structures"))


def split(
    frames: "Sequence[Atoms]", fraction: float, *, seed: int
) -> "tuple[list[Atoms], list[Atoms]]":
    """Return training and held-out frames; isolated atoms always train."""
    from tace_al.core.random_generators import random_generator
    from tace_al.data.extxyz import is_isolated_atom

    bonded = [index for index, atoms in enumerate(frames) if not is_isolated_atom(atoms)]
    count = round(fraction * len(bonded))
    order = random_generator(seed, "validation").permutation(len(bonded))[:count]
    held_out = {bonded[int(position)] for position in order}
    return (
        [atoms for index, atoms in enumerate(frames) if index not in held_out],
        [atoms for index, atoms in enumerate(frames) if index in held_out],
    )


def network_config(
    frames: "Sequence[Atoms]",
    *,
    preset: str,
    cutoff: float,
    dtype: "Precision",
    warm: "Tace | None",
) -> "TaceConfig":
    """Return the network's shape for the elements of the data, or that of the warm start."""
    from tace_al.model.config import preset_config

    elements = {symbol for atoms in frames for symbol in atoms.get_chemical_symbols()}
    if warm is None:
        return preset_config(preset, elements=sorted(elements), cutoff=cutoff, dtype=dtype)
    unknown = sorted(elements - set(warm.config.elements))
    if unknown:
        raise ConfigError(
            f"the model to start from does not know {', '.join(unknown)}; leave --start out"
        )
    return replace(warm.config, dtype=dtype)


def train_with_progress(
    frames: "Sequence[Atoms]",
    held_out: "Sequence[Atoms]",
    *,
    config: "TaceConfig",
    options: "TrainingOptions",
    start: "Tace | None",
) -> "TrainingResult":
    """Train behind a progress bar that shows the epoch and both losses."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as Remaining

    from tace_al.model import trainer

    console = Console(stderr=True)
    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), Remaining())
    last_line = -math.inf
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"{len(frames)} structures", total=1.0)

        def show(report: trainer.EpochReport) -> None:
            nonlocal last_line
            text = (
                f"epoch {report.epoch}  training {report.training_loss:.4g}  "
                f"held out {report.validation_loss:.4g}"
            )
            progress.update(task, completed=report.progress, description=text)
            if not console.is_terminal and report.seconds - last_line >= LINE_SECONDS:
                last_line = report.seconds
                console.print(f"{report.seconds:.0f} s  {report.progress:.0%}  {text}")

        return trainer.train(
            frames, held_out, config=config, options=options, start=start, on_epoch=show
        )


def provenance(
    frames: "Sequence[Atoms]", data: Path, *, seed: int, preset: str, start: Path | None
) -> dict[str, str | int | None]:
    """Return where a model comes from, for its checkpoint."""
    import importlib.metadata

    from tace_al.core.hashing import content_hash
    from tace_al.data.frames import structure_key

    return {
        "data": data.name,
        "training_set": content_hash([structure_key(atoms) for atoms in frames]),
        "num_training": len(frames),
        "seed": seed,
        "preset": preset,
        "parent": None if start is None else start.name,
        "code_version": importlib.metadata.version("tace-al"),
    }
