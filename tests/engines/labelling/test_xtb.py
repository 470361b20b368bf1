import pickle
from importlib import metadata

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from tace_al.core.errors import LabelFailed, LabellerMissing
from tace_al.data.frames import CHARGE, MULTIPLICITY, structure_key
from tace_al.engines.labelling import xtb
from tace_al.engines.labelling.xtb import XTBLabeller


def displaced_energy(
    labeller: XTBLabeller, atoms: Atoms, index: int, axis: int, by: float
) -> float:
    moved = atoms.copy()
    moved.positions[index, axis] += by
    return labeller.label(moved).energy


def test_water_agrees_with_the_number_in_tblite_documentation() -> None:
    label = XTBLabeller(method="gfn2").label(molecule("H2O"))
    assert label.energy == pytest.approx(-137.96777594, abs=1e-4)
    assert label.stress is None
    assert label.structure_key == structure_key(molecule("H2O"))


def test_gfn1_and_gfn2_are_different_levels() -> None:
    one, two = XTBLabeller(method="gfn1"), XTBLabeller(method="gfn2")
    assert one.fidelity.key != two.fidelity.key
    assert one.label(molecule("H2O")).energy == pytest.approx(-156.967506, abs=1e-4)


def test_forces_are_the_negative_gradient() -> None:
    labeller = XTBLabeller(accuracy=0.01)
    atoms = molecule("CH3OH")
    atoms.rattle(0.05, seed=1)
    forces = labeller.label(atoms).forces
    for index, axis in [(0, 0), (3, 1), (5, 2)]:
        up = displaced_energy(labeller, atoms, index, axis, 1e-3)
        down = displaced_energy(labeller, atoms, index, axis, -1e-3)
        assert forces[index, axis] == pytest.approx(-(up - down) / 2e-3, abs=1e-4)
    assert np.allclose(forces.sum(axis=0), 0.0, atol=1e-6)


def test_stress_is_the_strain_derivative() -> None:
    labeller = XTBLabeller(method="gfn1", accuracy=0.1)
    atoms = bulk("C", "diamond", a=3.5)
    atoms.rattle(0.03, seed=2)
    stress = labeller.label(atoms).stress
    assert stress is not None
    energies = []
    for strain in (1e-3, -1e-3):
        strained = atoms.copy()
        strained.set_cell(
            atoms.cell.array @ (np.eye(3) + np.diag([strain, 0, 0])), scale_atoms=True
        )
        energies.append(labeller.label(strained).energy)
    numerical = (energies[0] - energies[1]) / 2e-3 / atoms.get_volume()
    assert stress[0, 0] == pytest.approx(numerical, abs=1e-4)
    assert np.allclose(stress, stress.T)


def test_charge_and_multiplicity_come_from_the_structure() -> None:
    labeller = XTBLabeller()
    oxygen = molecule("O2")
    oxygen.info[MULTIPLICITY] = 3
    singlet = oxygen.copy()
    singlet.info[MULTIPLICITY] = 1
    assert labeller.label(oxygen).energy != pytest.approx(labeller.label(singlet).energy, abs=0.01)
    hydroxide = molecule("OH")
    hydroxide.info[CHARGE] = -1
    assert labeller.label(hydroxide).energy < labeller.label(molecule("OH")).energy


@pytest.mark.parametrize("name", ["O2", "H2CO", "N2"])
def test_stretched_closed_shells_converge_whatever_the_rung(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    atoms = molecule(name)
    atoms.positions *= 2.5
    atoms.info[MULTIPLICITY] = 1
    energy = XTBLabeller().label(atoms).energy
    later_rungs = xtb._SCF_LADDER[2:]
    monkeypatch.setattr(xtb, "_SCF_LADDER", later_rungs)
    assert XTBLabeller().label(atoms).energy == pytest.approx(energy, abs=1e-5)


def test_no_convergence_is_a_failure_with_its_kind() -> None:
    with pytest.raises(LabelFailed, match="did not converge") as caught:
        XTBLabeller(max_iterations=1).label(molecule("H2O"))
    assert caught.value.kind == "convergence"


def test_failures_name_their_kind() -> None:
    overlapping = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0]])
    with pytest.raises(LabelFailed) as caught:
        XTBLabeller().label(overlapping)
    assert caught.value.kind == "contact"
    with pytest.raises(LabelFailed) as caught:
        XTBLabeller().label(Atoms("Am", positions=[[0, 0, 0]]))
    assert caught.value.kind == "elements"
    flat = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.74]], cell=[4, 4, 0], pbc=[1, 1, 0])
    with pytest.raises(LabelFailed) as caught:
        XTBLabeller().label(flat)
    assert caught.value.kind == "cell"


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_found(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", not_found)
    with pytest.raises(LabellerMissing, match="pip install tblite"):
        XTBLabeller().label(molecule("H2O"))


def test_everything_that_changes_a_number_is_in_the_fidelity() -> None:
    reference = XTBLabeller().fidelity.key
    assert XTBLabeller(accuracy=0.1).fidelity.key != reference
    assert XTBLabeller(electronic_temperature=1000).fidelity.key != reference
    assert XTBLabeller(max_iterations=99).fidelity.key == reference
    assert pickle.loads(pickle.dumps(XTBLabeller())).fidelity.key == reference


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="accuracy"):
        XTBLabeller(accuracy=0.0)
