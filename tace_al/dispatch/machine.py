"""Where work runs: threads here, processes of this computer, or blocks of a Slurm cluster.

A `Machine` is plain validated data, part of a campaign's configuration; `executors.py` turns it
into Parsl's objects. A cluster may have two kinds of block: one for labels (CPU nodes, usually) and
one for everything that runs a model (GPU nodes). Times of a block: with wall time W it takes no new
task after `W - start_up - longest_task`, and no task may run longer than `longest_task`, so that
none is cut off by the end of its block.
"""

import os
import re
import shlex
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tace_al.core.errors import ConfigError, nearest_names
from tace_al.dispatch.machine_file import is_machine_file, machine_files, read_machine_file

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
LABELLER_TASKS = frozenset({"label", "relax", "relax_levels"})
"""Kinds of task that run an electronic-structure code; every other kind runs a model."""
BlockName = Literal["labels", "models"]
Device = Literal["cpu", "cuda"]
# Of the blocks for labels, and what those for models take over unless they say otherwise.
_INHERITED = (
    "account",
    "qos",
    "address",
    "heartbeat_period_s",
    "heartbeat_threshold_s",
    "poll_period_s",
    "max_idle_s",
    "cancel_timeout_s",
)
_WALLTIME = re.compile(r"^(\d{1,3}):([0-5]\d):([0-5]\d)$")


def usable_cores() -> int:
    """Return how many cores this process may use (its affinity mask, not the computer's count)."""
    return len(os.sched_getaffinity(0))


class SlurmSettings(BaseModel):
    """One kind of Slurm block (a pilot job that runs many tasks).

    Parameters
    ----------
    partition, account, qos, constraint, scheduler_options
        As `sbatch` has them; the last is lines "#SBATCH ..." of your own, an option or more each.
    nodes_per_block, cores_per_node, workers_per_node, gpus_per_node
        A block takes whole nodes; every worker runs one task at a time.
    walltime
        Wall time of a block, "HH:MM:SS"; Slurm counts whole minutes.
    min_blocks, max_blocks, max_idle_s
        How many blocks wait or run at least and at most; a block that had no work for so long ends.
    device
        What models run on: "cuda" where the nodes have GPUs and torch for them.
    worker_init
        Shell lines of this kind of block, after the machine's own.
    start_up_s, longest_task_s
        Seconds from a block's start to its first task, and of the longest task: a block stops
        taking tasks so long before its end, and a task that takes longer is stopped.
    address
        Host name or address of this computer that the compute nodes can reach.
    heartbeat_period_s, heartbeat_threshold_s
        A block that was silent for the threshold counts as lost and its tasks run again.
    poll_period_s, cancel_timeout_s
        How often Slurm is asked about blocks, and how long a command of Slurm may take.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    nodes_per_block: int = Field(default=1, ge=1)
    cores_per_node: int = Field(ge=1)
    workers_per_node: int = Field(ge=1)
    gpus_per_node: int = Field(default=0, ge=0)
    device: Device = "cpu"
    walltime: str = "04:00:00"
    min_blocks: int = Field(default=0, ge=0)
    max_blocks: int = Field(default=1, ge=1)
    max_idle_s: int = Field(default=600, ge=1)
    scheduler_options: str = ""
    worker_init: str = ""
    start_up_s: int = Field(default=120, ge=0)
    longest_task_s: int = Field(default=1800, ge=1)
    address: str
    heartbeat_period_s: int = Field(default=15, ge=1)
    heartbeat_threshold_s: int = Field(default=90, ge=2)
    poll_period_s: int = Field(default=30, ge=1)
    cancel_timeout_s: int = Field(default=15, ge=1)

    @field_validator("walltime")
    @classmethod
    def _check_walltime(cls, walltime: str) -> str:
        if not _WALLTIME.match(walltime):
            raise ValueError(f"walltime is {walltime!r}, expected HH:MM:SS, for example 04:00:00")
        return walltime

    @field_validator("scheduler_options")
    @classmethod
    def _check_options(cls, lines: str) -> str:
        for line in filter(None, map(str.strip, lines.splitlines())):
            # A shell would run it, and Slurm reads no option after it.
            if not line.startswith("#"):
                raise ValueError(f"{line!r} is no option of sbatch; write '#SBATCH --name=value'")
        _sbatch_words(lines)
        return lines

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.drain_period_s <= 0:
            raise ValueError(
                f"walltime {self.walltime} leaves no time for work after start_up_s = "
                f"{self.start_up_s} and longest_task_s = {self.longest_task_s}; ask for a longer "
                "walltime or declare shorter tasks"
            )
        if self.workers_per_node > self.cores_per_node:
            raise ValueError(
                f"workers_per_node = {self.workers_per_node} is more than cores_per_node = "
                f"{self.cores_per_node}; give each worker at least one core"
            )
        if self.gpus_per_node and self.workers_per_node % self.gpus_per_node:
            raise ValueError(
                f"workers_per_node = {self.workers_per_node} is no multiple of gpus_per_node = "
                f"{self.gpus_per_node}; give every GPU the same number of workers"
            )
        if self.device == "cuda" and not self.gpus_per_node:
            raise ValueError("device is cuda and gpus_per_node is 0; ask Slurm for the GPUs")
        if self.min_blocks > self.max_blocks:
            raise ValueError(f"min_blocks = {self.min_blocks} exceeds {self.max_blocks} max_blocks")
        if self.heartbeat_threshold_s < 2 * self.heartbeat_period_s:
            raise ValueError(
                f"heartbeat_threshold_s = {self.heartbeat_threshold_s} is less than two periods of "
                f"{self.heartbeat_period_s} s; one late heartbeat would count as a lost block"
            )
        return self

    @property
    def walltime_s(self) -> int:
        """Wall time of a block in seconds, in whole minutes as Slurm takes it."""
        match = _WALLTIME.match(self.walltime)
        assert match is not None, "validated above"
        hours, minutes, _ = map(int, match.groups())
        return 3600 * hours + 60 * minutes

    @property
    def further_options(self) -> list[str]:
        """What `scheduler_options` says, as sbatch takes it on its command line."""
        return _sbatch_words(self.scheduler_options)

    @property
    def num_workers(self) -> int:
        """Most tasks that ever run at once in blocks of this kind."""
        return self.max_blocks * self.nodes_per_block * self.workers_per_node

    @property
    def drain_period_s(self) -> int:
        """Seconds after its start at which a block stops taking tasks."""
        return self.walltime_s - self.start_up_s - self.longest_task_s


def _sbatch_words(lines: str) -> list[str]:
    """Return the options in lines "#SBATCH ..."; other lines are comments."""
    options = [line.split(maxsplit=1) for line in lines.splitlines()]
    return [
        word
        for parts in options
        if len(parts) == 2 and parts[0] == "#SBATCH"
        for word in shlex.split(parts[1], comments=True)
    ]


class Machine(BaseModel):
    """Where work runs and how many tasks at once.

    Parameters
    ----------
    executor
        "threads" of this process, "processes" of this computer, or blocks of "slurm".
    workers
        Tasks at once on this computer; a Slurm machine counts its own from `slurm`.
    threads_per_worker
        Threads of OpenMP, BLAS and torch in one task.
    device
        What models run on, on this computer; a Slurm machine has it in its blocks.
    worker_init
        Shell lines that run before a pool of workers starts ("module load ...").
    slurm
        The blocks of a Slurm machine: for labels, and for models too where `models` is not given.
    models
        Blocks for training and whatever else runs a model; takes account, QOS, address and periods
        from `slurm` unless it gives its own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=NAME_PATTERN)
    executor: Literal["threads", "processes", "slurm"]
    workers: int = Field(default=1, ge=1, le=4096)
    threads_per_worker: int = Field(default=1, ge=1)
    device: Device = "cpu"
    worker_init: str = ""
    slurm: SlurmSettings | None = None
    models: SlurmSettings | None = None

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, content: Any) -> Any:
        """Take a name for its machine; give the blocks for models what those for labels have."""
        if isinstance(content, str):
            return machine_from_name(content).model_dump()
        if not isinstance(content, dict):
            return content
        labels, models = content.get("slurm"), content.get("models")
        if isinstance(labels, SlurmSettings):
            labels = labels.model_dump()
        if not (isinstance(labels, dict) and isinstance(models, dict)):
            return content
        shared = {name: labels[name] for name in _INHERITED if name in labels}
        return {**content, "models": {**shared, **models}}

    @model_validator(mode="after")
    def _check_slurm(self) -> Self:
        if (self.slurm is None) == (self.executor == "slurm"):
            raise ValueError(
                f"executor is {self.executor!r} and `slurm` is "
                f"{'missing' if self.slurm is None else 'given'}; "
                "give `slurm` settings exactly when the executor is 'slurm', best in a machine "
                "file (docs/guides/slurm.md)"
            )
        if self.models is not None and self.slurm is None:
            raise ValueError("`models` is a second kind of Slurm block; give `slurm` settings too")
        return self

    @property
    def blocks(self) -> dict[BlockName, SlurmSettings]:
        """The kinds of Slurm block by name; none on this computer."""
        if self.slurm is None:
            return {}
        labels: dict[BlockName, SlurmSettings] = {"labels": self.slurm}
        return labels if self.models is None else labels | {"models": self.models}

    def block_of(self, kind: str) -> BlockName:
        """Return which kind of block runs tasks of a kind; "labels" where there is only one."""
        return "labels" if self.models is None or kind in LABELLER_TASKS else "models"

    def device_of(self, kind: str) -> Device:
        """Return what a task of a kind runs its model on."""
        return self.device if self.slurm is None else self.blocks[self.block_of(kind)].device

    def workers_in(self, block: BlockName) -> int:
        """Return how many tasks ever run at once in a kind of block."""
        return self.blocks[block].num_workers if self.slurm is not None else self.workers

    @property
    def capacity(self) -> int:
        """Most tasks that ever run at once."""
        if self.slurm is None:
            return self.workers
        return sum(settings.num_workers for settings in self.blocks.values())


MACHINE_NAMES = ("local", "slurm", "threads")


def machine_from_name(name: str, **overrides: Any) -> Machine:
    """Return the machine called `name`, with fields of `Machine` overridden.

    Parameters
    ----------
    name
        "local" (a process for every usable core), "threads" (this process), "slurm" (`slurm`
        settings must be among the overrides), the path of a machine file (.yaml or .toml), or the
        name of one in the user's folder of machines, which may also be called "slurm".
    **overrides
        Fields of `Machine`.

    Raises
    ------
    ConfigError
        The name or a field is unknown or has a wrong value.

    >>> machine_from_name("threads", workers=3).capacity
    3
    """
    own = machine_files()
    if is_machine_file(name):
        return _from_file(Path(name).expanduser(), overrides)
    bare_slurm = name == "slurm" and "slurm" not in overrides
    if name in own and (bare_slurm or name not in MACHINE_NAMES):
        return _from_file(own[name], overrides)
    if name not in MACHINE_NAMES:
        hint = nearest_names(name, {*MACHINE_NAMES, *own})
        raise ConfigError(
            f"no machine is called {name!r}.{hint} A machine file is named by its path, such as "
            "my_cluster.yaml"
        )
    executor = "processes" if name == "local" else name
    fields: dict[str, Any] = {"name": name, "executor": executor}
    if name != "slurm":
        fields["workers"] = usable_cores()
    return _checked(name, fields | overrides)


def _from_file(path: Path, overrides: dict[str, Any]) -> Machine:
    """Return the machine of a file; it is called as the file, on Slurm if it has such settings."""
    content = read_machine_file(path)
    fields: dict[str, Any] = {"name": path.stem}
    fields["executor"] = "slurm" if "slurm" in content else "processes"
    if content.get("executor", fields["executor"]) != "slurm":
        fields["workers"] = usable_cores()
    return _checked(str(path), fields | content | overrides)


def _checked(name: str, fields: dict[str, Any]) -> Machine:
    try:
        return Machine.model_validate(fields)
    except ValidationError as error:
        raise ConfigError(_first_complaint(name, error)) from error


def _first_complaint(name: str, error: ValidationError) -> str:
    """Return one sentence about the first thing that is wrong with a machine's fields."""
    complaint = error.errors()[0]
    where = ".".join(str(part) for part in complaint["loc"]) or "its fields"
    if complaint["type"] == "extra_forbidden":
        model = SlurmSettings if len(complaint["loc"]) > 1 else Machine
        hint = nearest_names(str(complaint["loc"][-1]), model.model_fields)
        return f"machine {name!r} has no field {where!r}.{hint}"
    message = complaint["msg"].removeprefix("Value error, ")
    if complaint["type"] == "value_error" or isinstance(complaint["input"], dict):
        return f"machine {name!r}, {where}: {message}"
    return f"machine {name!r}, {where}: {message}, got {complaint['input']!r}"
