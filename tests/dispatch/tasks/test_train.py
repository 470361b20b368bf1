from pathlib import Path
from typing import Any

import pytest
from ase import Atoms

from tace_al.core.errors import TrainingError
from tace_al.data.frames import write_frames
from tace_al.dispatch.apps import plain
from tace_al.dispatch.tasks.train import run
from tace_al.model.checkpoint import load
from tace_al.model.config import preset_config
from tace_al.model.evaluation import evaluate

METADATA = {"generation": 2, "member": 1, "seed": 5, "training_set": "abc", "parents": ["p"]}


def payload(frames: Path, start: Path | None = None, **options: Any) -> dict[str, Any]:
    config = preset_config("tiny", elements=("H", "N"), channels=8, radial_hidden=(16,))
    return {
        "frames": str(frames),
        "training": [0, 1, 2, 3, 4, 5, 6, 7],
        "validation": [8, 9],
        "config": config.to_dict(),
        "options": {
            "epochs": 8,
            "time_limit_s": 1e9,
            "batch_size": 4,
            "learning_rate": 0.01,
            "energy_weight": 5.0,
            "seed": 5,
            **options,
        },
        "start": None if start is None else str(start),
        "metadata": METADATA,
    }


@pytest.mark.slow
def test_a_member_learns_and_its_checkpoint_says_from_what(
    tmp_path: Path, labelled_file: Path, labelled_ammonia: list[Atoms]
) -> None:
    short, long = tmp_path / "short", tmp_path / "long"
    for folder in (short, long):
        folder.mkdir()
    first = run(payload(labelled_file, epochs=2), short)
    result = run(payload(labelled_file, epochs=40), long)
    assert plain(result) == result  # what a worker returns crosses a process border
    model = load(long / result["model_file"])
    assert model.metadata == METADATA
    held_out = evaluate(model, labelled_ammonia[8:]).to_dict()
    assert held_out == pytest.approx(result["metrics"], rel=1e-4)
    name = "forces_rmse_mev_per_angstrom"
    assert result["metrics"][name] < first["metrics"][name]

    warm = tmp_path / "warm"
    warm.mkdir()
    again = run(payload(labelled_file, long / result["model_file"], epochs=1), warm)
    assert again["metrics"][name] <= 1.01 * result["metrics"][name]


def test_the_seed_decides_the_weights(tmp_path: Path, labelled_file: Path) -> None:
    weights = []
    for number, seed in enumerate((5, 5, 6)):
        folder = tmp_path / str(number)
        folder.mkdir()
        run(payload(labelled_file, epochs=1, seed=seed), folder)
        parameters = load(folder / "model.tace").parameters()
        weights.append([float(p.detach().sum()) for p in parameters])
    # the schedule looks at the clock, so that equal runs agree to rounding only
    assert weights[0] == pytest.approx(weights[1], rel=1e-3, abs=1e-3)
    assert weights[0] != pytest.approx(weights[2], rel=1e-3, abs=1e-3)


def test_nothing_to_train_on(tmp_path: Path) -> None:
    atom = Atoms("N")
    atom.info["REF_energy"] = -1.0
    write_frames(tmp_path / "atoms.npz", [atom])
    content = {**payload(tmp_path / "atoms.npz"), "training": [0], "validation": []}
    with pytest.raises(TrainingError, match="more than one atom"):
        run(content, tmp_path)
