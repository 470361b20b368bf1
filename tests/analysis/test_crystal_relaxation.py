import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from tace_al.analysis.crystal_relaxation import relax_crystal
from tace_al.core.errors import SamplerError
from tace_al.engines.sampling.potential import CalculatorPotential


def test_copper_reaches_its_lattice_constant_from_either_cell() -> None:
    """EMT copper has its minimum at 3.5898 A; the energy there is level to the last digit."""
    potential = CalculatorPotential(EMT())
    found = [relax_crystal(potential, bulk("Cu", a=3.5, cubic=cubic)) for cubic in (True, False)]
    constants = [found[0].atoms.cell.lengths()[0], found[1].atoms.cell.lengths()[0] * np.sqrt(2.0)]
    assert constants[0] == pytest.approx(3.58983, abs=1e-4)
    assert constants[0] == pytest.approx(constants[1], abs=1e-7)
    for relaxation in found:
        assert relaxation.max_force < 1e-7 and relaxation.max_stress < 1e-7
        assert relaxation.atoms.calc is None and not relaxation.atoms.constraints


def test_noise_ends_a_relaxation_and_too_few_steps_are_an_error() -> None:
    potential = CalculatorPotential(EMT())
    with pytest.raises(SamplerError, match="does not relax"):
        relax_crystal(potential, bulk("Cu", a=3.4), max_steps=1)
