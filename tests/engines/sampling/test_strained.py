import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from tace_al.core.errors import ConfigError
from tace_al.engines.sampling.catalogue import sampler_from_name
from tace_al.engines.sampling.potential import CalculatorPotential
from tace_al.engines.sampling.sampler import Thresholds
from tace_al.engines.sampling.strained import strained_copies


def test_copies_are_strained_and_rattled_within_bounds() -> None:
    crystal = bulk("Cu", cubic=True)
    crystal.set_constraint(FixAtoms([0]))
    copies = strained_copies(crystal, 40, strain=0.03, displacement=0.05, seed=3)
    strains, sizes = [], []
    for copy in copies:
        deformation = np.linalg.solve(crystal.cell.array, copy.cell.array)
        strains.append(deformation - np.eye(3))
        np.testing.assert_allclose(deformation, deformation.T, atol=1e-12)
        moved = copy.positions - crystal.positions @ deformation
        np.testing.assert_allclose(moved[0], 0.0, atol=1e-12)
        sizes.append(moved[1:].std())
    assert 0.01 < np.abs(strains).max() <= 0.03
    assert min(sizes) < 0.02 < max(sizes) < 0.1
    again = strained_copies(crystal, 40, strain=0.03, displacement=0.05, seed=3)
    np.testing.assert_array_equal(copies[7].positions, again[7].positions)


def test_a_chunk_keeps_what_is_not_broken_and_stays_where_it_was() -> None:
    crystal = bulk("Cu", cubic=True)
    sampler = sampler_from_name(
        "strained",
        {"frames": 5, "displacement": 0.05},
        potential=CalculatorPotential(EMT()),
        thresholds=Thresholds(low=0.1, high=1.0),
        seed=1,
    )
    chunk = sampler.run(crystal)
    assert chunk.outcome == "known" and len(chunk.known) == 5  # one member: no spread
    np.testing.assert_array_equal(chunk.final.positions, crystal.positions)
    with pytest.raises(ConfigError, match="at least one frame"):
        sampler_from_name(
            "strained",
            {"frames": 0},
            potential=CalculatorPotential(EMT()),
            thresholds=Thresholds(low=0.1, high=1.0),
            seed=1,
        )
