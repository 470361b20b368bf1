from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import molecule

from tace_al.data.frames import read_frames, write_frames
from tace_al.dispatch.apps import plain
from tace_al.dispatch.tasks.langevin import run


def payload(folder: Path, model_files: list[str], **changes: Any) -> dict[str, Any]:
    write_frames(folder / "start.npz", [molecule("NH3")])
    return {
        "models": model_files,
        "start": str(folder / "start.npz"),
        "thresholds": {"low": 1e-6, "high": 1e3, "scale": 1.0},
        "temperature": 300.0,
        "temperature_end": 500.0,
        "steps": 12,
        "timestep_fs": 0.5,
        "friction_per_fs": 0.02,
        "seed": 1,
        **changes,
    }


def test_a_chunk_brings_its_frames_and_where_to_go_on(
    tmp_path: Path, model_files: list[str]
) -> None:
    result = run(payload(tmp_path, model_files), tmp_path)
    assert plain(result) == result
    frames = read_frames(tmp_path / result["frames_file"])
    (final,) = read_frames(tmp_path / result["final_file"])
    assert result["num_frames"] == len(frames) > 0
    assert result["outcome"] == "uncertain" and result["steps"] <= 12
    for atoms in frames:
        assert atoms.info["uncertainty"] >= 1e-6
        assert {"forces", "force_spread"} <= set(atoms.arrays)
    assert np.abs(final.positions - molecule("NH3").positions).max() > 1e-3

    other = tmp_path / "again"
    other.mkdir()
    assert run(payload(other, model_files), other) == result
    np.testing.assert_array_equal(
        read_frames(other / result["final_file"])[0].positions, final.positions
    )


def test_a_committee_that_disagrees_too_much_breaks_the_walk(
    tmp_path: Path, model_files: list[str]
) -> None:
    thresholds = {"low": 1e-9, "high": 1e-8, "scale": 1.0}
    result = run(payload(tmp_path, model_files, thresholds=thresholds), tmp_path)
    assert result["outcome"] == "broken" and result["reason"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, which would be used")
def test_the_committee_goes_where_the_machine_says(tmp_path: Path, model_files: list[str]) -> None:
    with pytest.raises((AssertionError, RuntimeError), match=r"CUDA|NVIDIA"):
        run(payload(tmp_path, model_files, device="cuda"), tmp_path)
