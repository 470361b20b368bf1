"""Constants against ASE's, which come from CODATA independently."""

import pytest
from ase import units as ase_units

from tace_al.core import units


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (units.HARTREE, ase_units.Hartree),
        (units.BOHR, ase_units.Bohr),
        (units.BOLTZMANN, ase_units.kB),
        (units.COULOMB_CONSTANT, ase_units.Hartree * ase_units.Bohr),
        (units.GPA, ase_units.GPa),
        (units.KCAL_PER_MOL, ase_units.kcal / ase_units.mol),
    ],
)
def test_constants_agree_with_ase(ours: float, theirs: float) -> None:
    assert ours == pytest.approx(theirs, rel=1e-6)  # ASE: CODATA 2014
