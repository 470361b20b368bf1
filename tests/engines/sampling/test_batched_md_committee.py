"""Batched dynamics on a committee: one evaluation a step for all, its doubt included."""

from collections.abc import Sequence

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.md.verlet import VelocityVerlet

from tace_al.engines.sampling import committee_potential
from tace_al.engines.sampling.batched_md import BatchedDynamics
from tace_al.engines.sampling.committee_potential import CommitteePotential
from tace_al.engines.sampling.integrators import ConstantEnergy, Langevin
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.potential_calculator import PotentialCalculator
from tace_al.engines.sampling.walkers import UncertaintyAbove, Walker
from tace_al.model.committee import Committee
from tace_al.model.prediction import Prediction
from tace_al.model.tace import Tace


@pytest.fixture(scope="module")
def committee() -> Committee:
    return Committee(
        [
            Tace.from_preset("tiny", elements=["H", "C", "O", "Cu"], dtype="float64", seed=seed)
            for seed in (1, 2)
        ]
    )


def walkers() -> list[Walker]:
    """Return walkers that are not alike."""
    stop = (UncertaintyAbove(limit=1e3),)
    return [
        Walker(molecule("CH3OH"), steps=12, seed=1),
        Walker(molecule("H2O"), steps=5, temperature=600.0, seed=2, stops=stop),
        Walker(bulk("Cu", cubic=True), steps=12, seed=3),
        Walker(Atoms("O"), steps=8, seed=4),
    ]


class Counted(Potential):
    """Counts what it passes on."""

    def __init__(self, potential: Potential) -> None:
        self.potential = potential
        self.asked: list[int] = []

    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        self.asked.append(len(frames))
        return self.potential.predict(frames)


def test_walkers_go_alone_as_in_company(committee: Committee) -> None:
    potential = Counted(CommitteePotential(committee, skin=0.5))
    together = BatchedDynamics(potential, walkers(), record_every=4).run()
    assert potential.asked == [4] * 6 + [3] * 3 + [2] * 4
    for walker, ours in zip(walkers(), together, strict=True):
        fresh = CommitteePotential(committee)
        (alone,) = BatchedDynamics(fresh, [walker], record_every=4).run()
        assert np.abs(alone.final.positions - ours.final.positions).max() < 1e-11
        assert alone.max_uncertainty == pytest.approx(ours.max_uncertainty, rel=1e-8)


def test_the_doubt_of_each_step_is_that_of_the_committee(committee: Committee) -> None:
    potential = CommitteePotential(committee, skin=0.5)
    trajectories = BatchedDynamics(potential, walkers(), record_every=1).run()
    for walk in trajectories:
        seen = [0.0]
        for frame in walk.frames:
            (fresh,) = committee.predict([frame])
            assert frame.info["energy"] == pytest.approx(fresh.energy, rel=1e-12)
            assert np.allclose(frame.arrays["forces"], fresh.forces, atol=1e-12)
            assert frame.info["uncertainty"] == pytest.approx(fresh.force_spread.max(), abs=1e-12)
            seen.append(frame.info["uncertainty"])
        assert walk.max_uncertainty >= max(seen)
    assert trajectories[0].max_uncertainty > 1e-3


def test_neighbour_lists_serve_many_steps(committee: Committee) -> None:
    potential = CommitteePotential(committee, skin=0.8)
    BatchedDynamics(potential, walkers(), Langevin(friction=0.01)).run()
    assert 4 <= potential.num_neighbour_lists < 10  # of 38


def test_pieces_of_a_large_batch_say_the_same(
    committee: Committee, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [walker.atoms for walker in walkers()]
    whole = CommitteePotential(committee, skin=0.5).predict(frames)
    monkeypatch.setattr(committee_potential, "MAXIMUM_EDGES", 40)
    pieces = CommitteePotential(committee, skin=0.5).predict(frames)
    for one, other in zip(whole, pieces, strict=True):
        assert np.allclose(one.member_energies, other.member_energies, rtol=1e-12)
        assert np.allclose(one.member_forces, other.member_forces, atol=1e-11)
    assert CommitteePotential(committee, skin=0.5).predict([]) == []


@pytest.mark.slow
def test_constant_energy_under_a_skin_goes_as_in_ase_with_fresh_lists() -> None:
    model = Tace.from_preset("tiny", elements=["H", "C", "O"], dtype="float64", seed=0)
    starts = [molecule("CH3OH"), molecule("H2O"), molecule("CO2")]
    box = molecule("H2O", cell=[4.2, 4.5, 5.0], pbc=True)  # meets its own images
    for seed, atoms in enumerate([*starts, box]):
        rng = np.random.default_rng(seed)
        atoms.set_momenta(0.3 * rng.standard_normal((len(atoms), 3)))
    potential = CommitteePotential(Committee([model]), skin=0.3)
    walkers = [Walker(atoms, steps=60) for atoms in (*starts, box)]
    trajectories = BatchedDynamics(potential, walkers, ConstantEnergy(), timestep_fs=1.0).run()
    assert 4 < potential.num_neighbour_lists < 100  # of 244
    for atoms, ours in zip((*starts, box), trajectories, strict=True):
        atoms.calc = PotentialCalculator(CommitteePotential(Committee([model])))
        VelocityVerlet(atoms, 1.0 * units.fs).run(60)
        assert np.abs(ours.final.positions - atoms.positions).max() < 1e-10
