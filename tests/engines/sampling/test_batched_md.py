"""Batched dynamics: each walker goes as ASE would take it, alone or in any company."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixBondLength
from ase.md.verlet import VelocityVerlet

from tace_al.core.errors import ConfigError, SamplerError, StructureError
from tace_al.engines.sampling.batched_md import BatchedDynamics
from tace_al.engines.sampling.integrators import (
    ConstantEnergy,
    Integrator,
    Langevin,
    NoseHooverChain,
)
from tace_al.engines.sampling.potential import CalculatorPotential, Potential
from tace_al.engines.sampling.walkers import (
    Snapshot,
    Stop,
    Trajectory,
    UncertaintyAbove,
    Unphysical,
    Walker,
)
from tace_al.model.calculator import TaceCalculator
from tace_al.model.prediction import Prediction
from tace_al.model.tace import Tace

INTEGRATORS = [ConstantEnergy(), Langevin(friction=0.02), NoseHooverChain(period_fs=40.0)]


class Wells(Potential):
    """Each atom in a harmonic well at the origin; the second of two members is stiffer."""

    def __init__(self, stiffness: float = 2.0, doubt: float = 0.0) -> None:
        self.stiffness = stiffness + doubt * np.array([-1.0, 1.0])
        self.asked: list[int] = []

    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        self.asked.append(len(frames))
        return [
            Prediction(
                member_energies=0.5 * self.stiffness * (atoms.positions**2).sum(),
                member_forces=-self.stiffness[:, None, None] * atoms.positions,
            )
            for atoms in frames
        ]


def emt() -> Potential:
    return CalculatorPotential(EMT())


def slab() -> Atoms:
    atoms = fcc111("Cu", (2, 2, 3), vacuum=6.0)
    atoms.set_constraint(FixAtoms(indices=range(4)))
    atoms.rattle(0.05, seed=1)
    return atoms


def crystal() -> Atoms:
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.rattle(0.05, seed=2)
    return atoms


def heated(atoms: Atoms, seed: int = 3) -> Atoms:
    """Give an ordinary Maxwell-Boltzmann start."""
    rng = np.random.default_rng(seed)
    widths = np.sqrt(atoms.get_masses() * units.kB * 500.0)[:, None]
    atoms.set_momenta(widths * rng.standard_normal((len(atoms), 3)))  # fixed atoms get none
    return atoms


def company() -> list[Walker]:
    """Return walkers that differ in everything."""
    return [
        Walker(crystal(), steps=12, temperature=300.0, seed=1),
        Walker(slab(), steps=20, temperature=600.0, seed=2),
        Walker(molecule("CH3OH"), steps=7, temperature=100.0, temperature_end=400.0, seed=3),
        Walker(molecule("N2"), steps=15, temperature=300.0, seed=4),
        Walker(crystal(), steps=12, temperature=300.0, seed=5),
    ]


def assert_same(one: Trajectory, other: Trajectory, atol: float = 0.0) -> None:
    assert (one.outcome, one.reason, one.steps) == (other.outcome, other.reason, other.steps)
    assert np.allclose(one.final.positions, other.final.positions, rtol=0.0, atol=atol)
    assert np.allclose(one.final.get_momenta(), other.final.get_momenta(), rtol=0.0, atol=atol)
    assert one.max_uncertainty == pytest.approx(other.max_uncertainty, abs=atol)
    assert len(one.frames) == len(other.frames)
    for mine, theirs in zip(one.frames, other.frames, strict=True):
        assert np.allclose(mine.positions, theirs.positions, rtol=0.0, atol=atol)
        assert mine.info["step"] == theirs.info["step"]
        assert mine.info["conserved"] == pytest.approx(theirs.info["conserved"], rel=1e-12)


@pytest.mark.parametrize("build", [crystal, slab, lambda: molecule("CH3OH")])
def test_constant_energy_goes_as_in_ase(build) -> None:  # type: ignore[no-untyped-def]
    atoms = heated(build())
    (ours,) = BatchedDynamics(
        emt(), [Walker(atoms, steps=60)], ConstantEnergy(), timestep_fs=1.5
    ).run()
    atoms.calc = EMT()
    VelocityVerlet(atoms, 1.5 * units.fs).run(60)
    assert np.abs(ours.final.positions - atoms.positions).max() < 1e-11
    assert np.abs(ours.final.get_momenta() - atoms.get_momenta()).max() < 1e-10


@pytest.mark.slow
def test_constant_energy_goes_as_in_ase_on_a_network() -> None:
    model = Tace.from_preset("tiny", elements=["H", "C", "O"], dtype="float64", seed=0)
    frames = [heated(molecule(name), seed) for seed, name in enumerate(("CH3OH", "H2O", "CO2"))]
    potential = CalculatorPotential(TaceCalculator(model))
    walkers = [Walker(atoms, steps=50) for atoms in frames]
    trajectories = BatchedDynamics(potential, walkers, ConstantEnergy(), timestep_fs=0.5).run()
    for atoms, ours in zip(frames, trajectories, strict=True):
        atoms.calc = TaceCalculator(model)
        VelocityVerlet(atoms, 0.5 * units.fs).run(50)
        assert np.abs(ours.final.positions - atoms.positions).max() < 1e-11


@pytest.mark.parametrize("integrator", INTEGRATORS, ids=lambda item: type(item).__name__)
def test_energy_is_kept_with_that_of_the_bath(integrator: Integrator) -> None:
    def drift(timestep_fs: float) -> float:
        steps = round(60.0 / timestep_fs)
        walkers = [Walker(heated(crystal()), steps=steps), Walker(heated(slab()), steps=steps)]
        trajectories = BatchedDynamics(
            emt(), walkers, integrator, timestep_fs=timestep_fs, record_every=1
        ).run()
        kept = [[frame.info["conserved"] for frame in walk.frames] for walk in trajectories]
        return float(np.ptp(kept, axis=1).max())

    coarse, fine = drift(4.0), drift(2.0)
    assert coarse < 0.02  # eV; kinetic energies are near 0.5 and change as much
    assert fine < 0.4 * coarse  # second order


@pytest.mark.parametrize("integrator", INTEGRATORS, ids=lambda item: type(item).__name__)
def test_a_walker_goes_alone_as_in_company(integrator: Integrator) -> None:
    walkers = company()
    together = BatchedDynamics(emt(), walkers, integrator, record_every=5).run()
    for walker, ours in zip(walkers, together, strict=True):
        (alone,) = BatchedDynamics(emt(), [walker], integrator, record_every=5).run()
        assert_same(ours, alone, atol=1e-12)
    backwards = BatchedDynamics(emt(), walkers[::-1], integrator, record_every=5).run()
    for ours, theirs in zip(together, backwards[::-1], strict=True):
        assert_same(ours, theirs, atol=1e-12)


def test_the_seed_decides_momenta_and_noise() -> None:
    walkers = [Walker(crystal(), steps=5, seed=seed) for seed in (1, 1, 2)]
    one, same, other = BatchedDynamics(emt(), walkers).run()
    assert_same(one, same)
    assert np.abs(one.final.positions - other.final.positions).max() > 1e-3


def test_starts_are_left_as_they_are() -> None:
    atoms = heated(slab())
    before = atoms.copy()
    BatchedDynamics(emt(), [Walker(atoms, steps=5)]).run()
    assert atoms == before
    assert np.array_equal(atoms.get_momenta(), before.get_momenta())


@pytest.mark.parametrize("integrator", INTEGRATORS, ids=lambda item: type(item).__name__)
def test_fixed_atoms_do_not_move_and_others_do(integrator: Integrator) -> None:
    start = slab()
    (walk,) = BatchedDynamics(
        emt(), [Walker(start, steps=20, seed=1)], integrator, record_every=10
    ).run()
    assert np.array_equal(walk.final.positions[:4], start.positions[:4])
    assert not walk.final.get_momenta()[:4].any()
    assert np.abs(walk.final.positions[4:] - start.positions[4:]).min() > 0.0
    for atoms in (walk.final, *walk.frames):
        assert np.array_equal(atoms.constraints[0].index, np.arange(4))


def test_masses_are_those_of_the_atoms() -> None:
    heavy = molecule("N2")
    heavy.set_masses([20.0, 40.0])
    heavy.set_momenta([[0.0, 0.0, 2.0], [0.0, 0.0, -2.0]])
    (walk,) = BatchedDynamics(
        Wells(stiffness=0.0), [Walker(heavy, steps=10)], ConstantEnergy(), timestep_fs=1.0
    ).run()
    moved = walk.final.positions - heavy.positions
    assert np.allclose(moved[:, 2], 10.0 * units.fs * np.array([0.1, -0.05]))
    assert walk.final.get_masses().tolist() == [20.0, 40.0]


@pytest.mark.parametrize("integrator", INTEGRATORS, ids=lambda item: type(item).__name__)
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    integrator: Integrator, tmp_path: Path
) -> None:
    def dynamics() -> BatchedDynamics:
        stops = (UncertaintyAbove(limit=0.5), Unphysical())
        walkers = [
            Walker(crystal(), steps=30, seed=1),
            Walker(molecule("CH3OH"), steps=8, seed=2, stops=stops),
            Walker(slab(), steps=25, temperature=300.0, temperature_end=500.0, seed=3),
        ]
        return BatchedDynamics(emt(), walkers, integrator, record_every=4)

    whole = dynamics().run()
    first = dynamics()
    first.run(11)
    np.savez(tmp_path / "state.npz", **first.state())
    second = dynamics()
    with np.load(tmp_path / "state.npz", allow_pickle=False) as state:
        second.restore(state)
    assert second.num_moving == first.num_moving == 2
    for ours, theirs in zip(second.run(), whole, strict=True):
        assert_same(ours, theirs)


def test_a_state_of_something_else_is_refused() -> None:
    state = BatchedDynamics(emt(), company()).state()
    with pytest.raises(SamplerError, match="other walkers"):
        BatchedDynamics(emt(), company()[1:]).restore(state)
    with pytest.raises(SamplerError, match=r"at 2\.0 fs"):
        BatchedDynamics(emt(), company(), timestep_fs=2.0).restore(state)


def test_finished_walkers_are_not_asked_about() -> None:
    potential = Wells()
    walkers = [Walker(Atoms("H"), steps=steps, seed=steps) for steps in (1, 3, 4)]
    BatchedDynamics(potential, walkers).run()
    assert potential.asked == [3, 3, 2, 2, 1]


def test_doubt_stops_one_walker_and_brings_its_frame_home() -> None:
    walkers = [
        Walker(Atoms("Ar", positions=[[0.1, 0, 0]]), steps=100, seed=seed, stops=stops)
        for seed, stops in ((1, (UncertaintyAbove(limit=0.2, scale=2.0),)), (2, ()))
    ]
    doubtful, other = BatchedDynamics(
        Wells(doubt=1.0), walkers, timestep_fs=5.0, record_every=10
    ).run()
    assert (other.outcome, other.steps, other.trigger) == ("done", 100, None)
    assert other.max_uncertainty > 0.1
    assert doubtful.outcome == "stopped"
    assert "eV/A is above 0.20" in doubtful.reason
    assert doubtful.trigger is not None
    assert doubtful.trigger.info["step"] == doubtful.steps < 100
    assert doubtful.trigger.info["reason"] == doubtful.reason
    assert doubtful.trigger.info["uncertainty"] == doubtful.max_uncertainty > 0.1
    assert np.array_equal(doubtful.trigger.positions, doubtful.final.positions)
    assert all(frame.info["uncertainty"] <= 0.1 for frame in doubtful.frames)


def test_any_callable_can_stop_a_walker() -> None:
    seen: list[Snapshot] = []

    def third_step(snapshot: Snapshot) -> Stop | None:
        seen.append(snapshot)
        return Stop(reason="enough") if snapshot.step == 3 else None

    walker = Walker(Atoms("H"), steps=9, stops=(third_step,), temperature=100.0)
    (walk,) = BatchedDynamics(Wells(), [walker], timestep_fs=2.0).run()
    assert (walk.outcome, walk.reason, walk.steps) == ("stopped", "enough", 3)
    assert [snapshot.time_fs for snapshot in seen] == [0.0, 2.0, 4.0, 6.0]
    assert seen[0].bath_temperature == pytest.approx(100.0)


def test_overlap_breaks_a_walker_before_anything_is_recorded_of_it() -> None:
    atoms = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 2.5]])
    atoms.set_momenta([[0, 0, 30.0], [0, 0, -30.0]])
    walker = Walker(atoms, steps=200, stops=(Unphysical(),))
    (walk,) = BatchedDynamics(
        Wells(stiffness=0.0), [walker], ConstantEnergy(), timestep_fs=1.0, record_every=1
    ).run()
    assert walk.outcome == "broken"
    assert "overlap" in walk.reason or "apart" in walk.reason or " K" in walk.reason
    assert walk.trigger is None
    assert len(walk.frames) == walk.steps < 200
    assert walk.final.get_distance(0, 1) > 0.5


class Touchy(Potential):
    """Refuses argon, has no number for neon, throws krypton away; others rest."""

    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        for atoms in frames:
            if "Ar" in atoms.symbols and atoms.get_momenta().any():
                raise StructureError("atoms share a place; move them")
        value = {"Ne": np.nan, "Kr": 1e9}
        forces = [value.get(atoms.symbols[0], 0.0) for atoms in frames]
        return [
            Prediction(
                member_energies=np.zeros(1), member_forces=np.full((1, len(atoms), 3), force)
            )
            for atoms, force in zip(frames, forces, strict=True)
        ]


def test_what_breaks_takes_no_other_walker_with_it() -> None:
    walkers = [Walker(Atoms(symbol), steps=5) for symbol in ("Ar", "Ne", "Kr", "He")]
    refused, not_finite, thrown, calm = BatchedDynamics(Touchy(), walkers).run()
    assert (refused.outcome, refused.steps) == ("broken", 0)
    assert "share a place" in refused.reason
    assert (not_finite.outcome, not_finite.steps) == ("broken", 0)
    assert "not finite at step 0" in not_finite.reason
    assert thrown.outcome == "broken"
    assert "in one step at step 1" in thrown.reason
    assert np.array_equal(thrown.final.positions, np.zeros((1, 3)))
    assert (calm.outcome, calm.steps) == ("done", 5)


def test_conditions_reach_the_potential_and_the_end() -> None:
    class Listens(Potential):
        def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
            assert [atoms.info["electric_field"] for atoms in frames] == [[0.0, 0.0, 1.0]]
            return Wells().predict(frames)

    atoms = Atoms("Na", info={"electric_field": [0.0, 0.0, 1.0], "total_charge": 1})
    (walk,) = BatchedDynamics(Listens(), [Walker(atoms, steps=2)], record_every=1).run()
    assert all(
        frame.info["electric_field"] == [0.0, 0.0, 1.0] for frame in (walk.final, *walk.frames)
    )
    assert walk.final.info["total_charge"] == 1


@pytest.mark.parametrize("name", ["steps", "temperature", "temperature_end"])
def test_settings_out_of_range_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        Walker(Atoms("H"), **{"steps": 1, name: 0})  # type: ignore[arg-type]


def test_what_cannot_start_says_why() -> None:
    held = molecule("H2O")
    held.set_constraint(FixBondLength(0, 1))
    with pytest.raises(SamplerError, match="FixBondLength"):
        Walker(held, steps=1)
    with pytest.raises(SamplerError, match="no atoms"):
        Walker(Atoms(), steps=1)
    with pytest.raises(SamplerError, match="no walkers"):
        BatchedDynamics(emt(), [])
    with pytest.raises(ConfigError, match="timestep_fs"):
        BatchedDynamics(emt(), company(), timestep_fs=0.0)
    with pytest.raises(ConfigError, match="friction"):
        Langevin(friction=0.0)
    with pytest.raises(ConfigError, match="period"):
        NoseHooverChain(period_fs=0.0)
