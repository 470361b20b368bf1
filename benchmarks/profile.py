"""Where our time goes, against the least that must be computed and moved.

    python -m benchmarks.profile [--system water] [--system ethanol] [--training]

Energy and forces of `small` in float32 on one thread through the ASE calculator, or a training step
on a batch of eight, under PyTorch's profiler: time, calls and allocated bytes by group of
operators, and what passes outside them (Python, neighbours). Shares are those of the profiled run
by the clock, which is slower; milliseconds are of processor time without the profiler. The floor is
counted (`benchmarks.profile_floor`). Writes `profile.json` and `profile.md`.

Run it as a module: as a script it would hide Python's own module `profile`.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from benchmarks.machine import processor
from benchmarks.preset_costs import structure
from benchmarks.profile_floor import Floor, floor_of
from benchmarks.speed_structures import elements, rattled, with_labels
from tace_al.core.atomic_write import write_bytes
from tace_al.data.graph import graph_from_atoms
from tace_al.model.calculator import TaceCalculator
from tace_al.model.labelled_batch import join, labelled
from tace_al.model.loss import LossWeights, training_loss
from tace_al.model.tace import Tace

RESULTS = Path(__file__).parent / "results"
SYSTEMS = ("water", "ethanol")
BATCH = {"water": 1, "ethanol": 8}
"""Structures of a training step."""
CALLS = 30
OUTSIDE = "outside operators"
GROUPS: Mapping[str, tuple[str, ...]] = {
    "our kernels": ("tace_al::", "tace::", "_Product", "_Sums", "_Splined", "_Gradients"),
    "matrix products": ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm", "aten::addbmm"),
    "gather and scatter": (
        "aten::index",
        "aten::gather",
        "aten::scatter",
        "aten::take",
        "aten::bincount",
        "aten::sort",
        "aten::argsort",
    ),
    "copies": ("aten::copy_", "aten::cat", "aten::clone", "aten::_to_copy", "aten::fill_"),
    "new arrays": ("aten::empty", "aten::zeros", "aten::new_", "aten::full", "aten::resize_"),
    "views": (
        "aten::view",
        "aten::reshape",
        "aten::as_strided",
        "aten::slice",
        "aten::select",
        "aten::split",
        "aten::narrow",
        "aten::transpose",
        "aten::permute",
        "aten::t",
        "aten::unsqueeze",
        "aten::squeeze",
        "aten::expand",
        "aten::unbind",
        "aten::unflatten",
        "aten::detach",
        "aten::alias",
        "aten::_unsafe_view",
    ),
    "element by element": ("aten::",),
    "autograd": ("",),
}
"""Beginnings of operators' names; the first group that fits is taken."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """A group of operators in one call: share of the time, number, bytes they allocate."""

    name: str
    share: float
    milliseconds: float
    operators: float
    allocated_mib: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """One system: medians of processor time, groups, and the floor."""

    system: str
    work: str
    num_atoms: int
    num_edges: int
    milliseconds: float
    groups: list[Group]
    floor: Floor


def main() -> None:
    """Profile what is asked for, show the tables and write them."""
    options = parsed()
    torch.set_num_threads(1)
    console = Console(width=120)
    profiles = [
        profiled(name, training=options.training) for name in options.system or list(SYSTEMS)
    ]
    for found in profiles:
        console.print(table(found))
        console.print(floor_text(found), highlight=False)
    write(profiles, options.out, "profile_training" if options.training else "profile")


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--system", action="append", choices=SYSTEMS, help="both by default")
    parser.add_argument("--training", action="store_true", help="a training step instead")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder to write to")
    return parser.parse_args(arguments)


def profiled(name: str, *, training: bool, preset: str = "small", calls: int = CALLS) -> Profile:
    """Return the profile of one system."""
    atoms = structure(name)
    model = Tace.from_preset(preset, elements=list(elements(atoms)))
    generator = np.random.default_rng(0)
    count = BATCH[name] if training else 1
    make = training_step if training else evaluation
    call = make(model, rattled(atoms, count, generator))
    for _ in range(3):
        call()
    times = [timed(call) for _ in range(calls)]
    milliseconds = 1e3 * float(np.median(times))
    num_edges = count * graph_from_atoms(atoms, model.config.cutoff).sender.shape[0]
    return Profile(
        system=name,
        work=f"training step, batch of {count}" if training else "energy and forces",
        num_atoms=count * len(atoms),
        num_edges=num_edges,
        milliseconds=milliseconds,
        groups=groups(call, milliseconds, calls),
        floor=floor_of(model, count * len(atoms), num_edges, training=training),
    )


def evaluation(model: Tace, frames: Sequence[Atoms]) -> Callable[[], object]:
    """Return an evaluation through the calculator, of frames moved a little every time."""
    calculator = TaceCalculator(model)
    generator = np.random.default_rng(1)
    (atoms,) = frames

    def call() -> None:
        calculator.calculate(rattled(atoms, 1, generator)[0], ["energy", "forces"])

    return call


def training_step(model: Tace, frames: Sequence[Atoms]) -> Callable[[], object]:
    """Return a training step."""
    model.train()
    labels = with_labels(frames, np.random.default_rng(1))
    batch = join([labelled(atoms, model.config) for atoms in labels])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, foreach=True)

    def call() -> None:
        optimizer.zero_grad(set_to_none=True)
        output = model.evaluate(batch.graph, batch.names, create_graph=True)
        training_loss(output, batch, LossWeights()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()

    return call


def timed(call: Callable[[], object]) -> float:
    """Return the processor time of a call in seconds."""
    began = time.process_time()
    call()
    return time.process_time() - began


def groups(call: Callable[[], object], milliseconds: float, calls: int) -> list[Group]:
    """Return the groups of operators of a call, the largest first."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as found:
        began = time.perf_counter()  # as the profiler counts
        for _ in range(calls):
            call()
        whole = time.perf_counter() - began
    seconds = dict.fromkeys(GROUPS, 0.0)
    numbers, allocated = dict.fromkeys(GROUPS, 0), dict.fromkeys(GROUPS, 0)
    for event in found.events():
        if event.name.startswith("["):  # "[memory]" is no operator
            continue
        group = group_of(event.name)
        seconds[group] += 1e-6 * event.self_cpu_time_total
        numbers[group] += 1
        allocated[group] += max(event.self_cpu_memory_usage, 0)
    seconds[OUTSIDE] = max(whole - sum(seconds.values()), 0.0)
    total = sum(seconds.values())
    return [
        Group(
            name=name,
            share=seconds[name] / total,
            milliseconds=milliseconds * seconds[name] / total,
            operators=numbers.get(name, 0) / calls,
            allocated_mib=allocated.get(name, 0) / calls / 2**20,
        )
        for name in sorted(seconds, key=lambda name: -seconds[name])
    ]


def group_of(name: str) -> str:
    """Return the group of an operator.

    >>> group_of("aten::index_select"), group_of("aten::mul"), group_of("aten::mm")
    ('gather and scatter', 'element by element', 'matrix products')
    """
    return next(group for group, starts in GROUPS.items() if name.startswith(starts))


def table(found: Profile) -> Table:
    """Return the groups as a table."""
    title = (
        f"{found.system}, {found.work}: {found.num_atoms} atoms, {found.num_edges} edges, "
        f"{found.milliseconds:.2f} ms"
    )
    drawn = Table(title=title)
    for heading in ("group", "share, %", "ms", "operators", "allocated, MiB"):
        drawn.add_column(heading, justify="left" if heading == "group" else "right")
    for cells in rows(found):
        drawn.add_row(*cells)
    return drawn


def rows(found: Profile) -> list[tuple[str, ...]]:
    """Return the cells of a table, the sum last."""
    lines = [
        (
            group.name,
            f"{100 * group.share:.1f}",
            f"{group.milliseconds:.2f}",
            f"{group.operators:.0f}",
            f"{group.allocated_mib:.2f}",
        )
        for group in found.groups
    ]
    operators = f"{sum(group.operators for group in found.groups):.0f}"
    allocated = f"{sum(group.allocated_mib for group in found.groups):.2f}"
    return [*lines, ("all", "100", f"{found.milliseconds:.2f}", operators, allocated)]


def floor_text(found: Profile) -> str:
    """Return what must be computed and moved, and how far from it we are."""
    floor = found.floor
    parts = ", ".join(f"{part} {1e-6 * count:.3g}" for part, count in floor.operations.items())
    return (
        f"Floor: {1e-6 * sum(floor.operations.values()):.3g} million operations ({parts}), "
        f"{1e3 * floor.arithmetic_seconds:.3g} ms at {1e-9 * floor.flops_per_second:.0f} GFLOP/s; "
        f"{floor.moved_bytes / 2**20:.3g} MiB, {1e3 * floor.memory_seconds:.3g} ms at "
        f"{1e-9 * floor.bytes_per_second:.0f} GB/s. Measured is "
        f"{1e-3 * found.milliseconds / floor.seconds:.1f} times the floor."
    )


def write(profiles: Sequence[Profile], folder: Path, name: str) -> None:
    """Write the profiles as JSON and as Markdown."""
    content: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {processor()}, one thread",
        "versions": f"torch {metadata.version('torch')}",
        "profiles": [
            {**asdict(found), "floor_milliseconds": 1e3 * found.floor.seconds} for found in profiles
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())
    lines = ["# Where the time goes", "", f"{content['date']}; {content['machine']}.", ""]
    for found in profiles:
        lines += [f"## {table(found).title}", ""]
        lines += ["| group | share, % | ms | operators | allocated, MiB |", "|---|---|---|---|---|"]
        lines += ["| " + " | ".join(cells) + " |" for cells in rows(found)]
        lines += ["", floor_text(found), ""]
    lines.append("Written by `python -m benchmarks.profile`.")
    write_bytes(path.with_suffix(".md"), ("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    main()
