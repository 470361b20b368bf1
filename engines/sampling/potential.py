"""What drives a sampler: anything that predicts energies and forces of several frames at once.

A committee answers with all its members; any ASE calculator answers as a committee of one, so every
sampler also runs on a labeller's own calculator.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from tace_al.model.prediction import Prediction


class Potential(ABC):
    """Predicts many frames in one call."""

    @abstractmethod
    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        """Return one prediction a frame, in order."""


@final
class CalculatorPotential(Potential):
    """Any ASE calculator as a committee of one.

    Parameters
    ----------
    calculator
        An ASE calculator with energy and forces (and stress, used when the frame is periodic).
    """

    def __init__(self, calculator: Calculator) -> None:
        self.calculator = calculator

    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        """Return one prediction a frame, computed one by one."""
        return [self._predict(atoms) for atoms in frames]

    def _predict(self, atoms: Atoms) -> Prediction:
        probe = atoms.copy()
        probe.set_constraint()
        probe.calc = self.calculator
        has_stress = "stress" in self.calculator.implemented_properties and atoms.pbc.all()
        return Prediction(
            member_energies=np.asarray([probe.get_potential_energy()]),
            member_forces=probe.get_forces()[None],
            stress=probe.get_stress(voigt=False) if has_stress else None,
        )
