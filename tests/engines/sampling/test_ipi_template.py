import numpy as np
import pytest
from ase.build import bulk, molecule

from tace_al.core.errors import SamplerError
from tace_al.engines.sampling.ipi_template import refuse_reordered


def test_a_sorted_template_is_noticed_wherever_the_server_puts_the_molecule() -> None:
    water = molecule("H2O")
    sent = water.positions + 3.0
    refuse_reordered(water, sent)
    with pytest.raises(SamplerError, match=r"atom 0 .* template has atom 2 \(O\), .* is H; give"):
        refuse_reordered(water[[1, 2, 0]], sent)


def test_equal_atoms_may_change_places_and_crystals_may_lie_anywhere() -> None:
    water = molecule("H2O")
    refuse_reordered(water[[0, 2, 1]], water.positions)
    salt = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    order = np.argsort(salt.numbers, kind="stable")
    with pytest.raises(SamplerError, match="in the same order"):
        refuse_reordered(salt[order], salt.positions)


def test_a_structure_that_has_moved_on_proves_nothing() -> None:
    water = molecule("H2O")
    refuse_reordered(water[[1, 2, 0]], water.positions * 1.8)
