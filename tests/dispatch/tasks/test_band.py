from pathlib import Path

import numpy as np
import pytest

from tace_al.data.frames import read_frames, write_frames
from tace_al.dispatch.apps import plain
from tace_al.dispatch.tasks.band import run
from tace_al.workflows.reactions import ammonia_inversion


def test_a_band_brings_its_barrier_and_its_images(tmp_path: Path, model_files: list[str]) -> None:
    write_frames(tmp_path / "ends.npz", ammonia_inversion())
    payload = {
        "models": model_files,
        "ends": str(tmp_path / "ends.npz"),
        "path": None,
        "num_images": 5,
        "fmax": 0.05,
        "max_steps": 8,
        "rattle": 0.05,
        "seed": 2,
        "thresholds": {"low": 1e-6, "high": 1e3, "scale": 1.0},
        "energy_scale": 2.0,
        "energy_floor": 0.01,
    }
    result = run(payload, tmp_path)
    assert plain(result) == result
    images = read_frames(tmp_path / result["frames_file"])
    assert len(images) == 5 and 0 < result["saddle_image"] < 4
    barrier = result["barrier"]
    assert barrier["coordinate"][0] == 0.0
    assert np.all(np.diff(barrier["coordinate"]) > 0)
    assert barrier["energies"][0] == 0.0 and len(barrier["energies"]) == 5
    assert barrier["error_bar"] >= 0.02 - 1e-12  # scale times floor
    assert barrier["members"] and len(barrier["members"]) == len(model_files)
    ends = ammonia_inversion()
    np.testing.assert_allclose(images[0].positions, ends[0].positions, atol=1e-6)

    # the next generation goes on from here: its band starts on these images
    again = tmp_path / "again"
    again.mkdir()
    path = str(tmp_path / result["frames_file"])
    further = run({**payload, "path": path, "rattle": 0.0, "max_steps": 1}, again)
    first = read_frames(again / further["frames_file"])
    largest = max(
        np.linalg.norm(a.positions - b.positions, axis=1).max()
        for a, b in zip(images, first, strict=True)
    )
    assert largest < 0.3
    assert further["barrier"]["barrier"] == pytest.approx(barrier["barrier"], abs=1.0)
