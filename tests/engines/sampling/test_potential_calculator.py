import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from tace_al.engines.labelling.catalogue import labeller_from_name
from tace_al.engines.sampling.labeller_potential import LabellerPotential
from tace_al.engines.sampling.potential_calculator import PotentialCalculator


def test_a_potential_answers_like_the_calculator_behind_it() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=0)
    calculator = PotentialCalculator(LabellerPotential(labeller_from_name("emt")))
    atoms.calc = calculator
    energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    assert calculator.num_calls == 1
    assert calculator.prediction is not None
    assert calculator.prediction.energy == energy
    atoms.calc = EMT()
    assert energy == pytest.approx(atoms.get_potential_energy())
    assert np.allclose(forces, atoms.get_forces())
    assert np.allclose(stress, atoms.get_stress())
