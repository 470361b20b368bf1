"""The task that relaxes a structure with the labeller itself; every step is a label and is kept.

Payload: as of the task `label`, with one structure in `frames` and no `keys`; `fmax`
(eV/Angstrom) and `max_steps`. The optimiser is ASE's BFGS. Label files make a repeated relaxation
cost nothing up to where it was cut off. A labeller that crashed is an error of the task, which may
be run again; any other failed label is a result.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from ase import Atoms
from ase.optimize import BFGS

from tace_al.core.errors import LabelFailed
from tace_al.core.labels import label_key
from tace_al.data.frames import bare_copy, read_frames, structure_key, write_frames
from tace_al.dispatch.label_file import CRASH, LabelFailure, label_path
from tace_al.dispatch.tasks.label import cached_labeller, label_entry, stored_label
from tace_al.engines.labelling.labeller import Labeller
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.potential_calculator import PotentialCalculator
from tace_al.model.prediction import Prediction

FRAMES_FILE = "frames.npz"


def run(payload: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Relax a structure.

    Returns
    -------
    `frames_file`: every labelled structure in order, the last one relaxed; `labels`: their entries
    (see the task `label`); `converged`; `failure`: why it ended early, "" when it did not.
    """
    labeller = cached_labeller(payload["labeller"], json.dumps(payload["options"], sort_keys=True))
    kept = KeptLabels(labeller, Path(payload["labels_dir"]), float(payload["force_ceiling"]))
    atoms = bare_copy(read_frames(Path(payload["frames"]))[0])
    atoms.calc = PotentialCalculator(kept)
    failure, converged = "", False
    try:
        with BFGS(atoms, logfile=None) as optimiser:
            converged = bool(optimiser.run(fmax=payload["fmax"], steps=payload["max_steps"]))
    except LabelFailed as error:
        if error.kind == CRASH:
            raise
        failure = error.message
    write_frames(folder / FRAMES_FILE, kept.frames)
    return {
        "frames_file": FRAMES_FILE,
        "labels": kept.entries,
        "converged": converged,
        "failure": failure,
    }


@final
class KeptLabels(Potential):
    """A labeller whose every answer is written to its label file and remembered."""

    def __init__(self, labeller: Labeller, labels_dir: Path, force_ceiling: float) -> None:
        self.labeller, self.labels_dir, self.force_ceiling = labeller, labels_dir, force_ceiling
        self.frames: list[Atoms] = []
        self.entries: list[dict[str, Any]] = []

    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        """Return the labels of the frames as predictions."""
        return [self._predict(bare_copy(atoms)) for atoms in frames]

    def _predict(self, atoms: Atoms) -> Prediction:
        outcome = stored_label(
            self.labeller, atoms, labels_dir=self.labels_dir, force_ceiling=self.force_ceiling
        )
        if isinstance(outcome, LabelFailure):
            raise LabelFailed(outcome.kind, outcome.message)
        key = label_key(structure_key(atoms), self.labeller.fidelity.key)
        self.frames.append(atoms)
        self.entries.append(label_entry(outcome, label_path(self.labels_dir, key)))
        return Prediction(
            member_energies=np.array([outcome.energy]), member_forces=outcome.forces[None]
        )
