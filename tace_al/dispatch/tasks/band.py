"""The task that optimises a climbing elastic band on a committee and reads its barrier.

Payload: `models`, `head` (of the models, optional), `ends` (frame file: initial, final), `path`
(frame file of a former band or None), `num_images`, `fmax` (eV/Angstrom), `max_steps`, `rattle`
(Angstrom), `seed`, `thresholds` (low, high, scale), `energy_scale` and `energy_floor` (of the
calibration). Writes the images with what the committee says of each; returns the barrier with its
error bar as plain numbers.
"""

from pathlib import Path
from typing import Any

import numpy as np

from tace_al.analysis.barrier import barrier_from_members
from tace_al.data.frames import read_frames, write_frames
from tace_al.engines.sampling.committee_potential import CommitteePotential, load_committee
from tace_al.engines.sampling.neb import BandResult, BandSettings, nudged_elastic_band
from tace_al.engines.sampling.sampler import Thresholds

FRAMES_FILE = "band.npz"


def run(payload: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Optimise a band."""
    committee = load_committee(
        tuple(payload["models"]), payload.get("device", "cpu"), head=payload.get("head")
    )
    potential = CommitteePotential(committee)
    initial, final = read_frames(Path(payload["ends"]))
    path = read_frames(Path(payload["path"])) if payload["path"] else None
    band = nudged_elastic_band(
        potential,
        initial,
        final,
        settings=BandSettings(
            num_images=payload["num_images"],
            fmax=payload["fmax"],
            max_steps=payload["max_steps"],
            rattle=payload["rattle"],
            seed=payload["seed"],
        ),
        thresholds=Thresholds(**payload["thresholds"]),
        path=path,
    )
    write_frames(folder / FRAMES_FILE, band.images)
    scales = {"energy_scale": payload["energy_scale"], "energy_floor": payload["energy_floor"]}
    return {
        "frames_file": FRAMES_FILE,
        "barrier": band_barrier(band, **scales),
        "outcome": band.outcome,
        "converged": band.converged,
        "steps": band.steps,
        "fmax": float(band.fmax),
        "max_uncertainty": band.max_uncertainty,
        "saddle_image": band.saddle_index,
        "saddle_uncertainty": float(band.saddle.info["uncertainty"]),
    }


def band_barrier(band: BandResult, *, energy_scale: float, energy_floor: float) -> dict[str, Any]:
    """Return the barrier of a band as the Store keeps it (eV and Angstrom)."""
    estimate = barrier_from_members(
        band.member_energies,
        band.reaction_coordinate,
        member_tangential_forces=band.member_tangential_forces,
        energy_scale=energy_scale,
        energy_floor=energy_floor,
    )
    above = band.member_energies - band.member_energies[:, :1]
    return {
        "barrier": estimate.forward,
        "error_bar": estimate.error,
        "reverse": estimate.reverse,
        "members": list(estimate.members),
        "coordinate": band.reaction_coordinate.tolist(),
        "energies": above.mean(axis=0).tolist(),
        "band": (energy_scale * np.maximum(above.std(axis=0), energy_floor)).tolist(),
        "converged": bool(band.converged),
        "has_saddle": estimate.has_saddle,
    }
