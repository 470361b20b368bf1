import json
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from ase.build import fcc111
from ase.io import read, write

from tace_al.cli.beam import STATE, BatchState, BeamPlan
from tace_al.core.errors import DataError


@pytest.fixture
def surface(tmp_path: Path) -> Path:
    slab = fcc111("Pt", (2, 2, 3), vacuum=9.0, periodic=True)
    slab.info.clear()
    path = tmp_path / "pt.xyz"
    write(path, slab)
    return path


@pytest.mark.slow
def test_a_beam_on_emt_and_the_same_command_again(
    tace_al: Any, surface: Path, tmp_path: Path
) -> None:
    out = tmp_path / "beam"
    command = ["beam", surface, "--projectile", "Pt", "--energy-ev", 20, "--calculator", "emt"]
    command += ["--number", 2, "--batch", 1, "--stick-fs", 40, "--record-every", 20]
    command += ["--equilibration", 10, "--out", out]
    first = tace_al(*command)
    assert first.code == 0 and "sticking probability" in first.out, first
    summary = json.loads((out / "beam.json").read_text())
    assert summary["num_trajectories"] == 2 == len(summary["trajectories"])
    assert 0.0 <= summary["sticking_probability"] <= 1.0
    assert summary["sticking_probability_error"] > 0.0
    assert summary["inputs"]["potential"]["calculator"] == "emt"
    assert all(abs(one["conserved_drift_ev"]) < 0.1 for one in summary["trajectories"])
    frames = read(out / "batch_001.xyz", ":")
    assert {frame.info["trajectory"] for frame in frames} == {1} and len(frames) >= 3
    assert (out / "beam.png").stat().st_size > 5000

    (out / "beam.json").unlink()
    state = (out / "beam_state.json").stat().st_mtime_ns
    again = tace_al(*command)
    assert again.out == first.out
    assert json.loads((out / "beam.json").read_text()) == summary
    assert (out / "beam_state.json").stat().st_mtime_ns == state

    other = tace_al(*command[:5], 21, *command[6:])
    assert other.code == 2 and "other settings" in other.err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--projectile", "Ptt"], "no atom or molecule is called"),
        (["--energy-ev", "-1"], "energy_ev"),
        (["--angle", "89"], "below 85"),
        (["--calculator", "emtt"], "Did you mean 'emt'?"),
    ],
)
def test_wrong_beams(tace_al: Any, surface: Path, tmp_path: Path, changes: Any, words: str) -> None:
    calculator = [] if "--calculator" in changes else ["--calculator", "emt"]
    result = tace_al("beam", surface, *calculator, "--out", tmp_path / "beam", *changes)
    assert result.code == 2 and words in result.err


def kept(number: int) -> list[dict[str, Any]]:
    one = {"verdict": "stuck", "reason": "", "time_fs": 1.0, "energy_ev": 0.1}
    return [{**one, "conserved_drift_ev": 0.0, "max_force_error_bar_ev_per_a": 0.0}] * number


@pytest.mark.parametrize(
    ("number", "batches"), [(10, [4, 4, 2]), (12, [4, 4]), (40, [4, 4]), (3, [4, 4, 2])]
)
def test_more_trajectories_keep_full_batches(
    tmp_path: Path, number: int, batches: list[int]
) -> None:
    done, first = [4, 4, 2], 0
    for index, count in enumerate(done):
        frames = [Atoms("Pt", info={"trajectory": first + i}) for i in range(count)]
        write(tmp_path / f"batch_{index:03d}.xyz", frames)
        first += count
    state = {"told": {"energy": 5}, "impacts": [kept(count) for count in done]}
    (tmp_path / STATE).write_text(json.dumps(state))
    plan = BeamPlan(number=number, batch=4, seed=0, record_every=1, stop_above=None)
    found = BatchState(tmp_path, {"energy": 5}, plan)
    assert found.num_batches == len(batches) and len(found.impacts) == sum(batches)
    (tmp_path / STATE).write_text("{")
    with pytest.raises(DataError, match="begin anew"):
        BatchState(tmp_path, {"energy": 5}, plan)
