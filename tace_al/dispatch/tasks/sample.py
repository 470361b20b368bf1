"""The task that runs one chunk of any sampler on a committee.

Payload: `sampler` and `options` (see `tace_al.engines.sampling.catalogue`), `models`, `start`
(frame file, its first frame), `state` (file of the walker's chunk before, or None), `thresholds`
(low, high, scale), `seed`. Writes the kept frames, the final one and the state; returns the outcome
and what the sampler observed.
"""

from pathlib import Path
from typing import Any

import numpy as np

from tace_al.data.frames import read_frames, write_frames
from tace_al.engines.sampling.catalogue import sampler_from_name, sampler_kind
from tace_al.engines.sampling.committee_potential import CommitteePotential, load_committee
from tace_al.engines.sampling.sampler import Thresholds

FRAMES_FILE, FINAL_FILE, STATE_FILE = "frames.npz", "final.npz", "state.npz"


def run(payload: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run one chunk."""
    kind = sampler_kind(payload["sampler"])
    sampler = sampler_from_name(
        payload["sampler"],
        payload["options"],
        potential=CommitteePotential(
            load_committee(
                tuple(payload["models"]), payload.get("device", "cpu"), head=payload.get("head")
            ),
            skin=kind.skin,
            stress=kind.stress,
        ),
        thresholds=Thresholds(**payload["thresholds"]),
        seed=payload["seed"],
    )
    start = read_frames(Path(payload["start"]))[0]
    if payload.get("state"):
        with np.load(payload["state"]) as content:
            state = {name: content[name] for name in content.files}
        chunk = sampler.go_on(start, state)
    else:
        chunk = sampler.run(start)
    write_frames(folder / FRAMES_FILE, chunk.frames)
    write_frames(folder / FINAL_FILE, [chunk.final])
    if chunk.state:
        np.savez(folder / STATE_FILE, **dict[str, Any](chunk.state))
    return {
        "frames_file": FRAMES_FILE,
        "final_file": FINAL_FILE,
        "state_file": STATE_FILE if chunk.state else None,
        "num_frames": len(chunk.frames),
        "num_known": len(chunk.known),
        "num_uncertain": len(chunk.uncertain),
        "outcome": chunk.outcome,
        "reason": chunk.reason,
        "steps": chunk.steps,
        "max_uncertainty": chunk.max_uncertainty,
        "observables": dict(chunk.observables),
    }
