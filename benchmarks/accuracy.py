"""How accurate models are after a stated time of training: one table for each kind of output.

    python -m benchmarks.accuracy NAME [--product spectral] [--time-limit 20m] [--preset small]

Trains every model of a task (`benchmarks.accuracy_tasks`) for the given time each, judges it on
frames it was not trained on, beside a trivial model that knows the composition alone, and writes
`results/accuracy_NAME.json` and `.md`. Rows of earlier runs with other products, presets, devices
or seeds stay; those of the same model are replaced. The folder of the data files is named by the
environment variable TACE_AL_DATA.

The last averaged weights are judged, not the best on the held-out frames, which take no part in
training. Time is that of the clock: on a shared machine, processor seconds say what was used.
"""

import argparse
import json
import logging
import math
import platform
import time
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from rich.console import Console

from benchmarks.accuracy_tables import LEARNING_CURVES, markdown, plot_learning
from benchmarks.accuracy_tasks import TASKS, Split, Task
from benchmarks.accuracy_trivial import trivial_errors
from benchmarks.machine import processor
from tace_al.cli.time_limit import seconds_from_text
from tace_al.core.atomic_write import write_bytes
from tace_al.core.errors import ConfigError, nearest_names
from tace_al.data.extxyz import ENERGY
from tace_al.data.graph import graph_from_atoms
from tace_al.model.checkpoint import save
from tace_al.model.config import TaceConfig, preset_config
from tace_al.model.evaluation import evaluate
from tace_al.model.tace import Tace
from tace_al.model.trainer import EpochReport, TrainingOptions, train

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "numpy", "ase")
ENDLESS = 100_000
"""Epochs; the time limit ends a run."""
CURVE_POINTS = 40


def main() -> None:
    """Train and judge the models of one task, and write the table."""
    options = parsed()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    task = TASKS[options.name]
    split = task.split(options.seed)
    path = options.results / f"accuracy_{options.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    add_rows(path, [trivial_row(task, split)])
    for label in options.models or list(task.models):
        if label not in task.models:
            raise ConfigError(f"no model '{label}' here.{nearest_names(label, task.models)}")
        add_rows(path, [measured(label, task, split, options)])
    Console().print(path.with_suffix(".md").read_text())


def parsed() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=sorted(TASKS))
    parser.add_argument("--product", choices=("spectral", "spatial", "moment"), default="spectral")
    parser.add_argument("--preset", default="small", help="shape of the networks")
    parser.add_argument("--models", nargs="*", help="some of the task's models; all by default")
    parser.add_argument("--time-limit", default="20m", help="of each model, such as 90s or 20m")
    parser.add_argument("--batch-size", type=int, help="structures a step; the task's by default")
    parser.add_argument("--learning-rate", type=float, help="peak rate; the task's by default")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="split, initial weights, batches")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to")
    parser.add_argument("--save", type=Path, help="folder to save the trained models to")
    return parser.parse_args()


def measured(label: str, task: Task, split: Split, options: argparse.Namespace) -> dict[str, Any]:
    """Train one model and return its row."""
    config = network(label, task, split, options)
    training = TrainingOptions(
        epochs=ENDLESS,
        time_limit_s=seconds_from_text(options.time_limit),
        keep_last=True,
        seed=options.seed,
        device=options.device,
        **{**task.training, **given(options)},
    )
    # for a curve, one held-out set is followed during training; it chooses nothing (`keep_last`)
    followed = next(iter(split.held_out.values())) if options.name in LEARNING_CURVES else []
    began = time.process_time()
    result = train(split.train, followed, config=config, options=training, on_epoch=show)
    used = time.process_time() - began
    if options.save:
        options.save.mkdir(parents=True, exist_ok=True)
        name = f"{options.name}_{label.replace(' ', '_')}_{options.product}.tace"
        save(result.model, options.save / name)
    return {
        "model": label,
        **setting(options),
        "parameters": result.model.num_parameters,
        "epochs": len(result.history),
        "training_seconds": round(result.history[-1].seconds, 1),
        "processor_seconds": round(used, 1),
        "training": asdict(training),
        "config": result.model.config.to_dict(),
        "errors": {
            name: errors_of(result.model, frames) for name, frames in split.held_out.items()
        },
        "curve": curve(result.history),
    }


def network(label: str, task: Task, split: Split, options: argparse.Namespace) -> TaceConfig:
    """Return the shape of one of the task's models."""
    elements = sorted({symbol for atoms in split.train for symbol in atoms.get_chemical_symbols()})
    return preset_config(
        options.preset,
        **{"elements": tuple(elements), "products": (options.product,), **task.models[label]},
    )


def given(options: argparse.Namespace) -> dict[str, Any]:
    """Return the training options that the command line names."""
    named = {"batch_size": options.batch_size, "learning_rate": options.learning_rate}
    return {name: value for name, value in named.items() if value is not None}


def errors_of(model: Tace, frames: list[Atoms]) -> dict[str, Any]:
    """Return the errors of a model on held-out frames; energies also for the whole structure."""
    errors = evaluate(model, frames, batch_size=4).to_dict()
    squares = []
    for atoms in frames:
        graph = graph_from_atoms(atoms, model.config.cutoff, model.config.conditions)
        energy = model.evaluate(graph.to(model.embedding.device), ()).energy.item()
        squares.append((energy - atoms.info.get(ENERGY, math.nan)) ** 2)
    if not any(math.isnan(square) for square in squares):
        errors["energy_rmse_mev"] = 1e3 * math.sqrt(sum(squares) / len(squares))
    return errors


def trivial_row(task: Task, split: Split) -> dict[str, Any]:
    """Return the row of the model that knows the composition alone."""
    return {
        "model": "trivial",
        "errors": {
            name: trivial_errors(split.train, frames) for name, frames in split.held_out.items()
        },
    }


def setting(options: argparse.Namespace) -> dict[str, Any]:
    """Return what a row must tell so that it can be repeated."""
    device = f"{processor()}, {options.threads} thread(s)"
    if options.device == "cuda":
        device = torch.cuda.get_device_name()
    return {
        "product": options.product,
        "preset": options.preset,
        "seed": options.seed,
        "time_limit": options.time_limit,
        "device": options.device,
        "machine": f"{platform.system()} {platform.machine()}, {device}",
        "date": datetime.now(UTC).date().isoformat(),
        "versions": ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES),
    }


def curve(history: list[EpochReport]) -> list[dict[str, float]]:
    """Return held-out errors during training, at a few epochs spread evenly over it."""
    points = [report for report in history if report.validation_errors]
    step = max(1, len(points) // CURVE_POINTS)
    return [
        {"seconds": round(report.seconds, 1), **report.validation_errors}
        for report in points[step - 1 :: step]
    ]


def show(report: EpochReport) -> None:
    """Log an epoch now and then."""
    if report.epoch % 10 == 1:
        logging.info(
            "epoch %d, %.0f s: loss %.3g, held out %s",
            report.epoch,
            report.seconds,
            report.training_loss,
            {name: float(f"{error:.3g}") for name, error in report.validation_errors.items()},
        )


def add_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows into a result file and its table, in place of those of the same model."""
    name = path.stem.removeprefix("accuracy_")
    old = json.loads(path.read_text())["rows"] if path.exists() else []
    merged = {identity(row): row for row in [*old, *rows]}
    content = {"task": name, "title": TASKS[name].title, "rows": list(merged.values())}
    text = json.dumps(content, indent=1, default=str) + "\n"
    write_bytes(path, text.encode())
    write_bytes(path.with_suffix(".md"), markdown(TASKS[name], name, content["rows"]).encode())
    if name in LEARNING_CURVES:
        plot_learning(content["rows"], path.with_suffix(".png"))


def identity(row: dict[str, Any]) -> tuple[str, ...]:
    """Return what tells one row from another."""
    keys = ("model", "product", "preset", "device", "seed")
    return tuple(str(row.get(key, "")) for key in keys)


if __name__ == "__main__":
    main()
