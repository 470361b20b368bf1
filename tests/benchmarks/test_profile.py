"""Where the time goes: groups that add up, and a floor that can be counted by hand."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import profile_floor
from benchmarks.profile import GROUPS, group_of, parsed, profiled, write
from benchmarks.profile_floor import GRADIENT, floor_of, peak_bytes, peak_flops
from tace_al.model.tace import Tace


@pytest.fixture(autouse=True)
def known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_floor, "peak_flops", lambda dtype: 1e9)
    monkeypatch.setattr(profile_floor, "peak_bytes", lambda: 1e9)


def one_layer(l_edge: int) -> Tace:
    return Tace.from_preset(
        "tiny", elements=["H"], num_layers=1, channels=4, l_edge=l_edge, l_hidden=0
    )


@pytest.mark.parametrize("l_edge", [0, 1, 2])
def test_a_sum_over_scalar_features_is_counted_by_hand(l_edge: int) -> None:
    """One path a degree: W h, then a product and a sum for each of the (l + 1)^2 harmonics."""
    floor = floor_of(one_layer(l_edge), num_atoms=0, num_edges=10, training=False)
    forward = 10 * 4 * sum(1 + 2 * (2 * l + 1) for l in range(l_edge + 1))
    assert floor.operations["sum over neighbours"] == forward * (1 + 3)
    assert floor.operations["radial weights"] == 10 * 4 * (l_edge + 1) * 2 * 5 * 2
    assert floor.operations["matrices"] == floor.operations["product"] == 0.0


def test_the_floor_grows_with_atoms_edges_and_training() -> None:
    model = Tace.from_preset("tiny", elements=["H", "O"])
    one, two = (floor_of(model, 10 * n, 100 * n, training=False) for n in (1, 2))
    for part in GRADIENT:
        assert two.operations[part] == pytest.approx(2 * one.operations[part])
    assert two.moved_bytes == pytest.approx(2 * one.moved_bytes)
    assert one.seconds == max(one.arithmetic_seconds, one.memory_seconds)
    assert one.arithmetic_seconds == pytest.approx(sum(one.operations.values()) / 1e9)
    training = floor_of(model, 10, 100, training=True)
    assert training.arithmetic_seconds > 3 * one.arithmetic_seconds - 1e-12
    double = floor_of(model.as_dtype("float64"), 10, 100, training=False)
    assert double.moved_bytes == pytest.approx(2 * one.moved_bytes)


def test_peaks_are_those_of_a_processor() -> None:
    assert 1e8 < peak_flops(torch.float32, size=128, repeats=2) < 1e13
    assert 1e8 < peak_bytes(mebibytes=4, repeats=2) < 1e12


def test_every_operator_has_a_group() -> None:
    assert group_of("aten::bmm") == "matrix products"
    assert group_of("aten::transpose") == "views"
    assert group_of("aten::silu") == "element by element"
    assert group_of("MulBackward0") == "autograd"
    assert set(map(group_of, ("anything", "aten::anything"))) <= set(GROUPS)


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
def test_shares_add_up_and_are_written(training: bool, tmp_path: Path) -> None:
    found = profiled("ethanol", training=training, preset="tiny", calls=2)
    assert sum(group.share for group in found.groups) == pytest.approx(1.0)
    assert sum(group.operators for group in found.groups) > 100
    assert sum(group.allocated_mib for group in found.groups) > 0.0
    write([found], tmp_path, "profile")
    table = (tmp_path / "profile.md").read_text()
    assert "times the floor" in table
    assert "outside operators" in table
    assert json.loads((tmp_path / "profile.json").read_text())["profiles"][0]["num_atoms"]


def test_the_command_line_takes_systems() -> None:
    assert parsed(["--system", "water"]).system == ["water"]
    assert parsed([]).system is None
