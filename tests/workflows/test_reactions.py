"""The reference reactions: relaxed, ordered alike, and with the barriers they claim."""

import numpy as np
import pytest
from ase import Atoms

from tace_al.data.frames import fixed_mask, spin_multiplicity, total_charge
from tace_al.engines.labelling.catalogue import labeller_from_name
from tace_al.engines.labelling.emt import EMTLabeller
from tace_al.engines.labelling.guards import check_structure
from tace_al.engines.sampling.band_path import aligned
from tace_al.engines.sampling.labeller_potential import LabellerPotential
from tace_al.engines.sampling.neb import BandSettings, nudged_elastic_band
from tace_al.workflows.reactions import (
    BUILDERS,
    REFERENCE_BARRIERS,
    carbonic_acid,
    carbonic_acid_planar,
    carbonic_acid_water,
    chloride_exchange,
    hollow_site,
    malonaldehyde,
    neighbouring_hollow,
    oxygen_on_copper,
    surface_hop,
)

MOLECULES = sorted(set(BUILDERS) - {"surface_hop"})


def owner(atoms: Atoms, hydrogen: int) -> int:
    """Return the heavy atom nearest to a hydrogen."""
    distances = atoms.get_all_distances()[hydrogen]
    distances[atoms.numbers == 1] = np.inf
    return int(distances.argmin())


def height(atoms: Atoms) -> float:
    """Return how far the atoms spread across their best plane, in A."""
    return float(np.linalg.svd(atoms.positions - atoms.positions.mean(axis=0))[1][-1])


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_end_states_have_the_same_atoms_and_are_relaxed(name: str) -> None:
    initial, final = BUILDERS[name]()
    assert (initial.numbers == final.numbers).all()
    assert np.linalg.norm(final.positions - initial.positions, axis=1).max() > 0.5
    labeller = labeller_from_name("emt" if name == "surface_hop" else "gfn2")
    for atoms in (initial, final):
        assert spin_multiplicity(atoms) == 1
        forces = labeller.label(atoms).forces[~fixed_mask(atoms)]
        assert np.linalg.norm(forces, axis=1).max() < 0.01


@pytest.mark.parametrize("name", MOLECULES)
def test_end_states_are_aligned(name: str) -> None:
    initial, final = BUILDERS[name]()
    best = aligned(final.positions, initial.positions)
    np.testing.assert_allclose(final.positions, best, atol=1e-5)


def test_builders_and_references_go_together() -> None:
    assert set(BUILDERS) == set(REFERENCE_BARRIERS)


def test_every_call_returns_new_structures() -> None:
    carbonic_acid()[0].positions += 1.0
    assert abs(carbonic_acid()[0].positions).max() < 3.0


def test_only_the_chloride_is_charged() -> None:
    assert [total_charge(atoms) for atoms in chloride_exchange()] == [-1, -1]
    assert {total_charge(BUILDERS[name]()[0]) for name in BUILDERS} == {0, -1}


def test_bare_proton_goes_from_one_hydroxyl_to_the_other() -> None:
    initial, final = carbonic_acid()
    assert [owner(initial, 4), owner(initial, 5)] == [2, 3]
    assert [owner(final, 4), owner(final, 5)] == [3, 3]
    assert final.get_angle(1, 0, 2) > 175  # CO2
    assert final.get_distance(0, 3) > 2.4  # beside a free water


def test_water_takes_one_proton_and_gives_another() -> None:
    initial, final = carbonic_acid_water()
    before = [
        owner(initial, hydrogen) for hydrogen in range(4, 9) if initial.numbers[hydrogen] == 1
    ]
    after = [owner(final, hydrogen) for hydrogen in range(4, 9) if final.numbers[hydrogen] == 1]
    assert before == [2, 3, 6, 6]
    assert after == [6, 3, 6, 3]


def test_default_carbonic_acid_has_no_mirror_plane() -> None:
    assert height(carbonic_acid()[1]) > 0.1
    assert all(height(atoms) < 0.01 for atoms in carbonic_acid_planar())


def test_malonaldehyde_ends_are_mirror_images() -> None:
    initial, final = malonaldehyde()
    assert owner(initial, 5) == 0
    assert owner(final, 5) == 4
    swapped = final.get_all_distances()[np.ix_([4, 3, 2, 1, 0], [4, 3, 2, 1, 0])]
    np.testing.assert_allclose(initial.get_all_distances()[:5, :5], swapped, atol=2e-3)


def test_surface_hop_moves_oxygen_by_one_hollow() -> None:
    initial, final = surface_hop()
    moved = final.positions[-1] - initial.positions[-1]
    np.testing.assert_allclose(moved, initial.cell[0] / 2, atol=0.01)
    assert initial.pbc.tolist() == [True, True, False]
    assert fixed_mask(initial).sum() == 8
    held = fixed_mask(initial)
    np.testing.assert_array_equal(initial.positions[held], final.positions[held])


@pytest.mark.parametrize(
    "name",
    [
        "ammonia_inversion",
        "chloride_exchange",
        pytest.param("malonaldehyde", marks=pytest.mark.slow),
        pytest.param("formic_acid_dimer", marks=pytest.mark.slow),
        pytest.param("surface_hop", marks=pytest.mark.slow),
        pytest.param("carbonic_acid_water", marks=pytest.mark.slow),
        pytest.param("carbonic_acid", marks=pytest.mark.slow),
        pytest.param("carbonic_acid_planar", marks=pytest.mark.slow),
    ],
)
def test_band_on_the_labeller_gives_the_reference(name: str) -> None:
    initial, final = BUILDERS[name]()
    labeller = labeller_from_name("emt" if name == "surface_hop" else "gfn2")
    band = nudged_elastic_band(
        LabellerPotential(labeller), initial, final, settings=BandSettings(max_steps=300)
    )
    assert band.converged
    assert band.barrier == pytest.approx(REFERENCE_BARRIERS[name], abs=0.005)


@pytest.mark.slow
def test_rattled_band_leaves_the_planar_ridge() -> None:
    initial, final = carbonic_acid_planar()
    band = nudged_elastic_band(
        LabellerPotential(labeller_from_name("gfn2")),
        initial,
        final,
        settings=BandSettings(rattle=0.05, seed=0),
    )
    assert band.barrier == pytest.approx(REFERENCE_BARRIERS["carbonic_acid"], abs=0.005)


def test_the_neighbouring_hollow_is_the_same_slab() -> None:
    atoms = hollow_site()
    movable = ~fixed_mask(atoms)
    atoms.positions[movable] += np.random.default_rng(0).normal(scale=0.05, size=(5, 3))
    hopped = neighbouring_hollow(atoms)
    # the same structure moved: the same energy, and every atom near its own site
    calculated = [EMTLabeller().label(state).energy for state in (atoms, hopped)]
    assert calculated[0] == pytest.approx(calculated[1], abs=1e-9)
    assert np.linalg.norm(hopped.positions - atoms.positions, axis=1)[:-1].max() < 0.4
    stored = oxygen_on_copper()
    for state in stored:
        check_structure(state)
    assert neighbouring_hollow(stored[0]).positions == pytest.approx(stored[1].positions, abs=1e-6)
