"""The task that runs one chunk of a walker's Langevin dynamics on a committee.

Payload: `models`, `head` (of the models, optional), `start` (frame file, its first frame),
`thresholds` (low, high, scale), `temperature`, `temperature_end`, `steps`, `timestep_fs`,
`friction_per_fs`, `seed`. Writes the kept frames and the final one; returns the outcome.
"""

from pathlib import Path
from typing import Any

from tace_al.data.frames import read_frames, write_frames
from tace_al.engines.sampling.committee_potential import CommitteePotential, load_committee
from tace_al.engines.sampling.langevin import LangevinSampler
from tace_al.engines.sampling.sampler import Thresholds

FRAMES_FILE, FINAL_FILE = "frames.npz", "final.npz"


def run(payload: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run one chunk."""
    committee = load_committee(
        tuple(payload["models"]), payload.get("device", "cpu"), head=payload.get("head")
    )
    sampler = LangevinSampler(
        CommitteePotential(committee),
        Thresholds(**payload["thresholds"]),
        temperature=payload["temperature"],
        temperature_end=payload["temperature_end"],
        timestep_fs=payload["timestep_fs"],
        friction=payload["friction_per_fs"],
        steps=payload["steps"],
        seed=payload["seed"],
    )
    chunk = sampler.run(read_frames(Path(payload["start"]))[0])
    write_frames(folder / FRAMES_FILE, chunk.frames)
    write_frames(folder / FINAL_FILE, [chunk.final])
    return {
        "frames_file": FRAMES_FILE,
        "final_file": FINAL_FILE,
        "num_frames": len(chunk.frames),
        "num_known": len(chunk.known),
        "num_uncertain": len(chunk.uncertain),
        "outcome": chunk.outcome,
        "reason": chunk.reason,
        "steps": chunk.steps,
        "max_uncertainty": chunk.max_uncertainty,
    }
