import fcntl
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT

from tace_al.core.errors import ConfigError, DataError
from tace_al.data.extxyz import read_structures
from tace_al.engines.sampling import recorded_run
from tace_al.engines.sampling.batched_md import BatchedDynamics
from tace_al.engines.sampling.integrators import Langevin
from tace_al.engines.sampling.potential import CalculatorPotential
from tace_al.engines.sampling.recorded_run import LOG, STATE, TRAJECTORY, WalkerRun, record_run
from tace_al.engines.sampling.walkers import Walker


def run_of(steps: int, seed: int = 1) -> WalkerRun:
    walkers = [Walker(molecule("H2O"), steps=steps, seed=seed + i) for i in range(2)]
    return WalkerRun(
        BatchedDynamics(
            CalculatorPotential(EMT()), walkers, Langevin(), timestep_fs=0.5, record_every=5
        )
    )


class Killed(Exception):
    """Stands for a kill between two blocks."""


class FragileRun(recorded_run.Resumable):
    """A run that dies after some blocks."""

    def __init__(self, run: WalkerRun, blocks: int) -> None:
        self.run, self.left = run, blocks

    @property
    def running(self) -> bool:
        """As the run."""
        return self.run.running

    def advance(self, num_steps: int) -> list[Atoms]:
        """Go on, or die."""
        if self.left == 0:
            raise Killed
        self.left -= 1
        return list(self.run.advance(num_steps))

    def state(self) -> dict[str, np.ndarray]:
        """As the run."""
        return self.run.state()

    def restore(self, state: dict[str, np.ndarray]) -> None:  # type: ignore[override]
        """As the run."""
        self.run.restore(state)


def test_a_killed_run_ends_with_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    assert not record_run(run_of(40), whole, settings={"a": 1}, block=5)
    monkeypatch.setattr(recorded_run, "SAVE_SECONDS", -1.0)
    with pytest.raises(Killed):
        record_run(FragileRun(run_of(40), 3), broken, settings={"a": 1}, block=5)
    with (broken / TRAJECTORY).open("a") as stream:  # torn by the kill after the last state
        stream.write("3\ngarbage")
    assert record_run(run_of(40), broken, settings={"a": 1}, block=5)
    for name in (TRAJECTORY, LOG):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()
    frames = read_structures(whole / TRAJECTORY)
    assert [(f.info["walker"], f.info["step"]) for f in frames[:3]] == [(0, 5), (1, 5), (0, 10)]


def test_a_longer_run_goes_on_and_other_settings_are_refused(tmp_path: Path) -> None:
    record_run(run_of(20), tmp_path, settings={"a": 1})
    record_run(run_of(30), tmp_path, settings={"a": 1})
    assert len(read_structures(tmp_path / TRAJECTORY)) == 2 * 6
    with pytest.raises(ConfigError, match="a: 1, not 2"):
        record_run(run_of(30), tmp_path, settings={"a": 2})
    (tmp_path / LOG).write_text("")
    with pytest.raises(DataError, match="was changed"):
        record_run(run_of(30), tmp_path, settings={"a": 1})
    for damage in (b"nonsense", b"", (tmp_path / STATE).read_bytes()[:900]):
        (tmp_path / STATE).write_bytes(damage)
        with pytest.raises(DataError, match="begin anew"):
            record_run(run_of(30), tmp_path, settings={"a": 1})


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with (tmp_path / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another process"):
            record_run(run_of(5), tmp_path, settings={})
    record_run(run_of(5), tmp_path, settings={})
