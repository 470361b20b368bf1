"""The speed benchmark: its protocol, its arithmetic and its goals, with our engine alone."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from benchmarks.peers import environments
from benchmarks.peers.connection import Connection, RequestFailed, Timing
from benchmarks.peers.environments import OWN, PeerUnavailable, interpreter
from benchmarks.peers.frames_text import frames_from_json, frames_to_json
from benchmarks.peers.own_engine import prepare
from benchmarks.peers.task import Kind, Task
from benchmarks.peers.worker import answer
from benchmarks.speed import parsed, used_peers, write
from benchmarks.speed_measurement import (
    Budget,
    Cell,
    Engines,
    Measured,
    as_plain,
    measure,
    summary,
)
from benchmarks.speed_report import row_lines
from benchmarks.speed_rows import GPU_ROWS, ROWS, Case, Goal, Row
from benchmarks.speed_structures import BOXES, named_structure, rattled, walk, with_labels

ELEMENTS = ("H", "O")
BUDGET = Budget(turns=1, seconds=0.0, preset="tiny")


def waters(count: int = 2) -> list[Atoms]:
    return with_labels(
        rattled(molecule("H2O"), count, np.random.default_rng(0)), np.random.default_rng(1)
    )


def task(kind: Kind) -> Task:
    return Task(kind=kind, elements=ELEMENTS, preset="tiny")


@pytest.fixture(scope="module")
def own() -> Iterator[Connection]:
    connection = Connection(OWN)
    yield connection
    connection.close()


@pytest.mark.slow
def test_an_engine_in_another_process_answers_with_numbers_and_times(own: Connection) -> None:
    frames = waters()
    own.prepare("water", task("single"), frames)
    timing = own.call("water", frames[:1])
    assert timing.value == pytest.approx(prepare(task("single"), frames)(frames[:1]), abs=1e-5)
    assert 0.0 < timing.wall < 60.0
    assert 0.0 < timing.cpu < 60.0
    assert own.versions["torch"]
    assert own.memory()["peak"] > 0
    own.forget("water")
    with pytest.raises(RequestFailed, match="KeyError"):
        own.call("water", frames[:1])


@pytest.mark.slow
def test_what_an_engine_cannot_do_is_said_and_it_goes_on(own: Connection) -> None:
    with pytest.raises(RequestFailed, match="unknown to this model"):
        own.prepare("gold", task("single"), [])
        own.call("gold", [Atoms("Au2", positions=[[0, 0, 0], [2.5, 0, 0]])])
    own.prepare("water", task("single"), waters())
    assert np.isfinite(own.call("water", waters(1)).value)


@pytest.mark.slow
def test_a_row_is_measured_with_a_missing_engine_reported() -> None:
    row = Row(
        title="water",
        cases={
            "ours": Case(engine=OWN, structure="ethanol"),
            "float64": Case(engine=OWN, structure="ethanol", dtype="float64"),
            "MACE": Case(engine="mace", structure="ethanol"),
        },
        goals=(
            Goal(over="float64", under="ours", bound=1e6, sense="most"),
            Goal(over="MACE", under="ours", bound=8.0, sense="least"),
        ),
    )
    engines = Engines([OWN], core=-1)
    try:
        measured = measure("water", row, engines, BUDGET)
    finally:
        engines.close()
    assert measured.cells["MACE"].failure == "not asked for"
    assert measured.ratios[0] is not None
    assert measured.ratios[0] > 0.0
    lines = row_lines(as_plain(measured))
    assert lines[0].endswith("| yes |")
    assert "not measured" in lines[1]


@pytest.mark.parametrize(
    "kind", ["single", "loop", "batch", "committee", "heads", "head forces", "training"]
)
def test_every_task_gives_a_finite_number(kind: Kind) -> None:
    call = prepare(task(kind), waters())
    assert np.isfinite(call(waters()))


def test_a_batch_sums_what_a_loop_sums() -> None:
    frames = waters(3)
    loop, batch = (prepare(task(kind), frames)(frames) for kind in ("loop", "batch"))
    assert batch == pytest.approx(loop, abs=1e-5)


def test_training_steps_lower_the_loss() -> None:
    step = prepare(task("training"), waters())
    losses = [step([]) for _ in range(15)]
    assert losses[-1] < losses[0]


def test_the_share_of_the_graph_is_part_of_the_whole() -> None:
    frames = walk(molecule("H2O"), 3, np.random.default_rng(0))
    assert 0.0 < prepare(task("graph"), frames)(frames) < 100.0


def test_the_worker_answers_requests() -> None:
    calls: dict[str, object] = {}
    frames = frames_to_json(waters(1))
    request = {"name": "x", "frames": frames, "task": {"kind": "single", "elements": ["H"]}}

    def double(task: Task, frames: list[Atoms]) -> object:
        assert task.elements == ("H",)
        return lambda frames: 2.0 * len(frames)

    assert answer({"do": "prepare", **request}, double, calls) == {"prepared": "x"}
    reply = answer({"do": "call", "name": "x", "frames": frames * 3}, double, calls)
    assert reply["value"] == 6.0
    assert set(reply) == {"value", "wall", "cpu"}
    answer({"do": "forget", "name": "x"}, double, calls)
    assert not calls


def test_frames_survive_the_way_through_text() -> None:
    atoms = waters(1)[0]
    atoms.cell, atoms.pbc = np.diag([5.0, 6.0, 7.0]), (True, False, True)
    (back,) = frames_from_json(json.loads(json.dumps(frames_to_json([atoms]))))
    assert back == atoms
    assert back.info["REF_energy"] == atoms.info["REF_energy"]
    np.testing.assert_array_equal(back.arrays["REF_forces"], atoms.arrays["REF_forces"])


def test_medians_are_per_thing_and_in_the_unit() -> None:
    bursts = [
        [Timing(wall=9.0, cpu=0.4, value=0.0), Timing(wall=9.0, cpu=0.2, value=0.0)],
        [Timing(wall=8.0, cpu=0.6, value=0.0), Timing(wall=8.0, cpu=0.2, value=0.0)],
    ]
    cell = summary(bursts, Case(engine=OWN, structure="ethanol", per=2), "ms")
    assert cell.value == pytest.approx(150.0)
    assert cell.first == pytest.approx(250.0)
    assert cell.best == pytest.approx(100.0)
    assert cell.calls == 4
    on_gpu = summary(bursts, Case(engine=OWN, structure="ethanol", device="cuda"), "µs")
    assert on_gpu.value == pytest.approx(8.5e6)


def test_ratios_are_held_to_goals() -> None:
    goals = (
        Goal(over="MACE", under="ours", bound=8.0, sense="least"),
        Goal(over="ours", under="MACE", bound=0.1, sense="most"),
    )
    row = Row(title="x", cases={}, goals=goals)
    cells = {"ours": Cell(value=2.0), "MACE": Cell(value=17.0)}
    measured = Measured(name="x", row=row, cells=cells)
    assert measured.ratios == [8.5, pytest.approx(2 / 17)]
    assert [goal["reached"] for goal in as_plain(measured)["goals"]] == [True, False]


def test_every_row_names_its_columns_and_known_structures() -> None:
    for row in {**ROWS, **GPU_ROWS}.values():
        for goal in row.goals:
            assert {goal.over, goal.under} <= set(row.cases)
        for case in row.cases.values():
            assert case.structure in BOXES or len(named_structure(case.structure)) > 1
    assert len(named_structure("water 1536")) == 1536
    assert len(named_structure("27 atoms")) == 27
    assert used_peers(ROWS, ["water", "scaling"]) == ["mace", "tensornet"]
    assert used_peers(ROWS, ["scaling"]) == []


def test_no_two_rattled_frames_are_alike() -> None:
    atoms = named_structure("copper 256")
    first, second = rattled(atoms, 2, np.random.default_rng(0))
    assert np.abs(first.positions - second.positions).max() > 0.05
    before = atoms.positions.copy()
    frames = walk(atoms, 3, np.random.default_rng(0))
    assert np.abs(frames[2].positions - frames[1].positions).std() < 0.02
    np.testing.assert_array_equal(atoms.positions, before)


def test_an_environment_that_cannot_be_built_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environments.FOLDER, str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "no-python"))
    with pytest.raises(PeerUnavailable, match="mace cannot be installed"):
        interpreter("mace")


def test_results_are_written_as_table_and_numbers(tmp_path: Path) -> None:
    cells = {
        "ours": Cell(value=1.0, wall=2.0, calls=3),
        "MACE": Cell(value=9.0, wall=10.0, calls=3),
        "TensorNet": Cell(failure="tensornet cannot be installed: no network"),
    }
    measured = Measured(name="ethanol", row=ROWS["ethanol"], cells=cells)
    content = {
        **{"date": "today", "machine": "a machine", "torch": "2", "quick": True},
        **{"engines": {OWN: {"torch": "2"}}, "missing": {"tensornet": "no network"}},
        "rows": [as_plain(measured)],
    }
    write(content, tmp_path, "speed")
    table = (tmp_path / "speed.md").read_text()
    assert "| MACE / ours: 9 | ≥ 6 | yes |" in table
    assert "tensornet is not available: no network" in table
    assert (
        json.loads((tmp_path / "speed.json").read_text())["rows"][0]["goals"][1]["reached"] is None
    )
    assert (tmp_path / "speed.png").stat().st_size > 1000


def test_the_command_line_has_defaults() -> None:
    options = parsed(["--quick", "--only", "water", "--peers"])
    assert (options.quick, options.only, options.peers) == (True, ["water"], [])
