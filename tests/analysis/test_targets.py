from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tace_al.analysis.targets import TargetInputs, evaluate_target, target_options
from tace_al.core.errors import ConfigError, SamplerError


def nothing_finite(inputs: TargetInputs) -> dict[str, dict[str, Any]]:
    return {"x": {"value": float("nan"), "error_bar": 0.1}}


def inputs(**observables: list[dict[str, Any]]) -> TargetInputs:
    return TargetInputs(committee=None, folder=Path(), starts={}, observables=observables)  # type: ignore[arg-type]


def chunk(value: float, **more: Any) -> dict[str, Any]:
    return {"sampler": "pimd", "walker": "a", "outcome": "known", "x": value, **more}


def test_the_mean_of_an_observable_with_its_standard_error() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(2.0, 0.3, 400)
    chunks = [chunk(value) for value in values] + [{**chunk(99.0), "sampler": "other"}]
    options = {"name": "x", "sampler": "pimd", "unit": "eV"}
    found = evaluate_target("observable", options, inputs(water=chunks))
    assert found["water"]["unit"] == "eV"
    assert found["water"]["error_bar"] == pytest.approx(0.3 / 20, rel=0.1)
    assert abs(found["water"]["value"] - 2.0) < 3 * found["water"]["error_bar"]


def test_errors_of_the_chunks_are_the_least_error() -> None:
    chunks = [chunk(1.0, x_error=0.2), chunk(1.0, x_error=0.2)]
    found = evaluate_target("observable", {"name": "x"}, inputs(a=chunks))
    assert found["a"]["error_bar"] == pytest.approx(0.2 / np.sqrt(2))
    with pytest.raises(ConfigError, match="two walkers"):
        evaluate_target("observable", {"name": "x"}, inputs(a=[chunk(1.0)]))


def test_wrong_targets_are_one_sentence() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'observable'"):
        target_options("observble", {})
    with pytest.raises(ConfigError, match="needs a value for: name"):
        target_options("observable", {})
    with pytest.raises(ConfigError, match="no sampler observed 'y'"):
        evaluate_target("observable", {"name": "y"}, inputs(a=[chunk(1.0)]))
    with pytest.raises(SamplerError, match="must be finite"):
        evaluate_target(f"{__name__}:nothing_finite", {}, inputs())
