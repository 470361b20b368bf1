import numpy as np
import pytest
from ase.build import bulk

from tace_al.analysis.force_constants import MODEL_DISPLACEMENT, from_displacements, from_hessian
from tace_al.analysis.phonons import phonons
from tace_al.analysis.supercells import crystal_lattice
from tace_al.engines.sampling.committee_potential import CommitteePotential
from tace_al.model.committee import Committee
from tace_al.model.tace import Tace


@pytest.fixture(scope="module")
def committee() -> Committee:
    """Return two untrained members, as different as two seeds."""
    members = [
        Tace.from_preset("tiny", elements=["Si", "C"], dtype="float64", cutoff=4.0, seed=seed)
        for seed in (1, 2)
    ]
    return Committee(members)


def test_displacements_and_analytic_hessian_agree(committee: Committee) -> None:
    atoms = bulk("SiC", "zincblende", a=4.36)
    lattice = crystal_lattice(atoms, (2, 2, 2))
    moved = from_displacements(
        lattice, atoms, CommitteePotential(committee), displacement=MODEL_DISPLACEMENT
    )
    analytic = from_hessian(lattice, atoms, committee)
    assert moved.members.shape == analytic.members.shape == (2, 2, 16, 3, 3)
    assert analytic.num_structures == 1 and moved.num_structures == 2
    first, second = (phonons(lattice, each, mesh=(3, 3, 3)) for each in (moved, analytic))
    for mine, other in zip(first.bands.frequencies, second.bands.frequencies, strict=True):
        clear = np.abs(other.members) > 0.1  # roots of rounding errors at Gamma
        np.testing.assert_allclose(mine.members[clear], other.members[clear], atol=1e-4)
    assert float(first.mesh_max.spread) > 1e-3
    assert first.bands.max_spread >= first.bands.rms_spread > 0.0


def test_sum_rules_are_imposed_where_wanted(committee: Committee) -> None:
    atoms = bulk("SiC", "zincblende", a=4.36)
    lattice = crystal_lattice(atoms, (2, 1, 1))
    potential = CommitteePotential(committee)
    raw = from_displacements(lattice, atoms, potential, displacement=0.05, symmetrise=False)
    done = from_displacements(lattice, atoms, potential, displacement=0.05)
    assert np.abs(done.mean.sum(axis=1)).max() < 1e-12
    np.testing.assert_allclose(raw.mean, done.mean, atol=10 * (raw.drift + 1e-3))
