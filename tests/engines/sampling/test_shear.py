import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.lj import LennardJones as ASELennardJones
from ase.constraints import FixAtoms

from tace_al.core.errors import ConfigError, StructureError
from tace_al.core.units import GPA
from tace_al.engines.sampling.batched_md import BatchedDynamics
from tace_al.engines.sampling.lennard_jones import LennardJones
from tace_al.engines.sampling.sampler import Thresholds
from tace_al.engines.sampling.shear import (
    FlowWatch,
    Shear,
    ShearFlow,
    check_flow,
    turned_cell,
    viscosity_mpa_s,
)
from tace_al.engines.sampling.shear_sampler import ShearSampler
from tace_al.engines.sampling.walkers import Walker


def liquid(cells: int = 3, density: float = 0.8442) -> Atoms:
    """Return an fcc start of the Lennard-Jones liquid at a reduced density."""
    sigma = 3.405
    lattice = sigma * (4.0 / density) ** (1.0 / 3.0)
    atoms = bulk("Ar", a=lattice, cubic=True) * (cells, cells, cells)
    atoms.positions += np.random.default_rng(1).normal(scale=0.1, size=(len(atoms), 3))
    return atoms


def test_the_fast_lennard_jones_is_ases() -> None:
    atoms = liquid()
    cell = atoms.cell.array
    cell[1, 0] = 4.0
    atoms.set_cell(cell, scale_atoms=True)
    potential = LennardJones()
    (prediction,) = potential.predict([atoms])
    atoms.calc = ASELennardJones(epsilon=0.0103, sigma=3.405, rc=2.5 * 3.405)
    assert prediction.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    np.testing.assert_allclose(prediction.forces, atoms.get_forces(), atol=1e-10)
    assert prediction.stress is not None
    np.testing.assert_allclose(prediction.stress, atoms.get_stress(voigt=False), atol=1e-12)


def test_old_pairs_serve_a_cell_that_leans() -> None:
    atoms, potential = liquid(), LennardJones()
    potential.predict([atoms])
    pairs = potential._pairs
    cell = atoms.cell.array
    cell[1, 0] += 0.02 * cell[1, 1]
    atoms.set_cell(cell, scale_atoms=True)
    (later,) = potential.predict([atoms])
    assert potential._pairs is pairs
    (fresh,) = LennardJones().predict([atoms])
    np.testing.assert_allclose(later.forces, fresh.forces, atol=1e-12)


def flow(rate: float, *, steps: int, timestep_fs: float = 5.0) -> tuple[np.ndarray, Atoms]:
    """Return what should be conserved, step by step, and the last frame."""
    walker = Walker(liquid(), steps=steps, temperature=90.0, seed=2)
    dynamics = BatchedDynamics(
        LennardJones(), [walker], ShearFlow(rate=rate), timestep_fs=timestep_fs, record_every=1
    )
    (walk,) = dynamics.run()
    return np.array([frame.info["conserved"] for frame in walk.frames]), walk.final


def test_energy_less_work_and_heat_is_conserved_to_second_order() -> None:
    """The flow works some electronvolts here, and nearly all of it leaves as heat."""
    coarse, _ = flow(1e-4, steps=100, timestep_fs=8.0)
    fine, _ = flow(1e-4, steps=200, timestep_fs=4.0)
    assert np.ptp(fine) < 6e-3
    assert np.ptp(fine) < 0.5 * np.ptp(coarse)


def test_the_kinetic_temperature_is_held_and_momenta_stay_at_rest() -> None:
    _, final = flow(2e-4, steps=60)
    freedom = 3 * len(final) - 3
    assert 2.0 * final.get_kinetic_energy() / freedom / units.kB == pytest.approx(90.0)
    np.testing.assert_allclose(final.get_momenta().sum(axis=0), 0.0, atol=1e-9)


def test_a_turned_cell_is_the_same_liquid() -> None:
    atoms = liquid()
    cell = atoms.cell.array
    cell[1, 0] = 0.7 * cell[0, 0]
    atoms.set_cell(cell, scale_atoms=True)
    turned = turned_cell(atoms)
    assert turned.cell.array[1, 0] == pytest.approx(-0.3 * cell[0, 0])
    one, other = LennardJones().predict([atoms])[0], LennardJones().predict([turned])[0]
    assert one.energy == pytest.approx(other.energy, abs=1e-10)
    np.testing.assert_allclose(one.stress, other.stress, atol=1e-13)


@pytest.mark.slow
def test_a_sheared_liquid_resists_over_many_turns() -> None:
    """At a reduced rate of 1 the Lennard-Jones liquid has a viscosity near 2.2 (shear thinning).

    The value at rest is 3.2 to 3.3; `benchmarks/lennard_jones_viscosity.py` goes there.
    """
    sigma, epsilon, mass = 3.405, 0.0103, 39.948
    tau_fs = sigma * np.sqrt(mass / epsilon) / units.fs
    rate = 1e3 / tau_fs
    shear = Shear(
        LennardJones(), rate_per_ps=rate, temperature=0.722 * epsilon / units.kB, timestep_fs=8.0
    )
    atoms, watch, done = liquid(), FlowWatch(), 0
    while done < 1600:
        walk = shear.run(atoms, 1600 - done, stops=(watch,))
        done, atoms = done + walk.steps, walk.final
    assert done == 1600
    eta = viscosity_mpa_s(np.array(watch.shear_pressure[500:]), rate).mean()
    reduced = eta * 1e3 * GPA * sigma**3 / epsilon / tau_fs  # mPa s to eV fs/A^3, to reduced units
    assert 1.7 < reduced < 2.7


def test_wrong_flows_are_one_sentence() -> None:
    held = liquid()
    held.set_constraint(FixAtoms(indices=[0]))
    leaning = liquid()
    leaning.set_cell(leaning.cell.array[[1, 2, 0]])
    for atoms, words in (
        (molecule("H2O"), "periodic in three"),
        (leaning, "first lattice vector"),
        (held, "held"),
    ):
        with pytest.raises(StructureError, match=words):
            check_flow(atoms)
    check_flow(liquid())
    with pytest.raises(ConfigError, match="does not flow"):
        Shear(LennardJones(), rate_per_ps=0.0, temperature=90.0)


def test_a_chunk_of_a_campaign_flows_on() -> None:
    sampler = ShearSampler(
        LennardJones(),
        Thresholds(low=0.1, high=1.0),
        rate_per_ps=2.0,
        temperature=90.0,
        timestep_fs=8.0,
        steps=120,
        settle=20,
        record_every=40,
    )
    chunk = sampler.run(liquid())
    assert chunk.outcome == "known" and chunk.steps == 120 and chunk.known
    assert {"viscosity_mpa_s", "viscosity_mpa_s_error"} == set(chunk.observables)
    later = sampler.run(chunk.final)
    assert later.outcome == "known" and later.final.get_momenta().any()


def test_frames_are_gathered_over_the_turns_of_the_cell() -> None:
    """A fast flow turns its cell every 25 steps; steps, gaps and times count through."""
    sampler = ShearSampler(
        LennardJones(),
        Thresholds(low=0.0, high=1.0),
        rate_per_ps=5.0,
        temperature=90.0,
        timestep_fs=8.0,
        steps=65,
        gap=10,
    )
    chunk = sampler.run(liquid())
    assert [frame.info["step"] for frame in chunk.uncertain] == list(range(0, 65, 10))
    assert [frame.info["time_fs"] for frame in chunk.uncertain] == [
        8.0 * step for step in range(0, 65, 10)
    ]
