import numpy as np
import pytest
from ase import Atoms, units

from tace_al.core.errors import ConfigError
from tace_al.engines.sampling.batched_md import BatchedDynamics
from tace_al.engines.sampling.bath import AtomBaths
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.walkers import Walker
from tace_al.model.prediction import Prediction


class Springs(Potential):
    """A chain of atoms along x, each bound to its place and to its neighbours."""

    def __init__(self, site: float = 2.0, bond: float = 2.0) -> None:
        self.site, self.bond = site, bond

    def predict(self, frames):
        return [self._predict(atoms.positions - _places(len(atoms))) for atoms in frames]

    def _predict(self, u):
        stretch = np.diff(u, axis=0)
        forces = -self.site * u
        forces[:-1] += self.bond * stretch
        forces[1:] -= self.bond * stretch
        energy = 0.5 * self.site * (u**2).sum() + 0.5 * self.bond * (stretch**2).sum()
        return Prediction(member_energies=np.array([energy]), member_forces=forces[None])


def _places(number: int) -> np.ndarray:
    return np.arange(number)[:, None] * np.array([[3.0, 0.0, 0.0]])


def chain(number: int) -> Atoms:
    return Atoms(f"Ar{number}", positions=_places(number))


def run(
    baths: AtomBaths,
    *,
    steps: int,
    walkers: int = 4,
    temperature: float = 300.0,
    timestep_fs: float = 4.0,
):
    copies = [
        Walker(chain(len(baths.frictions)), steps=steps, temperature=temperature, seed=seed)
        for seed in range(walkers)
    ]
    dynamics = BatchedDynamics(Springs(), copies, baths, timestep_fs=timestep_fs, record_every=10)
    return dynamics, dynamics.run()


def test_atoms_without_friction_keep_their_energy() -> None:
    _, walks = run(AtomBaths(frictions=(0.0,) * 4), steps=400, timestep_fs=1.0)
    for walk in walks:
        conserved = np.array([frame.info["conserved"] for frame in walk.frames])
        assert np.ptp(conserved) < 2e-4


def test_the_energy_given_is_counted() -> None:
    """With baths the conserved energy, which counts what they gave, stays as it is."""
    baths = AtomBaths(
        frictions=(0.01, 0.0, 0.0, 0.01), temperatures=(600.0, 1.0, 1.0, 100.0), cold=(3,)
    )
    dynamics, walks = run(baths, steps=400, timestep_fs=1.0)
    for walk in walks:
        conserved = np.array([frame.info["conserved"] for frame in walk.frames])
        assert np.ptp(conserved) < 2e-3
    whole = np.concatenate([item.phase.chain[:, :, 0] for item in dynamics._progress])
    heat = np.concatenate([item.phase.heat for item in dynamics._progress])
    np.testing.assert_allclose(whole.sum(axis=1), heat, atol=1e-12)


@pytest.mark.slow
def test_heat_flows_from_hot_to_cold_and_the_middle_lies_between() -> None:
    hot, cold = 600.0, 200.0
    baths = AtomBaths(
        frictions=(0.01, 0.0, 0.0, 0.01), temperatures=(hot, 1.0, 1.0, cold), cold=(3,)
    )
    dynamics, walks = run(baths, steps=2500, walkers=12)
    given = np.concatenate([item.phase.chain[:, :, 0] for item in dynamics._progress]).mean(axis=0)
    assert given[0] > 0.0 > given[1]
    # what is stored in the chain is little against what went through
    assert abs(given.sum()) < 0.35 * given[0]
    kinetic = np.mean(
        [
            (frame.get_momenta() ** 2).sum(axis=1) / frame.get_masses() / (3.0 * units.kB)
            for walk in walks
            for frame in walk.frames[80:]
        ],
        axis=0,
    )
    assert kinetic[0] > kinetic[3]
    assert cold < kinetic[1:3].mean() < hot


@pytest.mark.slow
def test_equal_baths_are_an_ordinary_thermostat() -> None:
    _, walks = run(AtomBaths(frictions=(0.02,) * 3), steps=1500, walkers=16, temperature=300.0)
    kinetic = np.mean([f.info["temperature"] for walk in walks for f in walk.frames[30:]])
    assert kinetic == pytest.approx(300.0, rel=0.04)


def test_baths_of_another_structure_are_refused() -> None:
    with pytest.raises(ConfigError, match="of 3 atoms"):
        BatchedDynamics(
            Springs(), [Walker(chain(4), steps=2)], AtomBaths(frictions=(0.1,) * 3)
        ).run()
    with pytest.raises(ConfigError, match="none may be negative"):
        AtomBaths(frictions=(0.1, -0.1))
    with pytest.raises(ConfigError, match="one of each"):
        AtomBaths(frictions=(0.1,), temperatures=(1.0, 2.0))
