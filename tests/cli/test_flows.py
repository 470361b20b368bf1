"""`tace-al shear` and `tace-al heat` on effective-medium metals: files, going on, bad input."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.io import read, write


@pytest.fixture
def copper(tmp_path: Path) -> Path:
    write(tmp_path / "cu.xyz", bulk("Cu", cubic=True) * (1, 1, 4), format="extxyz")
    return tmp_path / "cu.xyz"


def summary(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@pytest.mark.slow
def test_shear_goes_on_as_if_it_had_not_stopped(
    tace_al: Callable[..., Any], copper: Path, tmp_path: Path
) -> None:
    common = ["shear", copper, "--calculator", "emt", "--rate-per-ps", 5, "--temperature", 900]
    common += ["--timestep", 2, "--record-every", 10]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert tace_al(*common, "--steps", 60, "--out", whole).code == 0
    assert tace_al(*common, "--steps", 30, "--out", parts).code == 0
    again = tace_al(*common, "--steps", 60, "--out", parts)
    assert again.code == 0 and "viscosity" in again.out
    one, other = summary(whole / "shear.json"), summary(parts / "shear.json")
    assert one["viscosity_mpa_s"] == other["viscosity_mpa_s"]
    assert one["steps"] == 60 and one["num_steps_in_means"] == 48
    assert abs(one["conserved_drift_ev"]) < 0.05
    frames = read(whole / "trajectory.xyz", ":")
    assert [frame.info["step"] for frame in frames] == [10, 20, 30, 40, 50, 60]
    assert all("bond_event" in frame.info and frame.info["time_fs"] > 0 for frame in frames)
    assert all(frame.get_forces().shape == (16, 3) for frame in frames)
    assert (parts / "trajectory.xyz").read_bytes() == (whole / "trajectory.xyz").read_bytes()
    assert (parts / "log.csv").read_bytes() == (whole / "log.csv").read_bytes()
    assert (whole / "shear.png").stat().st_size > 5000
    other_rate = [4 if part == 5 else part for part in common]
    assert "other settings" in tace_al(*other_rate, "--steps", 60, "--out", parts).err


@pytest.mark.slow
def test_heat_goes_on_as_if_it_had_not_stopped(
    tace_al: Callable[..., Any], copper: Path, tmp_path: Path
) -> None:
    common = ["heat", copper, "--calculator", "emt", "--hot", 600, "--cold", 200, "--slices", 4]
    common += ["--timestep", 3, "--record-every", 50]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert tace_al(*common, "--steps", 240, "--out", whole).code == 0
    assert tace_al(*common, "--steps", 160, "--settle", 0, "--out", parts).code == 0
    assert tace_al(*common, "--steps", 240, "--out", parts).code == 0
    one, other = summary(whole / "heat.json"), summary(parts / "heat.json")
    assert one["heat_current_w_per_m2"] == other["heat_current_w_per_m2"]
    assert one["temperature_profile_k"] == other["temperature_profile_k"]
    assert one["hot_bath_gave_ev"] > one["cold_bath_gave_ev"]
    assert np.argmax(one["temperature_profile_k"]) == 0
    assert (parts / "trajectory.xyz").read_bytes() == (whole / "trajectory.xyz").read_bytes()
    assert "bond_event" in read(whole / "trajectory.xyz").info and one["bond_events"] == []
    assert (whole / "heat.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("command", "changes", "words"),
    [
        ("shear", ["--rate-per-ps", "0"], "does not flow"),
        ("shear", ["--steps", "20", "--settle", "20"], "leaves nothing"),
        ("heat", ["--slices", "5"], "even number"),
        ("heat", ["--slices", "4", "--steps", "100"], "at least 140"),
        ("heat", ["--hot", "-3"], "positive"),
        ("heat", ["--axis", "7"], "axis"),
    ],
)
def test_wrong_flows(
    tace_al: Callable[..., Any],
    copper: Path,
    tmp_path: Path,
    command: str,
    changes: list[str],
    words: str,
) -> None:
    outcome = tace_al(command, copper, "--calculator", "emt", "--out", tmp_path / "x", *changes)
    assert outcome.code == 2 and words in outcome.err


@pytest.mark.parametrize("command", ["shear", "heat"])
def test_a_molecule_neither_flows_nor_conducts(
    tace_al: Callable[..., Any], tmp_path: Path, command: str
) -> None:
    write(tmp_path / "water.xyz", molecule("H2O"), format="extxyz")
    outcome = tace_al(command, tmp_path / "water.xyz", "--calculator", "gfn2")
    assert outcome.code == 2 and "periodic" in outcome.err
