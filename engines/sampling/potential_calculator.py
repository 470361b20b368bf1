"""A `Potential` behind ASE's calculator interface, so that it can drive ASE's integrators."""

from collections.abc import Sequence
from typing import Any, final

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from tace_al.engines.sampling.potential import Potential
from tace_al.model.prediction import Prediction


@final
class PotentialCalculator(Calculator):
    """Energy and forces (stress where predicted) of one frame a call; keeps the last prediction.

    Parameters
    ----------
    potential
        What predicts.

    Attributes
    ----------
    prediction
        The last `Prediction`, None before the first.
    num_calls
        How often the potential was asked.
    """

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012 (ASE's own interface)

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential
        self.prediction: Prediction | None = None
        self.num_calls = 0

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Ask the potential about `atoms` (called by ASE, which caches by geometry)."""
        super().calculate(atoms, properties, system_changes)
        prediction = self.potential.predict([self.atoms])[0]
        self.num_calls += 1
        self.prediction = prediction
        results: dict[str, Any] = {"energy": prediction.energy, "forces": prediction.forces}
        if prediction.stress is not None:
            stress = prediction.stress
            results["stress"] = stress.flat[[0, 4, 8, 5, 2, 1]]
        self.results = results
