import pytest
from ase.data import chemical_symbols

from tace_al.core.errors import StructureError
from tace_al.engines.labelling.guards import check_structure
from tace_al.engines.labelling.isolated import ground_state_multiplicity, isolated_atom
from tace_al.engines.labelling.xtb import XTBLabeller


@pytest.mark.parametrize("symbol", chemical_symbols[1:87])
def test_every_multiplicity_fits_the_electron_count(symbol: str) -> None:
    check_structure(isolated_atom(symbol))


@pytest.mark.parametrize(
    ("symbol", "multiplicity"),
    [("Fe", 5), ("Ni", 3), ("Mo", 7), ("Pd", 1), ("Gd", 9), ("W", 5), ("Au", 2), ("Pb", 3)],
)
def test_known_ground_states(symbol: str, multiplicity: int) -> None:
    assert ground_state_multiplicity(symbol) == multiplicity


def test_no_such_element_suggests_the_nearest() -> None:
    with pytest.raises(StructureError, match="H to Rn"):
        isolated_atom("U")
    with pytest.raises(StructureError, match="Did you mean"):
        isolated_atom("Cuu")


@pytest.mark.parametrize("symbol", ["H", "C", "N", "O", "Cl", "Cu"])
def test_atoms_can_be_labelled(symbol: str) -> None:
    assert XTBLabeller().label(isolated_atom(symbol)).energy < 0
