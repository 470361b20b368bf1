"""Where work runs: threads here, processes of this computer, or blocks of a Slurm cluster.

A `Machine` is plain validated data, part of a campaign's configuration; `executors.py` turns it
into Parsl's objects. Times of a Slurm block: a block of wall time W takes no new task after
`W - start_up - longest_task`, so that no task is cut off by the end of its block.
"""

import os
import re
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tace_al.core.errors import ConfigError, nearest_names

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_WALLTIME = re.compile(r"^(\d{1,3}):([0-5]\d):([0-5]\d)$")


def usable_cores() -> int:
    """Return how many cores this process may use (its affinity mask, not the computer's count)."""
    return len(os.sched_getaffinity(0))


class SlurmSettings(BaseModel):
    """One kind of Slurm block (a pilot job that runs many tasks).

    Parameters
    ----------
    walltime
        Wall time of a block, "HH:MM:SS".
    start_up_s, longest_task_s
        Seconds from a block's start to its first task, and of the longest task; a block stops
        taking tasks so long before its end.
    address
        Host name or address of this computer that the compute nodes can reach.
    heartbeat_period_s, heartbeat_threshold_s
        A block that was silent for the threshold counts as lost and its tasks run again.
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
    walltime: str = "04:00:00"
    min_blocks: int = Field(default=0, ge=0)
    max_blocks: int = Field(default=1, ge=1)
    scheduler_options: str = ""
    start_up_s: int = Field(default=120, ge=0)
    longest_task_s: int = Field(default=1800, ge=1)
    address: str
    heartbeat_period_s: int = Field(default=15, ge=1)
    heartbeat_threshold_s: int = Field(default=90, ge=2)
    cancel_timeout_s: int = Field(default=15, ge=1)

    @field_validator("walltime")
    @classmethod
    def _check_walltime(cls, walltime: str) -> str:
        if not _WALLTIME.match(walltime):
            raise ValueError(f"walltime is {walltime!r}, expected HH:MM:SS, for example 04:00:00")
        return walltime

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
        if self.min_blocks > self.max_blocks:
            raise ValueError(f"min_blocks = {self.min_blocks} exceeds {self.max_blocks} max_blocks")
        return self

    @property
    def walltime_s(self) -> int:
        """Wall time of a block in seconds."""
        match = _WALLTIME.match(self.walltime)
        assert match is not None, "validated above"
        hours, minutes, seconds = map(int, match.groups())
        return 3600 * hours + 60 * minutes + seconds

    @property
    def drain_period_s(self) -> int:
        """Seconds after its start at which a block stops taking tasks."""
        return self.walltime_s - self.start_up_s - self.longest_task_s


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
    worker_init
        Shell lines that run before a pool of workers starts ("module load ...").
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=NAME_PATTERN)
    executor: Literal["threads", "processes", "slurm"]
    workers: int = Field(default=1, ge=1, le=4096)
    threads_per_worker: int = Field(default=1, ge=1)
    worker_init: str = ""
    slurm: SlurmSettings | None = None

    @model_validator(mode="after")
    def _check_slurm(self) -> Self:
        if (self.slurm is None) == (self.executor == "slurm"):
            raise ValueError(
                f"executor is {self.executor!r} and `slurm` is "
                f"{'missing' if self.slurm is None else 'given'}; "
                "give `slurm` settings exactly when the executor is 'slurm'"
            )
        return self

    @property
    def capacity(self) -> int:
        """Most tasks that ever run at once."""
        if self.slurm is None:
            return self.workers
        return self.slurm.max_blocks * self.slurm.nodes_per_block * self.slurm.workers_per_node


MACHINE_NAMES = ("local", "slurm", "threads")


def machine_from_name(name: str, **overrides: Any) -> Machine:
    """Return the machine called `name`, with fields of `Machine` overridden.

    Parameters
    ----------
    name
        "local" (a process for every usable core), "threads" (this process) or "slurm" (`slurm`
        settings must be among the overrides).
    **overrides
        Fields of `Machine`.

    Raises
    ------
    ConfigError
        The name or a field is unknown or has a wrong value.

    >>> machine_from_name("threads", workers=3).capacity
    3
    """
    if name not in MACHINE_NAMES:
        raise ConfigError(f"no machine is called {name!r}.{nearest_names(name, MACHINE_NAMES)}")
    executor = "processes" if name == "local" else name
    fields: dict[str, Any] = {"name": name, "executor": executor}
    if name != "slurm":
        fields["workers"] = usable_cores()
    try:
        return Machine.model_validate(fields | overrides)
    except ValidationError as error:
        raise ConfigError(_first_complaint(name, error)) from error


def _first_complaint(name: str, error: ValidationError) -> str:
    """Return one sentence about the first thing that is wrong with a machine's fields."""
    complaint = error.errors()[0]
    where = ".".join(str(part) for part in complaint["loc"]) or "its fields"
    if complaint["type"] == "extra_forbidden":
        model = SlurmSettings if complaint["loc"][0] == "slurm" else Machine
        hint = nearest_names(str(complaint["loc"][-1]), model.model_fields)
        return f"machine {name!r} has no field {where!r}.{hint}"
    message = complaint["msg"].removeprefix("Value error, ")
    return f"machine {name!r}, {where}: {message}"
