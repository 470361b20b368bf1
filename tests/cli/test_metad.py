import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write

from tace_al.data.extxyz import read_structures


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@pytest.mark.slow
def test_a_pair_is_pulled_apart_and_stays_within_its_wall(
    tace_al: Callable[..., Any], tmp_path: Path
) -> None:
    """Argon's Lennard-Jones well: one minimum near 2^(1/6) sigma."""
    write(tmp_path / "pair.xyz", Atoms("Ar2", [[0, 0, 0], [0, 0, 3.8]]), format="extxyz")
    out = tmp_path / "run"
    arguments = ["metad", tmp_path / "pair.xyz", "--cv", "distance:0,1", "--out", out]
    arguments += ["--calculator", "ase.calculators.lj:LennardJones"]
    arguments += ["--option", "sigma=3.4", "--option", "epsilon=0.08", "--option", "rc=10.0"]
    arguments += ["--wall", "0:6.0", "--timestep", 8, "--temperature", 150, "--height", 0.01]
    arguments += ["--pace", 25, "--walkers", 4, "--bias-factor", 8, "--width", 0.15]
    assert tace_al(*arguments, "--steps", 300).code == 0
    outcome = tace_al(*arguments, "--steps", 900)
    assert outcome.code == 0, outcome.err
    found = read(out / "metad.json")
    assert found["num_hills"] == 4 * 36
    (where, energy), *_ = sorted(found["minima"], key=lambda entry: entry[1])
    assert where == pytest.approx(3.4 * 2 ** (1 / 6), abs=0.15) and energy == 0.0
    table = np.genfromtxt(out / "free_energy.csv", delimiter=",", skip_header=1)
    assert table[:, 0].max() > 5.0, "it was driven out of its well"
    assert table[:, 0].max() < 6.6, "and held by the wall"
    frames = read_structures(out / "trajectory.xyz")
    assert len(frames) == 4 * 18 and "bias_energy" in frames[-1].info
    assert (out / "metad.png").exists() and (out / "hills.csv").exists()


def test_two_variables_and_refusals(tace_al: Callable[..., Any], tmp_path: Path) -> None:
    write(tmp_path / "w.xyz", molecule("H2O"), format="extxyz")
    out = tmp_path / "run"
    arguments = ["metad", tmp_path / "w.xyz", "--calculator", "emt", "--out", out]
    outcome = tace_al(
        *arguments, "--cv", "distance:0,1", "--cv", "coordination:O,H,1.2", "--steps", 60,
        "--pace", 5,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert len(read(out / "metad.json")["lowest"]) == 2
    header, first, *_ = (out / "free_energy.csv").read_text().splitlines()
    assert header.split(",")[:2] == ["distance:0-1", "coordination:O-H-1.2"]
    assert len(first.split(",")) == len(header.split(",")), "one name a column"
    assert (out / "metad.png").exists()
    nothing = tace_al(*arguments)
    assert nothing.code == 2 and "needs a collective variable" in nothing.err
    wrong = tace_al(*arguments, "--cv", "distance:0,7")
    assert wrong.code == 2 and "no atom of H2O" in wrong.err
