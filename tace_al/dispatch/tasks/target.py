"""The task that evaluates a campaign's target with the committee that serves.

Payload: `target` and `options` (see `tace_al.analysis.targets`), `models`, `starts` (channel ->
frame file), `observables` (channel -> what its chunks observed), `calibration` (force_scale,
energy_scale, energy_floor), `seed`, `head` (of models with two levels). Returns `values`: name ->
value, error_bar, unit and more.
"""

from pathlib import Path
from typing import Any

from tace_al.analysis.targets import TargetInputs, evaluate_target
from tace_al.data.frames import read_frames
from tace_al.engines.sampling.committee_potential import load_committee


def run(payload: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Evaluate a target."""
    inputs = TargetInputs(
        committee=load_committee(tuple(payload["models"]), payload.get("device", "cpu")),
        folder=folder,
        starts={channel: read_frames(Path(path)) for channel, path in payload["starts"].items()},
        observables=payload["observables"],
        seed=payload["seed"],
        **payload["calibration"],
    )
    return {"values": evaluate_target(payload["target"], payload["options"], inputs)}
