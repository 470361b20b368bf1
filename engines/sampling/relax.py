"""Relax a structure on a potential and keep every frame on the way.

BFGS in Cartesian coordinates as ASE has it (steps capped at 0.2 A). The frames of a relaxation are
worth keeping: on a labeller each is a label, on a committee each can be uncertain.
"""

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.optimize import BFGS

from tace_al.core.errors import SamplerError
from tace_al.data.frames import bare_copy
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.potential_calculator import PotentialCalculator
from tace_al.engines.sampling.sampler import Outcome, Thresholds, predicted_frame


@dataclass(frozen=True, kw_only=True, slots=True)
class Relaxation:
    """A relaxation and its frames.

    Parameters
    ----------
    frames
        Every geometry visited, first to last, as `predicted_frame` makes them.
    final
        The last of them.
    converged
        Whether every force on a movable atom is below `fmax`.
    steps
        Steps taken.
    fmax
        Largest force on a movable atom at the end, in eV/A.
    outcome
        "broken" when it stopped on a broken frame (which is the last), else the side of the largest
        uncertainty; "known" without thresholds.
    """

    frames: tuple[Atoms, ...]
    final: Atoms
    converged: bool
    steps: int
    fmax: float
    outcome: Outcome


def relax(
    potential: Potential,
    atoms: Atoms,
    *,
    fmax: float = 0.05,
    max_steps: int = 500,
    thresholds: Thresholds | None = None,
) -> Relaxation:
    """Move the atoms downhill until every force on a movable atom is below `fmax` (eV/A).

    Parameters
    ----------
    thresholds
        Stop as soon as a frame is broken.

    Raises
    ------
    SamplerError
        The potential predicts something that is not finite.
    """
    walker = bare_copy(atoms)
    calculator = PotentialCalculator(potential)
    walker.calc = calculator
    frames: list[Atoms] = []
    outcome: Outcome = "known"
    with BFGS(walker, logfile=None) as optimiser:
        for _ in optimiser.irun(fmax=fmax, steps=max_steps):
            prediction = calculator.prediction
            assert prediction is not None
            if not np.isfinite(prediction.member_forces).all():
                raise SamplerError(
                    f"the potential's forces are not finite at step {len(frames)} of a relaxation; "
                    "retrain it, or check the structure"
                )
            frames.append(predicted_frame(walker, prediction, thresholds))
            if thresholds is None:
                continue
            verdict = thresholds.outcome(frames[-1].info["uncertainty"])
            outcome = verdict if outcome == "known" else outcome
            if verdict == "broken":
                outcome = "broken"
                break
    largest = float(np.linalg.norm(walker.get_forces(), axis=1).max())
    return Relaxation(
        frames=tuple(frames),
        final=frames[-1],
        converged=largest < fmax,
        steps=len(frames) - 1,
        fmax=largest,
        outcome=outcome,
    )
