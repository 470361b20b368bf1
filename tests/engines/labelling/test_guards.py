import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from tace_al.core.errors import StructureError
from tace_al.core.labels import Label
from tace_al.data.frames import CHARGE, MULTIPLICITY, structure_key
from tace_al.engines.labelling.guards import check_structure, label_problem, structure_problem


def kind_of(atoms: Atoms) -> str | None:
    problem = structure_problem(atoms)
    return None if problem is None else problem.kind


def label_of(atoms: Atoms, **changes: object) -> Label:
    content = {
        "structure_key": structure_key(atoms),
        "fidelity_key": "f",
        "energy": -1.0,
        "forces": np.zeros((len(atoms), 3)),
        **changes,
    }
    return Label(**content)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["H2", "N2", "HF", "C2H2", "LiH", "CH3CH2OH", "SiH4", "Na2"])
def test_real_molecules_pass(name: str) -> None:
    assert structure_problem(molecule(name)) is None


def test_real_solids_pass() -> None:
    for atoms in (bulk("Cu"), bulk("NaCl", "rocksalt", a=5.64), fcc111("Pt", (1, 1, 3))):
        assert structure_problem(atoms) is None


def test_overlap_is_named_with_both_atoms() -> None:
    atoms = molecule("H2O")
    atoms.positions[1] = atoms.positions[0] + [0, 0, 0.15]
    with pytest.raises(StructureError, match=r"0 \(O\) and 1 \(H\) are 0.15 A apart"):
        check_structure(atoms)


def test_overlap_is_found_across_the_cell_border() -> None:
    atoms = Atoms("Cu2", positions=[[0, 0, 0.1], [0, 0, 9.9]], cell=[10, 10, 10], pbc=True)
    assert kind_of(atoms) == "contact"
    atoms.pbc = False
    assert kind_of(atoms) is None


def test_an_atom_overlapping_its_own_image_is_found() -> None:
    assert kind_of(Atoms("Cu", cell=[1, 5, 5], pbc=True)) == "contact"


def test_odd_electrons_and_a_singlet_do_not_go_together() -> None:
    atoms = molecule("OH")
    atoms.info[MULTIPLICITY] = 1
    with pytest.raises(StructureError, match=r"9 electrons.*multiplicity 1; use one of 2, 4, 6"):
        check_structure(atoms)
    atoms.info[CHARGE] = -1
    check_structure(atoms)


@pytest.mark.parametrize("multiplicity", [0, -1, 5])
def test_impossible_multiplicities_of_hydrogen(multiplicity: int) -> None:
    atoms = molecule("H2")
    atoms.info[MULTIPLICITY] = multiplicity
    assert kind_of(atoms) == "parity"


def test_a_charge_beyond_the_electrons_is_refused() -> None:
    proton = Atoms("H")
    proton.info[CHARGE] = 1
    assert kind_of(proton) is None
    proton.info[CHARGE] = 2
    assert kind_of(proton) == "parity"


def test_periodic_without_a_cell_is_refused() -> None:
    atoms = Atoms("Cu", pbc=True)
    with pytest.raises(StructureError, match="give it a cell"):
        check_structure(atoms)
    assert kind_of(Atoms("Cu", cell=[3, 3, 0], pbc=True)) == "cell"
    assert kind_of(Atoms("Cu", cell=[3, 3, 0], pbc=[True, True, False])) is None
    assert kind_of(Atoms("Cu", cell=[[3, 0, 0], [3, 0, 0], [0, 0, 3]], pbc=True)) == "cell"


def test_empty_unknown_and_not_finite() -> None:
    assert kind_of(Atoms()) == "empty"
    assert kind_of(Atoms("X")) == "elements"
    atoms = molecule("H2O")
    atoms.positions[2, 1] = np.nan
    assert kind_of(atoms) == "nonfinite"


def test_a_good_label_passes() -> None:
    atoms = molecule("H2O")
    assert label_problem(atoms, label_of(atoms)) is None


def test_bad_labels_are_named() -> None:
    atoms = molecule("H2O")
    huge = np.zeros((3, 3))
    huge[1, 2] = -51.0
    cases = {
        "nonfinite": [{"energy": np.nan}, {"forces": np.full((3, 3), np.inf)}],
        "shape": [
            {"forces": np.zeros((2, 3))},
            {"stress": np.zeros(6)},
            {"dipole": np.zeros((1, 3))},
        ],
        "force_ceiling": [{"forces": huge}],
        "geometry": [{"structure_key": "another"}],
    }
    for kind, changes in cases.items():
        for change in changes:
            problem = label_problem(atoms, label_of(atoms, **change))
            assert problem is not None
            assert problem.kind == kind
    assert label_problem(atoms, label_of(atoms, forces=huge), force_ceiling=60.0) is None
