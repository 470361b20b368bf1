"""The task that relaxes a structure at an expensive level of theory, by steps on a cheap one.

At x_k the expensive force F_high(x_k) is computed, and the cheap surface, tilted so that its force
there is the expensive one,

    E_k(x) = E_low(x) - d_k . (x - x_k),    d_k = F_high(x_k) - F_low(x_k),

is relaxed to x_(k+1) (space mapping: Bandler et al. 1994, doi:10.1109/22.339794). Where the levels
differ by less than they curve this takes two or three expensive labels, where a plain relaxation
takes ten. From a start far from any minimum the first steps are on the cheap surface as it is. What
has not settled after `cycles` is relaxed on the expensive level alone.

Payload: as of the task `relax`; `cheap` (`name`, `labeller`, `options`, `force_ceiling`), `name` of
the expensive level, `cycles`. Every label is kept.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from ase import Atoms
from ase.optimize import BFGS

from tace_al.core.errors import LabelFailed
from tace_al.data.frames import bare_copy, fixed_mask, read_frames, write_frames
from tace_al.dispatch.label_file import CRASH
from tace_al.dispatch.tasks.label import cached_labeller
from tace_al.dispatch.tasks.relax import FRAMES_FILE, KeptLabels
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.potential_calculator import PotentialCalculator
from tace_al.model.prediction import Prediction

FAR = 1.0
"""eV/Angstrom: with such forces the difference of the levels says nothing of the minimum's."""


def run(payload: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Relax a structure; return what the task `relax` does, each label with its `level`.

    The labels of the cheap level come first; the last one is the expensive one of the relaxed
    structure.
    """
    labels_dir = Path(payload["labels_dir"])
    expensive = _kept_labels(payload, labels_dir)
    cheap = _kept_labels(payload["cheap"], labels_dir)
    atoms = bare_copy(read_frames(Path(payload["frames"]))[0])
    fmax, steps = float(payload["fmax"]), int(payload["max_steps"])
    failure, converged = "", False
    try:
        converged = relax_by_levels(
            atoms, cheap, expensive, fmax=fmax, steps=steps, cycles=payload["cycles"]
        )
        cheap.predict([atoms])
    except LabelFailed as error:
        if error.kind == CRASH:
            raise
        failure = error.message
    write_frames(folder / FRAMES_FILE, [*cheap.frames, *expensive.frames])
    entries = [{**entry, "level": payload["cheap"]["name"]} for entry in cheap.entries]
    entries += [{**entry, "level": payload["name"]} for entry in expensive.entries]
    return {
        "frames_file": FRAMES_FILE,
        "labels": entries,
        "converged": converged,
        "failure": failure,
    }


def relax_by_levels(
    atoms: Atoms, cheap: Potential, expensive: Potential, *, fmax: float, steps: int, cycles: int
) -> bool:
    """Move `atoms` to the minimum of `expensive`; return whether it got there.

    Parameters
    ----------
    atoms
        Start; left where the last expensive label is.
    cheap, expensive
        The two levels.
    fmax
        Largest expensive force of the minimum, eV/Angstrom.
    steps
        Of each relaxation, at most; 0 only labels the start.
    cycles
        Expensive labels before the plain relaxation, at most.
    """
    free = ~fixed_mask(atoms)
    for cycle in range(cycles if steps else 1):
        force = expensive.predict([atoms])[0].forces
        largest = float(np.linalg.norm(force[free], axis=1).max(initial=0.0))
        if largest <= fmax:
            return True
        if not steps:
            return False
        tilt = force - cheap.predict([atoms])[0].forces
        if cycle == 0 and largest > FAR:
            tilt = np.zeros_like(tilt)
        _relax(atoms, Tilted(cheap, tilt, atoms.positions.copy()), fmax=fmax / 2, steps=steps)
    return _relax(atoms, expensive, fmax=fmax, steps=steps)


@final
class Tilted(Potential):
    """A potential with a constant force added, E(x) - d . (x - x_0)."""

    def __init__(self, potential: Potential, tilt: np.ndarray, origin: np.ndarray) -> None:
        self.potential, self.tilt, self.origin = potential, tilt, origin

    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        """Return the tilted predictions."""
        return [
            Prediction(
                member_energies=said.member_energies
                - float(np.sum(self.tilt * (atoms.positions - self.origin))),
                member_forces=said.member_forces + self.tilt,
            )
            for atoms, said in zip(frames, self.potential.predict(frames), strict=True)
        ]


def _relax(atoms: Atoms, potential: Potential, *, fmax: float, steps: int) -> bool:
    """Relax `atoms` on a potential."""
    atoms.calc = PotentialCalculator(potential)
    with BFGS(atoms, logfile=None) as optimiser:
        converged = bool(optimiser.run(fmax=fmax, steps=steps))
    atoms.calc = None
    return converged


def _kept_labels(choice: dict[str, Any], labels_dir: Path) -> KeptLabels:
    """Return a labeller whose labels are kept."""
    labeller = cached_labeller(choice["labeller"], json.dumps(choice["options"], sort_keys=True))
    return KeptLabels(labeller, labels_dir, float(choice["force_ceiling"]))
