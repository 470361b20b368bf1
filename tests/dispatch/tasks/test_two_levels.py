"""Training and assessing members with a head for each of two levels of theory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from tace_al.data.extxyz import ENERGY, FORCES
from tace_al.data.frames import bare_copy, read_frames, write_frames
from tace_al.dispatch.apps import plain
from tace_al.dispatch.tasks import assess, train
from tace_al.model.checkpoint import load
from tace_al.model.committee import Committee
from tace_al.model.config import preset_config
from tace_al.model.evaluation import evaluate
from tace_al.selection.fidelities import difference_spread

HEADS = ("low", "high")


@pytest.fixture(scope="module")
def two_level_file(tmp_path_factory: pytest.TempPathFactory, labelled_ammonia: list[Atoms]) -> Path:
    """Ten cheap labels, three of them again at a level that is 1.2 times it and 5 eV lower."""
    frames = [atoms.copy() for atoms in labelled_ammonia]
    for atoms in frames:
        atoms.info["head"] = "low"
    for atoms in labelled_ammonia[:3]:
        high = atoms.copy()
        high.info |= {"head": "high", ENERGY: 1.2 * atoms.info[ENERGY] - 5.0}
        high.arrays[FORCES] = 1.2 * atoms.arrays[FORCES]
        frames.append(high)
    path = tmp_path_factory.mktemp("levels") / "frames.npz"
    write_frames(path, frames)
    return path


def payload(frames: Path, *, seed: int, epochs: int) -> dict[str, Any]:
    config = preset_config(
        "tiny", elements=("H", "N"), channels=8, radial_hidden=(16,), heads=HEADS
    )
    return {
        "frames": str(frames),
        "training": [*range(9), 10, 11, 12, 10, 11, 12],
        "validation": [9],
        "trunk": {
            "head": "low",
            "training": list(range(9)),
            "validation": [9],
            "epochs": epochs,
            "learning_rate": 0.04,
        },
        "config": config.to_dict(),
        "options": {
            "epochs": max(epochs // 2, 1),
            "time_limit_s": 1e9,
            "batch_size": 4,
            "optimizer": "adam",
            "learning_rate": 0.02,
            "keep_last": True,
            "energy_weight": 5.0,
            "seed": seed,
        },
        "start": None,
        "metadata": {},
    }


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory, two_level_file: Path) -> list[str]:
    """Return the checkpoints of two members."""
    paths = []
    for seed, epochs in ((5, 60), (6, 2)):
        folder = tmp_path_factory.mktemp(f"member{seed}")
        result = train.run(payload(two_level_file, seed=seed, epochs=epochs), folder)
        assert plain(result) == result
        paths.append(str(folder / result["model_file"]))
    return paths


@pytest.mark.slow
def test_three_labels_tell_the_expensive_head_from_the_cheap_one(
    members: list[str], two_level_file: Path
) -> None:
    model = load(members[0])
    assert model.config.heads == HEADS
    expensive = [atoms for atoms in read_frames(two_level_file) if atoms.info["head"] == "high"]
    low, high = (evaluate(model, expensive, head=head) for head in HEADS)
    assert high.forces_rmse_mev_per_angstrom < 0.7 * low.forces_rmse_mev_per_angstrom
    assert high.energy_rmse_mev_per_atom < 50.0 < low.energy_rmse_mev_per_atom


@pytest.mark.slow
def test_an_assessment_tells_what_the_heads_differ_by(
    tmp_path: Path, members: list[str], labelled_ammonia: list[Atoms]
) -> None:
    frames = [bare_copy(atoms) for atoms in labelled_ammonia[:4]]
    write_frames(tmp_path / "frames.npz", frames)
    content = {"models": members, "frames": str(tmp_path / "frames.npz"), "head": "high"}
    result = assess.run({**content, "cheap": "low"}, tmp_path)
    with np.load(tmp_path / result["assessment_file"]) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    low, high = (Committee.load(members, head=head).predict(frames) for head in HEADS)
    expected = [
        difference_spread(a.member_forces, b.member_forces) for a, b in zip(low, high, strict=True)
    ]
    np.testing.assert_allclose(
        found["difference_spread"], np.concatenate(expected), rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(
        found["force_spread"], np.concatenate([p.force_spread for p in high]), rtol=1e-3, atol=1e-5
    )
    without = assess.run(content, tmp_path)
    with np.load(tmp_path / without["assessment_file"]) as arrays:
        assert "difference_spread" not in arrays.files
