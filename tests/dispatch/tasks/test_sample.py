from pathlib import Path
from typing import Any

import numpy as np
from ase.build import molecule

from tace_al.data.frames import read_frames, write_frames
from tace_al.dispatch.apps import plain
from tace_al.dispatch.tasks import langevin, sample, target


def payload(folder: Path, model_files: list[str], **changes: Any) -> dict[str, Any]:
    write_frames(folder / "start.npz", [molecule("NH3")])
    return {
        "sampler": "langevin",
        "options": {"temperature": 300.0, "temperature_end": 500.0, "steps": 12},
        "models": model_files,
        "start": str(folder / "start.npz"),
        "state": None,
        "thresholds": {"low": 1e-6, "high": 1e3, "scale": 1.0},
        "seed": 1,
        **changes,
    }


def test_the_langevin_sampler_does_what_its_own_task_does(
    tmp_path: Path, model_files: list[str]
) -> None:
    asked = payload(tmp_path, model_files)
    result = sample.run(asked, tmp_path)
    assert plain(result) == result
    own = {**asked, **asked["options"], "timestep_fs": 0.5, "friction_per_fs": 0.02}
    other = tmp_path / "other"
    other.mkdir()
    expected = langevin.run(own, other)
    assert {name: result[name] for name in expected} == expected
    np.testing.assert_array_equal(
        read_frames(tmp_path / result["final_file"])[0].positions,
        read_frames(other / expected["final_file"])[0].positions,
    )
    assert result["state_file"] is None and result["observables"] == {}


def test_a_target_on_a_worker(tmp_path: Path, model_files: list[str]) -> None:
    write_frames(tmp_path / "start.npz", [molecule("NH3")])
    asked = {
        "target": "observable",
        "options": {"name": "x"},
        "models": model_files,
        "starts": {"ammonia": str(tmp_path / "start.npz")},
        "observables": {"ammonia": [{"sampler": "s", "x": 1.0}, {"sampler": "s", "x": 2.0}]},
        "calibration": {"force_scale": 1.0, "energy_scale": 1.0, "energy_floor": 0.0},
        "seed": 1,
    }
    result = target.run(asked, tmp_path)
    assert plain(result) == result
    assert result["values"]["ammonia"]["value"] == 1.5
