"""Thermostats of batched dynamics make the canonical distribution, in momenta and positions.

N_f momenta at kT have kinetic energies of mean N_f kT / 2 and variance N_f (kT)^2 / 2.
"""

from collections.abc import Sequence

import numpy as np
import pytest
from ase import Atoms, units
from ase.constraints import FixAtoms
from scipy.stats import gamma, kstest

from tace_al.engines.sampling.batched_md import BatchedDynamics
from tace_al.engines.sampling.integrators import (
    ConstantEnergy,
    Integrator,
    Langevin,
    NoseHooverChain,
)
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.walkers import Trajectory, Walker
from tace_al.model.prediction import Prediction

MASS = 39.95


class Wells(Potential):
    """Each atom in a harmonic well; frames of one size."""

    def __init__(self, stiffness: float) -> None:
        self.stiffness = stiffness

    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        places = np.stack([atoms.positions for atoms in frames])
        energies = 0.5 * self.stiffness * (places**2).sum(axis=(1, 2))
        return split(energies, -self.stiffness * places)


class Ring(Potential):
    """Neighbours in a ring on strongly anharmonic springs, stiffest along the axes: chaotic."""

    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        places = np.stack([atoms.positions for atoms in frames])
        stretch = places - np.roll(places, 1, axis=1)
        squares = (stretch**2).sum(axis=2, keepdims=True)
        energies = (0.5 * stretch**2 + 5.0 * stretch**4 + 5.0 * squares * stretch**2).sum((1, 2))
        pull = stretch + 20.0 * stretch**3 + 20.0 * squares * stretch
        return split(energies, np.roll(pull, -1, axis=1) - pull)


def split(energies: np.ndarray, forces: np.ndarray) -> list[Prediction]:
    return [
        Prediction(member_energies=energy[None], member_forces=force[None])
        for energy, force in zip(energies, forces, strict=True)
    ]


def argon(num_atoms: int, *, periodic: bool = False) -> Atoms:
    atoms = Atoms(f"Ar{num_atoms}", positions=np.zeros((num_atoms, 3)))
    atoms.set_masses(np.full(num_atoms, MASS))
    if periodic:
        atoms.cell, atoms.pbc = [20.0] * 3, True
    return atoms


def kinetic_energies(trajectories: Sequence[Trajectory], *, skip: int) -> np.ndarray:
    """Return (walkers, frames) kinetic energies in eV."""
    return np.array(
        [[frame.get_kinetic_energy() for frame in walk.frames[skip:]] for walk in trajectories]
    )


@pytest.mark.slow
@pytest.mark.parametrize("phase_per_step", [0.1, 0.8])
def test_langevin_has_exact_positions_and_known_momenta_in_a_well(phase_per_step: float) -> None:
    stiffness = 20.0
    timestep = phase_per_step * np.sqrt(MASS / stiffness)
    temperatures = [100.0, 300.0, 300.0, 900.0]
    walkers = [
        Walker(argon(60), steps=3000, temperature=T, seed=seed)
        for seed, T in enumerate(temperatures)
    ]
    friction = 0.3 * np.sqrt(stiffness / MASS) * units.fs
    trajectories = BatchedDynamics(
        Wells(stiffness),
        walkers,
        Langevin(friction=friction),
        timestep_fs=timestep / units.fs,
        record_every=10,
    ).run()
    for T, walk in zip(temperatures, trajectories, strict=True):
        frames = walk.frames[50:]  # 250 frames of 180 coordinates
        spread = np.mean([(frame.positions**2).mean() for frame in frames])
        assert spread == pytest.approx(units.kB * T / stiffness, rel=0.03)
        width = np.mean([(frame.get_momenta() ** 2).mean() for frame in frames])
        cold = 1.0 - 0.25 * phase_per_step**2
        assert width == pytest.approx(MASS * units.kB * T * cold, rel=0.03)


@pytest.mark.slow
def test_langevin_kinetic_energies_are_those_of_the_canonical_ensemble() -> None:
    kT, num_atoms = 300.0 * units.kB, 2
    walkers = [Walker(argon(num_atoms), steps=240, seed=seed) for seed in range(100)]
    trajectories = BatchedDynamics(
        Wells(1.0), walkers, Langevin(friction=0.02), timestep_fs=5.0, record_every=40
    ).run()
    energies = kinetic_energies(trajectories, skip=1).ravel()
    assert energies.mean() == pytest.approx(3 * num_atoms * kT / 2, rel=0.08)
    assert energies.var() == pytest.approx(3 * num_atoms * kT**2 / 2, rel=0.25)
    assert kstest(energies, gamma(3 * num_atoms / 2, scale=kT).cdf).pvalue > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("held", [False, True])
def test_nose_hoover_kinetic_energies_are_those_of_the_canonical_ensemble(held: bool) -> None:
    atoms = argon(12, periodic=True)
    if held:
        atoms.set_constraint(FixAtoms(indices=[2]))
    temperatures = np.repeat([900.0, 1800.0], 8)
    walkers = [
        Walker(atoms, steps=4000, temperature=T, seed=seed) for seed, T in enumerate(temperatures)
    ]
    trajectories = BatchedDynamics(
        Ring(), walkers, NoseHooverChain(period_fs=60.0), timestep_fs=3.0, record_every=10
    ).run()
    energies = kinetic_energies(trajectories, skip=60)
    freedom = 33  # eleven free atoms, or twelve without overall translation
    for T in (900.0, 1800.0):
        own, kT = energies[temperatures == T], units.kB * T
        assert own.mean() == pytest.approx(freedom * kT / 2, rel=0.02)
        assert own.var() == pytest.approx(freedom * kT**2 / 2, rel=0.12)
    for walk, own in zip(trajectories, energies, strict=True):
        conserved = [frame.info["conserved"] for frame in walk.frames]
        assert np.ptp(conserved) < 0.03 * own.mean() < 0.1 * np.ptp(own)
        measured = [frame.info["temperature"] for frame in walk.frames[60:]]
        assert np.allclose(measured, 2.0 * own / (freedom * units.kB))


def test_temperatures_follow_their_ramp() -> None:
    walkers = [
        Walker(argon(60), steps=400, temperature=100.0, temperature_end=end, seed=seed)
        for seed, end in enumerate((100.0, 900.0))
    ]
    flat, rising = BatchedDynamics(
        Wells(1.0), walkers, Langevin(friction=0.05), timestep_fs=4.0, record_every=1
    ).run()
    late = [np.mean([f.info["temperature"] for f in w.frames[-60:]]) for w in (flat, rising)]
    assert late[0] == pytest.approx(100.0, rel=0.1)
    assert late[1] == pytest.approx(840.0, rel=0.12)  # the mean of its last 60 steps


@pytest.mark.parametrize("integrator", [ConstantEnergy(), NoseHooverChain()])
def test_drawn_momenta_have_no_overall_motion_where_it_would_stay(integrator: Integrator) -> None:
    rng = np.random.default_rng(0)
    molecule = argon(5)
    molecule.positions = rng.normal(0.0, 2.0, (5, 3))
    crystal = argon(5, periodic=True)
    walkers = [
        Walker(atoms, steps=1, seed=seed) for atoms in (molecule, crystal) for seed in range(200)
    ]
    dynamics = BatchedDynamics(Wells(0.0), walkers, integrator, timestep_fs=1e-3)
    finals = [walk.final for walk in dynamics.run()]
    for atoms in finals:
        assert np.abs(atoms.get_momenta().sum(axis=0)).max() < 1e-10
    for atoms in finals[:200]:
        assert np.abs(atoms.get_angular_momentum()).max() < 1e-5
    kinetic = np.array([atoms.get_kinetic_energy() for atoms in finals])
    kT = 300.0 * units.kB
    assert kinetic[:200].mean() == pytest.approx((15 - 6) * kT / 2, rel=0.1)
    assert kinetic[200:].mean() == pytest.approx((15 - 3) * kT / 2, rel=0.1)


def test_langevin_draws_overall_motion_too() -> None:
    walkers = [Walker(argon(3), steps=1, seed=seed) for seed in range(300)]
    finals = [walk.final for walk in BatchedDynamics(Wells(0.0), walkers, timestep_fs=1e-3).run()]
    kinetic = np.mean([atoms.get_kinetic_energy() for atoms in finals])
    assert kinetic == pytest.approx(9 * units.kB * 300.0 / 2, rel=0.1)


def test_small_walkers_have_a_temperature() -> None:
    pair = argon(2)
    pair.positions[1, 2] = 3.0
    walkers = [Walker(pair, steps=20, seed=1), Walker(argon(1), steps=20, seed=1)]
    two, one = (
        BatchedDynamics(Wells(0.0), [walker], NoseHooverChain(), record_every=1).run()[0]
        for walker in walkers
    )
    assert all(frame.info["temperature"] == 0.0 for frame in one.frames)
    last = two.frames[-1]
    freedom = 1  # along the bond
    expected = 2.0 * last.get_kinetic_energy() / (freedom * units.kB)
    assert last.info["temperature"] == pytest.approx(expected)
