import numpy as np
import pytest
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT

from tace_al.core.errors import LabelFailed
from tace_al.data.frames import CHARGE
from tace_al.engines.labelling.emt import EMTLabeller


def test_agrees_with_ase_and_ignores_constraints() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=0)
    label = EMTLabeller().label(atoms)
    atoms.calc = EMT()
    assert label.energy == pytest.approx(atoms.get_potential_energy())
    assert np.allclose(label.forces, atoms.get_forces())
    assert label.stress is not None
    assert np.allclose(label.stress, atoms.get_stress(voigt=False))


def test_a_slab_has_no_stress() -> None:
    assert EMTLabeller().label(fcc111("Pt", (2, 2, 2), vacuum=5.0)).stress is None


def test_elements_outside_its_set_are_named() -> None:
    with pytest.raises(LabelFailed, match="no parameters for Cl") as caught:
        EMTLabeller().label(molecule("CH3Cl"))
    assert caught.value.kind == "elements"


def test_a_charge_is_refused() -> None:
    atoms = bulk("Cu")
    atoms.info[CHARGE] = 1
    with pytest.raises(LabelFailed, match="knows no charge"):
        EMTLabeller().label(atoms)
