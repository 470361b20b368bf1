"""How one row of the speed benchmark is measured.

Engines take turns, call by call, on structures that none has seen before and that are the same for
all of them in a turn: whatever else the machine does in that minute, it does to all. Medians are
taken over turns; ratios are those of processor time, or of the clock where a GPU works.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any, final

import numpy as np
from ase import Atoms

from benchmarks.peers.connection import Connection, RequestFailed, Timing
from benchmarks.peers.environments import OWN, PeerUnavailable
from benchmarks.peers.task import Task
from benchmarks.speed_rows import Case, Row
from benchmarks.speed_structures import elements, named_structure, rattled, walk, with_labels

WARM_UP = 3
"""First calls, in which libraries compile and caches fill, are not counted."""
SMALL, SMALL_BURST = 100, 5
"""Up to so many atoms a turn has several calls, as in dynamics: the first of them finds the caches
full of another code's data, which costs molecules half as much again."""
MIB = 1024.0
NOT_AVAILABLE = "not available"
"""The reason is told once, below the table."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """How long a row is measured: at least so many turns, then until the time is over."""

    turns: int
    seconds: float
    preset: str = "small"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """What one engine took: medians over calls in the row's unit, or why there is nothing.

    `wall` is by the clock, `best` the fastest call, `first` the median of the first calls of turns.
    """

    value: float | None = None
    wall: float | None = None
    best: float | None = None
    first: float | None = None
    calls: int = 0
    failure: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """A row with its cells; ratios of goals are None where a cell is missing."""

    name: str
    row: Row
    cells: Mapping[str, Cell] = field(default_factory=dict)

    @property
    def ratios(self) -> list[float | None]:
        """Ratio of each goal."""
        found: list[float | None] = []
        for goal in self.row.goals:
            over, under = self.cells[goal.over].value, self.cells[goal.under].value
            found.append(over / under if over is not None and under else None)
        return found


@final
class Engines:
    """Running engines by name, each started once; those that cannot be keep the reason."""

    def __init__(self, wanted: Sequence[str], *, core: int) -> None:
        self.wanted, self.core = tuple(wanted), core
        self.missing: dict[str, str] = {}
        self.versions: dict[str, dict[str, str]] = {}
        self._running: dict[str, Connection] = {}

    def running(self, name: str) -> Connection:
        """Return an engine, starting it if needed."""
        if name not in self._running:
            self._running[name] = self.fresh(name)
        return self._running[name]

    def fresh(self, name: str) -> Connection:
        """Return a new process of an engine, to be closed by the caller."""
        if name not in self.wanted:
            raise PeerUnavailable("not asked for")
        if name in self.missing:
            raise PeerUnavailable(NOT_AVAILABLE)
        try:
            connection = Connection(name, core=self.core)
        except PeerUnavailable as error:
            if name == OWN:
                raise
            self.missing[name] = str(error)
            logger.warning("%s", error)
            raise PeerUnavailable(NOT_AVAILABLE) from error
        self.versions[name] = connection.versions
        return connection

    def close(self) -> None:
        """End all processes."""
        for connection in self._running.values():
            connection.close()
        self._running.clear()


def measure(name: str, row: Row, engines: Engines, budget: Budget) -> Measured:
    """Return a row with its cells."""
    ways = {"time": times, "memory": peaks, "share": shares}
    return Measured(name=name, row=row, cells=ways[row.way](row, engines, budget))


def times(row: Row, engines: Engines, budget: Budget) -> dict[str, Cell]:
    """Return medians of interleaved calls."""
    generator = np.random.default_rng(0)
    cells: dict[str, Cell] = {}
    timings: dict[str, list[list[Timing]]] = {}
    for label, case in row.cases.items():
        try:
            prepare(engines.running(case.engine), label, case, budget)
            timings[label] = []
        except (PeerUnavailable, RequestFailed) as error:
            cells[label] = Cell(failure=str(error))
    deadline = float("inf")
    turn = 0
    while timings and (turn < WARM_UP + budget.turns or monotonic() < deadline):
        if turn == WARM_UP:
            deadline = monotonic() + budget.seconds
        drawn = draws(row, generator)
        for label in list(timings):
            case = row.cases[label]
            engine = engines.running(case.engine)
            try:
                burst = [
                    engine.call(label, frames) for frames in drawn[case.structure, case.copies]
                ]
            except (PeerUnavailable, RequestFailed) as error:
                cells[label] = Cell(failure=str(error))
                del timings[label]
                continue
            if turn >= WARM_UP:
                timings[label].append(burst)
        turn += 1
    for label, bursts in timings.items():
        engines.running(row.cases[label].engine).forget(label)
        cells[label] = summary(bursts, row.cases[label], row.unit)
    return {label: cells[label] for label in row.cases}


def prepare(engine: Connection, label: str, case: Case, budget: Budget) -> None:
    """Make what a case measures."""
    atoms = named_structure(case.structure)
    generator = np.random.default_rng(1)
    frames = rattled(atoms, case.copies, generator)
    if case.kind == "training":
        frames = with_labels(frames, generator)
    engine.prepare(label, task_of(case, atoms, budget), frames)


def task_of(case: Case, atoms: Atoms, budget: Budget) -> Task:
    """Return what an engine is asked to prepare."""
    return Task(
        kind=case.kind,
        elements=elements(atoms),
        dtype=case.dtype,
        device=case.device,
        preset=budget.preset,
    )


def draws(row: Row, generator: np.random.Generator) -> dict[tuple[str, int], list[list[Atoms]]]:
    """Return what is evaluated in one turn, call by call, by all cases of a structure and count."""
    drawn: dict[tuple[str, int], list[list[Atoms]]] = {}
    for case in row.cases.values():
        key = (case.structure, case.copies)
        if key not in drawn:
            atoms = named_structure(case.structure)
            burst = SMALL_BURST if len(atoms) * case.copies <= SMALL else 1
            drawn[key] = [rattled(atoms, case.copies, generator) for _ in range(burst)]
    return drawn


def summary(bursts: Sequence[Sequence[Timing]], case: Case, unit: str) -> Cell:
    """Return medians in the unit of the row."""
    scale = {"ms": 1e3, "µs": 1e6}[unit] / case.per
    timings = [timing for burst in bursts for timing in burst]
    counted = [seconds(timing, case) for timing in timings]
    return Cell(
        value=scale * float(np.median(counted)),
        wall=scale * float(np.median([timing.wall for timing in timings])),
        best=scale * min(counted),
        first=scale * float(np.median([seconds(burst[0], case) for burst in bursts])),
        calls=len(timings),
    )


def seconds(timing: Timing, case: Case) -> float:
    """Return the time that counts: the processor's, or the clock's where a GPU works."""
    return timing.wall if case.device == "cuda" else timing.cpu


def peaks(row: Row, engines: Engines, budget: Budget) -> dict[str, Cell]:
    """Return how far memory rises above that of the imported engine, in fresh processes."""
    cells: dict[str, Cell] = {}
    scale = {"MiB": 1.0 / MIB, "KiB": 1.0}[row.unit]
    for label, case in row.cases.items():
        engine = None
        try:
            engine = engines.fresh(case.engine)
            before = engine.memory()["resident"]
            prepare(engine, label, case, budget)
            generator = np.random.default_rng(0)
            for _ in range(WARM_UP):
                engine.call(label, rattled(named_structure(case.structure), 1, generator))
            risen = engine.memory()["peak"] - before
            cells[label] = Cell(value=scale * risen / case.per, calls=WARM_UP)
        except (PeerUnavailable, RequestFailed) as error:
            cells[label] = Cell(failure=str(error))
        finally:
            if engine is not None:
                engine.close()
    return cells


def shares(row: Row, engines: Engines, budget: Budget) -> dict[str, Cell]:
    """Return the share of the graph in steps of dynamics, percent."""
    generator = np.random.default_rng(0)
    label, case = next(iter(row.cases.items()))
    whole = next(name for name in row.cases if name != label)
    engine = engines.running(case.engine)
    prepare(engine, label, case, budget)
    found = []
    atoms = named_structure(case.structure)
    for turn in range(1 + budget.turns):
        frames = walk(atoms, case.copies, generator)
        atoms = frames[-1]
        value = engine.call(label, frames).value
        if turn:
            found.append(value)
    engine.forget(label)
    share = Cell(value=float(np.median(found)), calls=len(found))
    return {label: share, whole: replace(share, value=100.0)}


def as_plain(measured: Measured) -> dict[str, Any]:
    """Return a row as plain values for JSON."""
    return {
        "name": measured.name,
        "title": measured.row.title,
        "unit": measured.row.unit,
        "cells": {
            label: {
                name: value
                for name in ("value", "wall", "best", "first", "calls", "failure")
                if (value := getattr(cell, name)) not in (None, "")
            }
            for label, cell in measured.cells.items()
        },
        "goals": [
            {
                "ratio of": [goal.over, goal.under],
                "measured": ratio,
                f"at {goal.sense}": goal.bound,
                "reached": None if ratio is None else goal.reached(ratio),
            }
            for goal, ratio in zip(measured.row.goals, measured.ratios, strict=True)
        ],
    }
