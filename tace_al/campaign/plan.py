"""What a campaign would run where, read from its settings; nothing is started.

Counts follow the loop (docs/decisions/0004): once at the start, then for each generation. Times are
measured where the campaign's folder already holds finished tasks and labels, bounds where a setting
limits them, and unknown otherwise.
"""

import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from tace_al.campaign.config import Campaign
from tace_al.dispatch.machine import Machine
from tace_al.engines.labelling.catalogue import labeller_from_name
from tace_al.model.config import preset_config
from tace_al.model.tace import Tace
from tace_al.store.store import Store

# Bytes of a label on disk and in the database: what every one needs, and each atom adds.
_LABEL_BYTES, _ATOM_BYTES = 8_000, 160
_WEIGHT_BYTES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedTask:
    """One kind of task.

    Parameters
    ----------
    kind, purpose
        Name of the task, and what it does in a few words.
    number
        How many: "2 at the start", "4 a generation".
    where
        The kind of block, or what runs it on this computer.
    seconds
        Time of one: measured, bounded or unknown.
    """

    kind: str
    purpose: str
    number: str
    where: str
    seconds: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedWorkers:
    """One kind of worker pool: its name, size, and how long a block of it lives."""

    name: str
    workers: int
    resources: str
    walltime: str
    drain: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What `tace-al plan` shows."""

    campaign: Campaign
    tasks: tuple[PlannedTask, ...]
    workers: tuple[PlannedWorkers, ...]
    budget: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What the campaign's folder knows already.

    Parameters
    ----------
    labels
        Labels made, by level of theory.
    label_seconds, task_seconds
        Mean seconds of a label by level of theory, of a task by kind.
    """

    labels: Mapping[str, int]
    label_seconds: Mapping[str, float]
    task_seconds: Mapping[str, float]


def measured_in(directory: Path, uri: str | None) -> Measured:
    """Return what a campaign's folder knows; nothing where there is none yet."""
    labels: dict[str, list[float]] = defaultdict(list)
    tasks: dict[str, list[float]] = defaultdict(list)
    if directory.is_dir() and any(directory.iterdir()):
        with Store.open(directory, uri=uri, create=False) as store:
            for record in store.labels(state=None):
                labels[str(record.fidelity_name)].append(float(record.seconds))
            for event in store.events(kind="task"):
                if event.data["ok"]:
                    seconds = event.data["ended"] - event.data["started"]
                    tasks[event.data["task_kind"]].append(seconds)
    return Measured(
        labels={name: len(seconds) for name, seconds in labels.items()},
        label_seconds=_means(labels),
        task_seconds=_means(tasks),
    )


def _means(seconds: Mapping[str, Iterable[float]]) -> dict[str, float]:
    return {name: fmean(values) for name, values in seconds.items()}


def plan_campaign(campaign: Campaign, *, directory: Path, uri: str | None) -> Plan:
    """Return the plan of a campaign that runs, or would run, in `directory`."""
    measured = measured_in(directory, uri)
    return Plan(
        campaign=campaign,
        tasks=tuple(_tasks(campaign, measured)),
        workers=tuple(_workers(campaign.machine)),
        budget=_budget(campaign, measured, directory),
    )


def _tasks(campaign: Campaign, measured: Measured) -> Iterable[PlannedTask]:
    """Yield every kind of task, in the order of a generation."""
    relaxed = 2 * len(campaign.reactions)
    relaxed += sum(len(channel.starts) for channel in campaign.structures if channel.relax)
    channels = len(campaign.channels)
    walkers = campaign.exploration.walkers * channels
    sampled = sum(
        sampler.walkers * (len(sampler.channels) or channels) for sampler in campaign.samplers
    )
    members, batch = campaign.model.members, campaign.acquisition.per_generation
    targets = int(campaign.target_name not in ("barrier", "none"))
    limit = f"at most {campaign.model.seconds:g} s"
    relax = "relax_levels" if campaign.fidelities else "relax"
    rows = (
        (relax, "end states and starts, by the labeller", f"{relaxed} at the start", ""),
        ("label", "structures in batches", f"{batch} structures a generation", ""),
        ("train", "a member of the committee", f"{members} a generation", limit),
        ("assess", "errors and descriptors", "2 a generation", ""),
        ("langevin", "a walker's chunk", f"{0 if campaign.samplers else walkers} a generation", ""),
        ("sample", "samplers by name", f"{sampled} a generation", ""),
        ("band", "an elastic band", f"{len(campaign.reactions)} a generation", ""),
        ("target", "what must converge", f"{targets} a generation", ""),
    )
    for kind, purpose, number, bound in rows:
        if number.startswith("0 "):
            continue
        seconds = measured.task_seconds.get(kind)
        yield PlannedTask(
            kind=kind,
            purpose=purpose,
            number=number,
            where=_where(campaign.machine, kind),
            seconds=f"{seconds:.2g} s measured" if seconds is not None else bound or "unknown",
        )


def _where(machine: Machine, kind: str) -> str:
    if machine.slurm is None:
        return machine.executor
    block = machine.block_of(kind)
    return f"{block} ({machine.blocks[block].partition or 'default partition'})"


def _workers(machine: Machine) -> Iterable[PlannedWorkers]:
    """Yield the pools of workers of a machine."""
    threads = f"{machine.threads_per_worker} threads each"
    if machine.slurm is None:
        yield PlannedWorkers(
            name=machine.executor,
            workers=machine.workers,
            resources=f"this computer, {threads}",
            walltime="as long as the campaign",
            drain="",
        )
    for name, block in machine.blocks.items():
        gpus = f", {block.gpus_per_node} GPUs" if block.gpus_per_node else ""
        gpus += f" (models on {block.device})" if block.device != "cpu" else ""
        account = f", account {block.account}" if block.account else ""
        partition = f"partition {block.partition or '(default)'}"
        yield PlannedWorkers(
            name=name,
            workers=block.num_workers,
            resources=(
                f"{block.min_blocks} to {block.max_blocks} blocks of {block.nodes_per_block} nodes "
                f"with {block.cores_per_node} cores{gpus}; {partition}{account}; {threads}"
            ),
            walltime=block.walltime,
            drain=(
                f"no new task after {block.drain_period_s / 3600:.2g} h, "
                f"none longer than {block.longest_task_s} s"
            ),
        )


def _budget(campaign: Campaign, measured: Measured, directory: Path) -> dict[str, str]:
    """Return labels, time and disk by name."""
    stopping = campaign.stopping
    done = sum(measured.labels.values())
    labels = f"at most {stopping.max_labels}"
    if campaign.fidelities and stopping.max_expensive_labels is not None:
        labels += f", {stopping.max_expensive_labels} of them {campaign.labeller.name}"
    choices = campaign.fidelities or (campaign.labeller,)
    costs, known = [], []
    for choice in choices:
        name = labeller_from_name(choice.name, choice.options).fidelity.name
        seconds = measured.label_seconds.get(name)
        if seconds is None:
            costs.append(f"{name}: unknown until the first label")
        else:
            costs.append(f"{name}: {seconds:.2g} s, mean of {measured.labels[name]}")
            known.append(seconds)
    workers = campaign.machine.workers_in(campaign.machine.block_of("label"))
    left = max(stopping.max_labels - done, 0)
    time = "unknown"
    if len(known) == len(choices):
        time = f"at most {_duration(left * max(known))} of one worker, on up to {workers} at once"
    limit = "none" if stopping.max_seconds is None else _duration(stopping.max_seconds)
    return {
        "labels": f"{labels}, {done} made" if done else labels,
        "cost of a label": "; ".join(costs),
        "labels still to make": time,
        "generations": f"at most {stopping.max_generations}",
        "time limit": limit,
        "disk": _disk(campaign, directory),
    }


def _disk(campaign: Campaign, directory: Path) -> str:
    """Return the room that results will take, and how much there is."""
    choice = campaign.model
    config = preset_config(choice.preset, elements=campaign.elements, **choice.options)
    weights = Tace(config).num_parameters * _WEIGHT_BYTES * choice.members
    atoms = max(len(structure.symbols) for structure in campaign.start_structures)
    labels = campaign.stopping.max_labels * (_LABEL_BYTES + atoms * _ATOM_BYTES)
    # Every generation writes its training set once.
    generations = campaign.stopping.max_generations
    needed = labels + generations * (weights + labels / 2)
    existing = directory.resolve()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    return f"about {_size(needed)} at most in {directory}, {_size(free)} free"


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"


def _duration(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
