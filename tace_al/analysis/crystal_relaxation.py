"""Relax positions and cell of a crystal and keep its space group.

BFGS on positions and the matrix logarithm of the cell's deformation (ASE's `FrechetCellFilter`),
under ASE's `FixSymmetry`: without it rounding breaks the symmetry that keeps displacements few and
the band path right. Phonons want a tight minimum, a frequency changes by -3 gamma da/a; so it goes
on until forces are far below any use, or until the potential's noise stops it below `max_force`.
"""

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.constraints import FixSymmetry
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from tace_al.analysis.supercells import quiet
from tace_al.core.errors import SamplerError
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.potential_calculator import PotentialCalculator

AIM = 1e-7
"""eV/Angstrom at which a relaxation is over; the cell's share is virial per atom."""
PATIENCE = 12
"""Steps without progress after which noise has been reached."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CrystalRelaxation:
    """A relaxed crystal and how well it is relaxed.

    Parameters
    ----------
    atoms
        The relaxed unit cell, without calculator and constraints.
    steps
        Evaluations it took.
    max_force
        Largest force in eV/Angstrom.
    max_stress
        Largest component of the stress in eV/Angstrom^3.
    """

    atoms: Atoms
    steps: int
    max_force: float
    max_stress: float


def relax_crystal(
    potential: Potential, atoms: Atoms, *, max_force: float = 1e-3, max_steps: int = 300
) -> CrystalRelaxation:
    """Return the crystal at the nearest minimum of its own symmetry.

    Parameters
    ----------
    potential
        With stress.
    max_force
        eV/Angstrom that must be reached; better is taken where the potential allows it.
    max_steps
        Evaluations at most.

    Raises
    ------
    SamplerError
        The potential has no stress, is not finite, or the minimum is not reached.
    """
    walker = atoms.copy()
    walker.set_constraint()
    calculator = PotentialCalculator(potential)
    walker.calc = calculator
    with quiet():
        walker.set_constraint(FixSymmetry(walker, symprec=1e-4))
    walker.get_potential_energy()
    if calculator.prediction is None or calculator.prediction.stress is None:
        raise SamplerError(
            "the calculator predicts no stress, so the cell cannot be relaxed; relax it elsewhere "
            "and pass --no-relax"
        )
    best, best_force, steps = _descend(walker, max_force=max_force, max_steps=max_steps)
    if best_force >= max_force:
        raise SamplerError(
            f"the crystal does not relax: after {steps} steps its largest force is "
            f"{best_force:.2g} eV/A, expected below {max_force:g}; start nearer to the minimum, "
            "or relax it elsewhere and pass --no-relax"
        )
    best.set_constraint()
    prediction = potential.predict([best])[0]
    assert prediction.stress is not None
    return CrystalRelaxation(
        atoms=best,
        steps=steps,
        max_force=float(np.linalg.norm(prediction.forces, axis=1).max()),
        max_stress=float(np.abs(prediction.stress).max()),
    )


def _descend(walker: Atoms, *, max_force: float, max_steps: int) -> tuple[Atoms, float, int]:
    """Return the best geometry met on the way down, its largest force and the steps taken."""
    best, best_force, since, steps = walker.copy(), np.inf, 0, 0
    with quiet():
        moving = FrechetCellFilter(walker)
        with BFGS(moving, logfile=None, maxstep=0.1) as optimiser:  # type: ignore[arg-type]
            for _ in optimiser.irun(fmax=AIM, steps=max_steps):
                largest = float(np.linalg.norm(moving.get_forces(), axis=1).max())
                if not np.isfinite(largest):
                    raise SamplerError(
                        f"forces are not finite at step {steps} of the relaxation; the potential "
                        "does not know this crystal: train it on it, or check the structure"
                    )
                steps += 1
                since += 1
                if largest < 0.9 * best_force:
                    best, best_force, since = walker.copy(), largest, 0
                if since >= PATIENCE and best_force < max_force:
                    break
    return best, best_force, steps
