"""`tace-al train`: one model from a file of labelled structures."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tace_al.cli.model_options import (
    ModelOptions,
    OtherKeys,
    Tensors,
    Weights,
    check_labels,
    label_keys,
    label_names,
    loss_weights,
    network_options,
    pairs,
)
from tace_al.cli.options import (
    BatchSize,
    Data,
    Device,
    EnergyKey,
    ForcesKey,
    OwnDtype,
    StressKey,
    Threads,
    TimeLimit,
)
from tace_al.cli.train_options import (
    Also,
    Cutoff,
    Epochs,
    Freeze,
    LearningRate,
    Level,
    Members,
    Out,
    Preset,
    Seed,
    Start,
    Validation,
    ValidFraction,
)
from tace_al.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from ase import Atoms

    from tace_al.data.extxyz import LabelKeys
    from tace_al.model.config import TaceConfig
    from tace_al.model.loss import LossWeights
    from tace_al.model.tace import Tace
    from tace_al.model.trainer import TrainingOptions, TrainingResult

DEFAULT_PRESET = "small"
DEFAULT_EPOCHS = 200
ENDLESS = 1_000_000
"""Passes where a time limit ends training."""
LINE_SECONDS = 10.0
"""Where there is no terminal to draw a bar in, a line is written this often."""


def train(
    data: Data,
    out: Out,
    validation: Validation = None,
    valid_fraction: ValidFraction = 0.1,
    energy_key: EnergyKey = "REF_energy",
    forces_key: ForcesKey = "REF_forces",
    stress_key: StressKey = "REF_stress",
    other_keys: OtherKeys = None,
    head: Level = None,
    also: Also = None,
    members: Members = None,
    freeze: Freeze = None,
    preset: Preset = None,
    cutoff: Cutoff = None,
    options: ModelOptions = None,
    tensors: Tensors = None,
    weights: Weights = None,
    epochs: Epochs = None,
    time_limit: TimeLimit = None,
    batch_size: BatchSize = 5,
    learning_rate: LearningRate = None,
    start: Start = None,
    seed: Seed = 0,
    dtype: OwnDtype = None,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Train a TACE model on energies, forces, stress and any other labelled output.

    A key left at its default gives way to the file's calculator results where it has none.
    Levels of theory share one trunk; name them by head= in the file, by --head and by --also.
    Example: [bold]tace-al train data.xyz.xz --preset small --time-limit 10m --out m.tace[/bold]
    """
    from tace_al.model import checkpoint
    from tace_al.model.trainer import LEARNING_RATE, TrainingOptions

    check_target(out, device=device, threads=threads)
    keys = label_keys(energy_key, forces_key, stress_key, others=label_names(other_keys))
    warm = None if start is None else checkpoint.load(start, device=device)
    files = level_files(head, data, also, warm=warm)
    frames, held_out = read_levels(files, validation, keys, fraction=valid_fraction, seed=seed)
    frames, held_out = of_members(frames, held_out, members, seed=seed, warm=warm)
    shape = network_options(options, tensors, dtype=dtype, cutoff=cutoff)
    config = network_config(frames + held_out, preset=preset, shape=shape, warm=warm)
    training = TrainingOptions(
        epochs=epochs or (DEFAULT_EPOCHS if time_limit is None else ENDLESS),
        time_limit_s=math.inf if time_limit is None else time_limit,
        batch_size=batch_size,
        learning_rate=learning_rate or LEARNING_RATE,
        weights=checked_weights(weights, keys, config),
        frozen=frozen_parts(freeze, start),
        seed=seed,
        device=device,
    )
    result = train_with_progress(frames, held_out, config, options=training, start=warm)
    result.model.metadata |= provenance(frames, files, seed=seed, preset=preset, start=start)
    checkpoint.save(result.model, out)
    show_result(result, held_out, out)


def frozen_parts(freeze: Sequence[str] | None, start: Path | None) -> tuple[str, ...]:
    """Return the names of what is not to be trained; only a trained model has any."""
    if freeze and start is None:
        raise ConfigError("--freeze keeps weights of a trained model; name it with --start")
    return tuple(freeze or ())


def level_files(
    head: str | None, data: Path, also: Sequence[str] | None, *, warm: "Tace | None"
) -> dict[str, Path]:
    """Return the file of each level of theory, that of DATA first."""
    level = head or ("default" if warm is None else warm.config.heads[0])
    others = {name: Path(file) for name, file in pairs(also, "--also").items()}
    if level in others:
        raise ConfigError(
            f"--also {level}={others[level]} names the level of {data} again; name that of DATA "
            "with --head, or put the frames in one file"
        )
    return {level: data} | others


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


def read_levels(
    files: dict[str, Path],
    validation: Path | None,
    keys: "LabelKeys",
    *,
    fraction: float,
    seed: int,
) -> "tuple[list[Atoms], list[Atoms]]":
    """Return training and held-out frames of every level of theory, each marked with its level.

    `validation` holds out frames of the first file; of the others a share of every level is held
    out, of few frames as of many.
    """
    from tace_al.data.extxyz import read_labelled
    from tace_al.model.labelled_batch import HEAD

    training: list[Atoms] = []
    held_out: list[Atoms] = []
    for index, (level, file) in enumerate(files.items()):
        frames = with_level(read_labelled(file, keys), level)
        if validation is not None and index == 0:
            training += frames
            held_out += with_level(read_labelled(validation, keys), level)
            continue
        for name in dict.fromkeys(atoms.info[HEAD] for atoms in frames):
            own = [atoms for atoms in frames if atoms.info[HEAD] == name]
            kept, left_out = split(own, fraction, seed=seed)
            training += kept
            held_out += left_out
    return training, held_out


def checked_weights(
    weights: Sequence[str] | None, keys: "LabelKeys", config: "TaceConfig"
) -> "LossWeights":
    """Return the weights of the loss; they and the labels name outputs that the model has."""
    loss = loss_weights(weights)
    check_labels([*keys.others, *loss.others], config)
    return loss


def of_members(
    frames: "list[Atoms]",
    held_out: "list[Atoms]",
    count: int | None,
    *,
    seed: int,
    warm: "Tace | None",
) -> "tuple[list[Atoms], list[Atoms]]":
    """Return the frames of one level shared out to the heads of a committee, held-out ones to all.

    All frames stay as they are where no number of members is given.

    Raises
    ------
    ConfigError
        The frames are of several levels, or the model to start from has other heads.
    """
    from tace_al.model.bootstrap_heads import bootstrap_heads, in_every_head, member_heads
    from tace_al.model.labelled_batch import HEAD

    if count is None:
        return frames, held_out
    heads = member_heads(count)
    levels = sorted({atoms.info[HEAD] for atoms in [*frames, *held_out]})
    if len(levels) > 1:
        raise ConfigError(
            f"--members shares out frames of one level of theory, and these are of "
            f"{', '.join(levels)}; train on one of them, or leave --members out"
        )
    if warm is not None and warm.config.heads != heads:
        raise ConfigError(
            f"the model to start from has the heads {', '.join(warm.config.heads)}, not "
            f"{', '.join(heads)}; leave --start or --members out"
        )
    return bootstrap_heads(frames, heads, seed=seed), in_every_head(held_out, heads)


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
        for level, metrics in evaluation.evaluate_by_head(result.model, held_out).items():
            console.print(metrics_table(metrics, title=f"Held-out structures, {level}"))


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


def with_level(frames: "Sequence[Atoms]", level: str) -> "list[Atoms]":
    """Return the frames, those that name no level of theory marked with this one."""
    from tace_al.model.labelled_batch import HEAD

    for atoms in frames:
        atoms.info[HEAD] = str(atoms.info.get(HEAD, level))
    return list(frames)


def network_config(
    frames: "Sequence[Atoms]", *, preset: str | None, shape: dict[str, Any], warm: "Tace | None"
) -> "TaceConfig":
    """Return the network's shape for the data, or that of the warm start with the data's heads."""
    from tace_al.model.config import preset_config
    from tace_al.model.labelled_batch import HEAD

    elements = {symbol for atoms in frames for symbol in atoms.get_chemical_symbols()}
    heads = tuple(dict.fromkeys(atoms.info[HEAD] for atoms in frames))
    if warm is None:
        return preset_config(
            preset or DEFAULT_PRESET, elements=sorted(elements), heads=heads, **shape
        )
    unknown = sorted(elements - set(warm.config.elements))
    if unknown:
        raise ConfigError(
            f"the model to start from does not know {', '.join(unknown)}; leave --start out"
        )
    fixed = sorted(set(shape) - {"dtype"}) + (["preset"] if preset else [])
    if fixed:
        raise ConfigError(
            f"{', '.join(fixed)} cannot be set with --start, whose model has its shape; leave out "
            "one of them"
        )
    heads = (*warm.config.heads, *(name for name in heads if name not in warm.config.heads))
    return replace(warm.config, heads=heads, dtype=shape.get("dtype", warm.config.dtype))


def train_with_progress(
    frames: "Sequence[Atoms]",
    held_out: "Sequence[Atoms]",
    config: "TaceConfig",
    *,
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
    frames: "Sequence[Atoms]",
    files: dict[str, Path],
    *,
    seed: int,
    preset: str | None,
    start: Path | None,
) -> dict[str, Any]:
    """Return where a model comes from, for its checkpoint; what it goes on from says the rest."""
    import importlib.metadata

    from tace_al.core.hashing import content_hash
    from tace_al.data.frames import structure_key
    from tace_al.model.labelled_batch import HEAD
    from tace_al.store.model_files import LABEL_KEYS, ancestors, packed_label_keys

    made = {
        "data": next(iter(files.values())).name,
        "files": {level: file.name for level, file in files.items()},
        "levels": dict(Counter(atoms.info[HEAD] for atoms in frames)),
        "training_set": content_hash([structure_key(atoms) for atoms in frames]),
        "num_training": len(frames),
        "seed": seed,
        "parent": None if start is None else start.name,
        "code_version": importlib.metadata.version("tace-al"),
        LABEL_KEYS: packed_label_keys(atoms.info.get("label_key") for atoms in frames),
    }
    if start is not None:
        return made | {"ancestors": ancestors(start)}
    return made | {"preset": preset or DEFAULT_PRESET}
