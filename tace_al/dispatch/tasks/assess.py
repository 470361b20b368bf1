"""The task that looks at structures with a committee: errors where labelled, descriptors anyhow.

Payload: `models` (checkpoints), `frames` (frame file), `head` (of the models, optional), `cheap`
(another head, optional). Writes `assessment.npz`, structures end to
end: `counts` (structures,), `force_spread` and `force_error` (atoms,) in eV/Angstrom (error NaN
without labels), `member_energies` (structures, members) in eV and `descriptors` (structures,
features); with `cheap` also `difference_spread` (atoms,), by how far the members disagree about
what the forces of the two heads differ. Returns force and energy errors of the mean over the
labelled frames.
"""

from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from tace_al.data.extxyz import ENERGY, FORCES
from tace_al.data.frames import read_frames
from tace_al.engines.sampling.committee_potential import load_committee
from tace_al.model.prediction import Prediction
from tace_al.selection.calibration import force_errors
from tace_al.selection.diversity import structure_descriptor
from tace_al.selection.fidelities import difference_spread

ASSESSMENT_FILE = "assessment.npz"


def run(payload: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Predict every frame and compare with its label."""
    committee = load_committee(
        tuple(payload["models"]), payload.get("device", "cpu"), head=payload.get("head")
    )
    frames = read_frames(Path(payload["frames"]))
    predictions = committee.predict(frames, descriptors=True)
    species = committee.members[0].config.numbers
    errors = [_force_error(*pair) for pair in zip(frames, predictions, strict=True)]
    pooled = [
        structure_descriptor(prediction.descriptors, atoms.numbers, species=species)
        for atoms, prediction in zip(frames, predictions, strict=True)
        if prediction.descriptors is not None
    ]
    further: dict[str, Any] = {}
    if "cheap" in payload:
        further["difference_spread"] = _difference_spread(payload, frames, predictions)
    np.savez(
        folder / ASSESSMENT_FILE,
        counts=np.array([len(atoms) for atoms in frames], dtype=np.int64),
        force_spread=np.concatenate([np.zeros(0), *(p.force_spread for p in predictions)]),
        force_error=np.concatenate([np.zeros(0), *errors]),
        member_energies=np.array([p.member_energies for p in predictions]),
        descriptors=np.array(pooled),
        **further,
    )
    return {"assessment_file": ASSESSMENT_FILE, "errors": _mean_errors(frames, predictions)}


def _difference_spread(
    payload: dict[str, Any], frames: list[Atoms], predictions: list[Prediction]
) -> np.ndarray:
    """Return the spread of what the two heads differ by, structures end to end."""
    cheap = load_committee(
        tuple(payload["models"]), payload.get("device", "cpu"), head=payload["cheap"]
    ).predict(frames)
    spreads = [
        difference_spread(low.member_forces, high.member_forces)
        for low, high in zip(cheap, predictions, strict=True)
    ]
    return np.concatenate([np.zeros(0), *spreads])


def _force_error(atoms: Atoms, prediction: Prediction) -> np.ndarray:
    """Return (atoms,) lengths of the force errors, NaN without a label."""
    if FORCES not in atoms.arrays:
        return np.full(len(atoms), np.nan)
    return force_errors(prediction.forces, atoms.arrays[FORCES])


def _mean_errors(frames: list[Atoms], predictions: list[Prediction]) -> dict[str, float]:
    """Return force_rmse, force_mae (meV/Angstrom) and energy_rmse, energy_mae (meV/atom)."""
    force, energy = [], []
    for atoms, prediction in zip(frames, predictions, strict=True):
        if FORCES in atoms.arrays:
            force.append((prediction.forces - atoms.arrays[FORCES]).ravel())
        if ENERGY in atoms.info:
            energy.append((prediction.energy - float(atoms.info[ENERGY])) / len(atoms))
    errors: dict[str, float] = {}
    for name, parts in (("force", force), ("energy", [np.array(energy)] if energy else [])):
        if parts:
            values = 1e3 * np.concatenate(parts)
            errors[f"{name}_rmse"] = float(np.sqrt(np.mean(values**2)))
            errors[f"{name}_mae"] = float(np.mean(np.abs(values)))
    return errors
