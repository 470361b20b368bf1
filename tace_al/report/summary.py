"""What a report needs of a campaign, read once from the Store into plain frozen data.

Tables, figures and text are functions of a `CampaignSummary`, so they agree with each other, can
be tested without a database, and never hold a connection while matplotlib draws.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tace_al.store.store import Store

ROUTINE_EVENTS = ("task", "calibration", "session")


@dataclass(frozen=True, kw_only=True, slots=True)
class Barrier:
    """The barrier of one reaction channel, and the path it was read from.

    Parameters
    ----------
    barrier, error_bar
        In eV, the error bar calibrated.
    reverse
        Barrier seen from the product in eV, or None.
    members
        Barrier of each member of the committee in eV.
    coordinate, energies, band
        (images,) path length in Angstrom, mean energy above the reactant and its error bar in eV.
    saddle_label
        The labeller's energy at the saddle above the labelled reactant in eV, or None.
    converged
        Whether the path was optimised to its force threshold.
    num_labels
        Labels the models had seen, or None.
    """

    barrier: float
    error_bar: float
    reverse: float | None = None
    members: tuple[float, ...] = ()
    coordinate: np.ndarray = field(default_factory=lambda: np.zeros(0))
    energies: np.ndarray = field(default_factory=lambda: np.zeros(0))
    band: np.ndarray = field(default_factory=lambda: np.zeros(0))
    saddle_label: float | None = None
    converged: bool = False
    num_labels: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A value that a campaign wants to converge and that is no barrier.

    Parameters
    ----------
    value, error_bar
        In `unit`.
    unit
        "" for a number without one.
    curve
        What else the target drew: `label`, `x`, `y`, `members`, `x_label`, `y_label`; or nothing.
    """

    value: float
    error_bar: float
    unit: str = ""
    curve: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationSummary:
    """One set of trained models, judged.

    `errors` holds `force_rmse`, `force_mae` in meV/Angstrom and `energy_rmse`, `energy_mae` in
    meV/atom on the calibration set; `scale` turns a spread into an error bar; `spread` and `error`
    in eV/Angstrom are the calibration's points, one per atom.
    """

    number: int
    state: str
    num_labels: int = 0
    num_calibration: int = 0
    coverage: float | None = None
    target_coverage: float | None = None
    scale: float | None = None
    errors: Mapping[str, float] = field(default_factory=dict)
    barriers: Mapping[str, Barrier] = field(default_factory=dict)
    targets: Mapping[str, Target] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    spread: np.ndarray = field(default_factory=lambda: np.zeros(0))
    error: np.ndarray = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSpan:
    """One task on one worker, `started` and `ended` in seconds since the epoch."""

    kind: str
    worker: str
    started: float
    ended: float
    ok: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class CampaignSummary:
    """Everything a report shows of one campaign.

    `label_kinds` counts labels by why their structure was chosen, `levels` by their level of
    theory (failed ones left out), `failures` are (kind, message) of
    failed labels, `notes` (time, kind, message) of the events that are not routine; `last_seen` is
    the time of the last event.
    """

    name: str
    campaign: str
    state: str
    seed: int
    code_version: str
    config_hash: str
    config: Mapping[str, Any]
    created: datetime
    updated: datetime
    last_seen: datetime
    result: Mapping[str, Any] = field(default_factory=dict)
    generations: tuple[GenerationSummary, ...] = ()
    barriers: Mapping[str, Barrier] = field(default_factory=dict)
    targets: Mapping[str, Target] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    label_kinds: Mapping[str, int] = field(default_factory=dict)
    levels: Mapping[str, int] = field(default_factory=dict)
    label_seconds: float = 0.0
    failures: tuple[tuple[str, str], ...] = ()
    candidates: Mapping[str, int] = field(default_factory=dict)
    tasks: tuple[TaskSpan, ...] = ()
    notes: tuple[tuple[datetime, str, str], ...] = ()

    @property
    def num_labels(self) -> int:
        """Labels made, without the failed ones."""
        return sum(self.labels.values())

    @property
    def references(self) -> Mapping[str, float]:
        """Known barriers in eV by channel, where the campaign's settings name them."""
        known = {}
        for reaction in self.config.get("reactions") or ():
            if reaction.get("reference_barrier") is not None:
                known[str(reaction["name"])] = float(reaction["reference_barrier"])
        return known


def read_summary(store: "Store") -> CampaignSummary:
    """Read a campaign from its Store."""
    record = store.campaign()
    events = store.events()
    updated = as_utc(record.updated or record.created)
    generations = _generations(store)
    labels = store.labels()
    failures = store.labels(state="failed")
    result = dict(record.result or {})
    final = {channel: barrier(data) for channel, data in (result.get("barriers") or {}).items()}
    latest: dict[str, Barrier] = {}
    targets: dict[str, Target] = {}
    for generation in generations:
        latest.update(generation.barriers)
        targets.update(generation.targets)
    return CampaignSummary(
        name=record.name,
        campaign=str(record.campaign),
        state=record.state,
        seed=int(record.seed or 0),
        code_version=record.code_version or "unknown",
        config_hash=record.config_hash or "",
        config=dict(record.config or {}),
        created=as_utc(record.created),
        updated=updated,
        last_seen=max([updated, *(as_utc(event.time) for event in events[-1:])]),
        result=result,
        generations=generations,
        barriers=final or latest,
        targets=targets,
        labels=Counter(str(label.role) for label in labels),
        levels=Counter(str(label.fidelity_name) for label in labels),
        label_kinds=_label_kinds(store, (str(label.structure) for label in labels)),
        label_seconds=float(sum(label.seconds or 0.0 for label in labels)),
        failures=tuple((str(item.failure_kind), str(item.message)) for item in failures),
        candidates=Counter(str(candidate.state) for candidate in store.candidates()),
        tasks=task_spans(event for event in events if event.kind == "task"),
        notes=tuple(
            (as_utc(event.time), str(event.kind), str(event.message))
            for event in events
            if event.kind not in ROUTINE_EVENTS
        ),
    )


def barrier(data: Mapping[str, Any]) -> Barrier:
    """Return a barrier from the dictionary that a generation or a result keeps."""
    count = data.get("labels")
    return Barrier(
        barrier=float(data["barrier"]),
        error_bar=float(data.get("error_bar") or 0.0),
        reverse=_number(data.get("reverse")),
        members=tuple(float(member) for member in data.get("members") or ()),
        coordinate=_array(data.get("coordinate")),
        energies=_array(data.get("energies")),
        band=_array(data.get("band")),
        saddle_label=_number(data.get("saddle_label")),
        converged=bool(data.get("converged")),
        num_labels=None if count is None else int(count),
    )


def target(data: Mapping[str, Any]) -> Target:
    """Return a target's value from the dictionary that a generation keeps."""
    unit = str(data.get("unit") or "")
    return Target(
        value=float(data["value"]),
        error_bar=float(data["error_bar"]),
        unit=unit,
        curve=data.get("curve") or {},
    )


def task_spans(events: Iterable[Any]) -> tuple[TaskSpan, ...]:
    """Return the finished tasks among the events, in order of their start."""
    spans = [
        TaskSpan(
            kind=str(event.data.get("task_kind", "task")),
            worker=str(event.data.get("worker") or "unknown"),
            started=seconds_since_epoch(event.data["started"]),
            ended=seconds_since_epoch(event.data["ended"]),
            ok=bool(event.data.get("ok", True)),
        )
        for event in events
        if event.data.get("started") is not None and event.data.get("ended") is not None
    ]
    return tuple(sorted(spans, key=lambda span: (span.started, span.worker)))


def as_utc(time: datetime) -> datetime:
    """Return a time with its zone; the database keeps UTC without saying so.

    >>> as_utc(datetime(2026, 1, 1)).isoformat()
    '2026-01-01T00:00:00+00:00'
    """
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def seconds_since_epoch(time: float | datetime) -> float:
    """Return a time as seconds since the epoch."""
    return as_utc(time).timestamp() if isinstance(time, datetime) else float(time)


def _generations(store: "Store") -> tuple[GenerationSummary, ...]:
    """Return every generation with the scatter of its calibration."""
    scatter = {
        int(event.data["generation"]): (_array(event.data["spread"]), _array(event.data["error"]))
        for event in store.events(kind="calibration")
    }
    empty = (np.zeros(0), np.zeros(0))
    summaries = []
    for record in sorted(store.generations(), key=lambda item: item.number):
        spread, error = scatter.get(int(record.number), empty)
        barriers = {channel: barrier(data) for channel, data in (record.barriers or {}).items()}
        summaries.append(
            GenerationSummary(
                number=int(record.number),
                state=str(record.state),
                num_labels=int(record.num_labels or 0),
                num_calibration=int(record.num_calibration or 0),
                coverage=_number(record.coverage),
                target_coverage=_number(record.target_coverage),
                scale=_number(record.scale),
                errors={key: float(value) for key, value in (record.errors or {}).items()},
                barriers=barriers,
                targets={name: target(data) for name, data in (record.targets or {}).items()},
                models=tuple(str(model) for model in record.models or ()),
                spread=spread,
                error=error,
            )
        )
    return tuple(summaries)


def _label_kinds(store: "Store", structures: Iterable[str]) -> Mapping[str, int]:
    """Count labels by why their structure was chosen: seed, uncertain, audit, saddle, ..."""
    kinds = {str(candidate.key): str(candidate.kind) for candidate in store.candidates()}
    return Counter(kinds.get(structure, "other") for structure in structures)


def _array(values: Any) -> np.ndarray:
    """Return finite or NaN numbers as an array; None gives an empty one."""
    return np.asarray([] if values is None else values, dtype=float)


def _number(value: Any) -> float | None:
    """Return a number, or None where there is none or it is not finite."""
    return None if value is None or not np.isfinite(value) else float(value)
