from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from tace_al.core.errors import LabelFailed
from tace_al.core.labels import Label
from tace_al.data.frames import read_frames, write_frames
from tace_al.dispatch.apps import plain
from tace_al.dispatch.label_file import read_label
from tace_al.dispatch.tasks import label as label_task
from tace_al.dispatch.tasks.relax import run


def payload(folder: Path, atoms: Atoms, **changes: Any) -> dict[str, Any]:
    write_frames(folder / "start.npz", [atoms])
    return {
        "labeller": "fake",
        "options": {},
        "force_ceiling": 50.0,
        "frames": str(folder / "start.npz"),
        "labels_dir": str(folder / "labels"),
        "fmax": 0.05,
        "max_steps": 60,
        **changes,
    }


def test_every_step_is_a_label_and_the_last_is_relaxed(tmp_path: Path) -> None:
    result = run(payload(tmp_path, molecule("H2O")), tmp_path)
    assert plain(result) == result
    assert result["converged"] and result["failure"] == ""
    frames = read_frames(tmp_path / result["frames_file"])
    labels = [read_label(Path(entry["label_file"])) for entry in result["labels"]]
    assert len(frames) == len(labels) == len(list((tmp_path / "labels").glob("*.npz")))
    assert all(isinstance(label, Label) for label in labels)
    assert np.linalg.norm(labels[-1].forces, axis=1).max() < 0.05
    assert labels[-1].energy < labels[0].energy


def test_a_relaxation_cut_off_computes_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = run(payload(tmp_path, molecule("H2O"), max_steps=2), tmp_path)
    assert not short["converged"]
    calls = []
    guarded = label_task.guarded_label

    def counted(*arguments: Any, **options: Any) -> Label:
        calls.append(1)
        return guarded(*arguments, **options)

    monkeypatch.setattr(label_task, "guarded_label", counted)
    full = run(payload(tmp_path, molecule("H2O")), tmp_path)
    keys = [entry["label_key"] for entry in full["labels"]]
    assert keys[: len(short["labels"])] == [entry["label_key"] for entry in short["labels"]]
    assert len(calls) == len(keys) - len(short["labels"])


def test_a_failed_label_is_said_not_raised(tmp_path: Path) -> None:
    atoms = molecule("H2O")
    atoms.positions[1] = atoms.positions[2] + 0.05
    result = run(payload(tmp_path, atoms), tmp_path)
    assert not result["converged"] and "overlap" in result["failure"]
    assert result["labels"] == []


def test_a_labeller_that_crashed_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded, calls = label_task.guarded_label, []

    def crash_at_third(*arguments: Any, **options: Any) -> Label:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("a cosmic ray")
        return guarded(*arguments, **options)

    monkeypatch.setattr(label_task, "guarded_label", crash_at_third)
    with pytest.raises(LabelFailed, match="a cosmic ray") as caught:
        run(payload(tmp_path, molecule("H2O")), tmp_path)
    assert caught.value.kind == "crash"
    result = run(payload(tmp_path, molecule("H2O")), tmp_path)
    assert result["converged"] and len(calls) == len(result["labels"]) + 1
