"""Accuracy in time: the shared recipe learns, the splits are honest, the table tells."""

import json
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from torch import Tensor, nn

from benchmarks import accuracy_vs_time
from benchmarks.accuracy_vs_time import DataSet, parsed, prepared, trained, write
from benchmarks.accuracy_vs_time_report import goal_line, markdown
from benchmarks.peers.peer_training import atom_energies, errors, fit, rate_share
from benchmarks.peers.training_job import TrainingJob


def chain(index: int, *, num_atoms: int = 4) -> Atoms:
    """Return hydrogen atoms on a line bound by springs to their places, with energy and forces."""
    rng = np.random.default_rng(index)
    moved = rng.normal(scale=0.1, size=(num_atoms, 3))
    places = np.array([[2.0 * i, 0.0, 0.0] for i in range(num_atoms)])
    atoms = Atoms(f"H{num_atoms}", positions=places + moved)
    atoms.info |= {"REF_energy": 0.5 * float((moved**2).sum()) - num_atoms, "index": index}
    atoms.set_array("REF_forces", -moved)
    return atoms


class Springs:
    """A network of one number: the stiffness of the springs, which is one."""

    learning_rate = 0.05

    def __init__(self, frames: Sequence[Atoms]) -> None:
        self.network = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.network.weight)
        self.targets = [torch.tensor(atoms.arrays["REF_forces"]).float() for atoms in frames]

    def loss(self, indices: Sequence[int]) -> Tensor:
        stiffness = self.network.weight[0, 0]
        targets = torch.stack([self.targets[index] for index in indices])
        return (stiffness * targets - targets).square().mean()

    def predict(self, frames: Sequence[Atoms]) -> list[tuple[float, np.ndarray]]:
        stiffness = float(self.network.weight[0, 0].detach())
        return [
            (atoms.info["REF_energy"] + len(atoms), stiffness * atoms.arrays["REF_forces"])
            for atoms in frames
        ]


def test_the_shared_recipe_finds_the_answer_and_keeps_the_best() -> None:
    frames = [chain(index) for index in range(20)]
    springs = Springs(frames)
    torch.optim.Adam(springs.network.parameters())  # imports, which take longer than this run
    history = fit(springs, 20, frames[:5], seconds=0.5, started=monotonic())
    assert springs.network.weight.item() == pytest.approx(1.0, abs=0.05)
    assert history[-1].forces < 0.1 * history[0].forces
    assert history[-1].seconds >= 0.5
    assert [point.epoch for point in history] == list(range(1, len(history) + 1))
    left, energy = errors(springs.predict(frames[:5]), frames[:5])
    assert left == pytest.approx(min(point.forces for point in history), rel=1e-4)
    assert energy == pytest.approx(1.0)


def test_frames_that_choose_are_looked_at_as_often_as_said() -> None:
    frames = [chain(index) for index in range(20)]
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    history = fit(Springs(frames), 20, frames, seconds=0.3, started=monotonic(), validate_every=3)
    epochs = [point.epoch for point in history]
    assert epochs[:-1] == list(range(1, 3 * len(epochs) - 3, 3))
    assert history[-1].seconds >= 0.3


def test_the_rate_rises_falls_and_ends_low() -> None:
    shares = [rate_share(progress) for progress in (0.0, 0.02, 0.5, 1.0)]
    assert shares[0] < 0.1
    assert shares[1] == pytest.approx(1.0)
    assert shares[3] == pytest.approx(0.01)


def test_free_atoms_are_read_or_fitted() -> None:
    lone = Atoms("H")
    lone.info["REF_energy"] = -13.6
    frames = [chain(index, num_atoms=2 + index) for index in range(4)]
    assert atom_energies([lone], frames, [1]) == {1: -13.6}
    assert atom_energies([], frames, [1])[1] == pytest.approx(-1.0, abs=0.05)


def test_judged_frames_are_seen_by_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ase.io.write(tmp_path / "chains.xyz.xz", [chain(index) for index in range(50)])
    monkeypatch.setenv("TACE_AL_DATA", str(tmp_path))
    data = DataSet(title="chains", train="chains", others={})
    options = parsed(["acac", "--minutes", "1", "--rates", "mace=0.02"])
    job = prepared(data, options, tmp_path, seed=3, core=-1)

    def indices(path: str) -> set[int]:
        return {atoms.info["index"] for atoms in ase.io.read(path, ":")}

    assert job.learning_rates == {"mace": 0.02}
    judged, whole = indices(job.judged["set aside"]), indices(job.whole)
    train, validation = indices(job.train), indices(job.validation)
    assert len(judged) == 5
    assert not judged & whole
    assert train | validation == whole
    assert not train & validation
    assert len(validation) == round(0.1 * len(whole))
    job.save(tmp_path / "job.json")
    assert TrainingJob.load(tmp_path / "job.json") == job

    options = parsed(["acac", "--test", f"cold={tmp_path / 'chains.xyz.xz'}"])
    job = prepared(data, options, tmp_path, seed=0, core=-1)
    assert set(job.judged) == {"cold"}
    assert len(indices(job.whole)) == 50


@pytest.mark.slow
def test_our_command_is_trained_and_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ase.io.write(tmp_path / "chains.xyz.xz", [chain(index) for index in range(30)])
    monkeypatch.setenv("TACE_AL_DATA", str(tmp_path))
    data = DataSet(title="chains", train="chains", others={})
    job = prepared(data, parsed(["acac", "--minutes", "0.02"]), tmp_path, seed=0, core=-1)
    row = trained("tace", job, tmp_path)
    assert row["command"].startswith("tace-al train --time-limit 1.2s")
    assert row["curve"][0]["forces"] > 0.0
    assert np.isfinite(row["errors"]["set aside"]["forces"])


def test_an_engine_that_fails_is_a_row_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy_vs_time, "interpreter", lambda name: "false")
    job = TrainingJob(
        whole="",
        train="",
        validation="",
        judged={},
        seconds=1.0,
        validate_every=1,
        learning_rates={},
        seed=0,
        core=-1,
        result=str(tmp_path / "result.json"),
    )
    assert trained("mace", job, tmp_path)["failure"] == "exit status 1"


def test_the_table_holds_us_to_the_better_of_the_others(tmp_path: Path) -> None:
    def row(engine: str, forces: float) -> dict[str, object]:
        return {
            **{
                "engine": engine,
                "seed": 0,
                "parameters": 10,
                "processor_seconds": 60.0,
                "epochs": 3,
            },
            "curve": [{"seconds": 6.0, "forces": forces, "energy": 0.001, "epoch": 1}],
            "errors": {"300 K": {"forces": forces, "energy": 0.001}},
        }

    rows = [row("tace", 0.010), row("mace", 0.030), row("tensornet", 0.014)]
    assert goal_line(rows, "300 K").startswith("Forces: 0.71 of TensorNet's error")
    assert "not measured" in goal_line(rows[:1], "300 K")
    missing = {"engine": "mace", "seed": 1, "failure": "no network"}
    content = {
        **{"name": "acac", "title": "acac", "minutes": 15.0, "test": False, "date": "today"},
        **{"machine": "a machine", "torch": "2", "rows": [*rows, missing]},
    }
    assert "not available: no network" in markdown(content)
    write(content, tmp_path)
    assert json.loads((tmp_path / "accuracy_vs_time_acac.json").read_text())["minutes"] == 15.0
    assert (tmp_path / "accuracy_vs_time_acac.png").stat().st_size > 1000
