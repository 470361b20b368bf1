from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import fcc100, fcc111
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from tace_al.core.errors import ConfigError, StructureError
from tace_al.core.proportions import wilson_interval
from tace_al.data.frames import fixed_mask
from tace_al.engines.labelling.guards import check_structure
from tace_al.engines.sampling.beam import (
    BeamSettings,
    Impact,
    beam_seeds,
    centre_energy,
    flight_time,
    launched,
    prepare_slab,
    sticking,
)
from tace_al.engines.sampling.beam_run import Keeping, run_beam
from tace_al.engines.sampling.beam_sampler import BeamSampler
from tace_al.engines.sampling.potential import CalculatorPotential, Potential
from tace_al.engines.sampling.sampler import Thresholds
from tace_al.model.prediction import Prediction


class Wall(Potential):
    """Slab atoms on springs; the last atom meets an exponential wall, and a pit if it is deep."""

    def __init__(self, slab: Atoms, *, depth: float = 0.0, members: int = 1) -> None:
        self.places, self.depth, self.members = slab.positions.copy(), depth, members
        self.top = self.places[:, 2].max()

    def predict(self, frames: Any) -> list[Prediction]:
        return [self._predict(atoms) for atoms in frames]

    def _predict(self, atoms: Atoms) -> Prediction:
        number = len(self.places)
        moved = atoms.positions[:number] - self.places
        forces = np.zeros((len(atoms), 3))
        forces[:number] = -5.0 * moved
        energy = 2.5 * (moved**2).sum()
        if len(atoms) > number:
            height = atoms.positions[-1, 2] - self.top
            wall = 5.0 * np.exp(-3.0 * height)
            energy += wall
            forces[-1, 2] += 3.0 * wall
        scatter = 1.0 + 0.1 * np.arange(self.members)
        return Prediction(
            member_energies=energy * scatter, member_forces=forces * scatter[:, None, None]
        )


def slab(**options: Any) -> Atoms:
    return fcc111("Pt", (2, 2, 3), vacuum=9.0, periodic=True, **options)


def settings(**changes: Any) -> BeamSettings:
    return BeamSettings(
        **{"projectile": "Pt", "energy_ev": 2.0, "equilibration": 20, "steps": 900, **changes}
    )


def shoot(potential: Potential, chosen: BeamSettings, **options: Any) -> list[Impact]:
    number = options.pop("number", 4)
    batches = run_beam(potential, slab(), chosen, number=number, seed=1, **options)
    return [impact for batch in batches for impact in batch]


def test_a_rigid_wall_reflects_everything_with_all_its_energy() -> None:
    impacts = shoot(Wall(slab()), settings(angle=30.0))
    assert [impact.verdict for impact in impacts] == ["reflected"] * 4
    for impact in impacts:
        assert impact.energy_ev == pytest.approx(2.0, rel=1e-3)
        assert abs(impact.conserved_drift_ev) < 5e-3
        momentum = impact.final.get_momenta()[-1]
        polar = np.degrees(np.arctan2(np.linalg.norm(momentum[:2]), momentum[2]))
        assert polar == pytest.approx(30.0, abs=0.3)  # a flat wall is a mirror
    found = sticking(impacts)
    assert found["sticking_probability"] == 0.0 and found["sticking_probability_error"] > 0.0


def test_numbers_hang_on_the_index_alone() -> None:
    whole = shoot(Wall(slab()), settings(), number=4, batch=2)
    later = shoot(Wall(slab()), settings(), number=4, batch=2, first=1)
    assert len(later) == 2
    for one, other in zip(whole[2:], later, strict=True):
        np.testing.assert_array_equal(one.final.positions, other.final.positions)


@pytest.mark.slow
def test_a_metal_atom_sticks_to_its_metal() -> None:
    """Slow platinum on platinum loses its energy to the slab, which EMT binds by 5 eV."""
    chosen = settings(energy_ev=1.0, stick_fs=300.0, height=3.0, clearance=7.0)
    (impact,) = shoot(CalculatorPotential(EMT()), chosen, number=1)
    assert impact.verdict == "stuck"
    assert abs(impact.conserved_drift_ev) < 0.05
    assert impact.energy_ev < 3.0


def test_the_launch() -> None:
    ready = prepare_slab(slab(), clearance=7.0)
    held = fixed_mask(ready.atoms)
    assert held.sum() == 4 and ready.bathed.sum() == 4 and not (held & ready.bathed).any()
    rng = np.random.default_rng(1)
    chosen = settings(angle=60.0)
    atoms = launched(ready, ready.atoms, chosen, rng)
    assert centre_energy(atoms, 1) == pytest.approx(2.0)
    assert atoms.positions[-1, 2] == pytest.approx(ready.top + 5.0)
    momentum = atoms.get_momenta()[-1]
    assert np.degrees(np.arccos(-momentum[2] / np.linalg.norm(momentum))) == pytest.approx(60.0)
    assert (fixed_mask(atoms)[:-1] == held).all() and not fixed_mask(atoms)[-1]
    speed = np.sqrt(2.0 * 2.0 / atoms.get_masses()[-1]) * 0.5 * units.fs
    assert flight_time(chosen) == pytest.approx(5.0 / speed)
    molecule = launched(ready, ready.atoms, settings(projectile="N2"), rng)
    assert len(molecule) == 14 and centre_energy(molecule, 2) == pytest.approx(2.0)


def test_impact_points_and_azimuths_are_uniform() -> None:
    ready = prepare_slab(slab(), clearance=7.0)
    chosen = settings(angle=45.0)
    points, azimuths = [], []
    for seed in range(400):
        atoms = launched(ready, ready.atoms, chosen, np.random.default_rng(seed))
        direction = atoms.get_momenta()[-1]
        reach = (ready.top - atoms.positions[-1, 2]) / direction[2]
        place = atoms.positions[-1] + reach * direction
        points.append(np.linalg.solve(ready.atoms.cell.array.T, place)[:2])
        azimuths.append(np.arctan2(direction[1], direction[0]))
    share = np.array(points)
    assert np.abs(share.mean(axis=0) - 0.5).max() < 0.06
    assert (share > -1e-9).all() and (share < 1.0).all()
    assert abs(np.exp(1j * np.array(azimuths)).mean()) < 0.12


def test_seeds_reach_from_the_wall_to_the_well() -> None:
    seeds = beam_seeds(slab(), "Pt", number=8, seed=3)
    for atoms in seeds:
        check_structure(atoms)
        assert len(atoms) == 13
    heights = [atoms.positions[-1, 2] - atoms.positions[:-1, 2].max() for atoms in seeds]
    assert min(heights) < 2.2 and max(heights) > 3.0


def test_a_committee_brings_home_what_it_does_not_know() -> None:
    sampler = BeamSampler(
        Wall(slab(), members=3),
        Thresholds(low=0.05, high=50.0),
        projectile="Pt",
        energy_ev=2.0,
        number=3,
        steps=900,
        equilibration=20,
        record_every=50,
        seed=1,
    )
    chunk = sampler.run(slab())
    assert chunk.outcome == "uncertain" and chunk.uncertain and chunk.known
    assert len(chunk.final) == 12 and all(len(frame) == 13 for frame in chunk.frames)
    assert chunk.observables["verdicts"] == {"reflected": 3}
    broken = BeamSampler(
        Wall(slab(), members=3),
        Thresholds(low=1e-6, high=1e-5),
        projectile="Pt",
        energy_ev=2.0,
        number=2,
        seed=1,
    )
    assert broken.run(slab()).outcome == "broken"


def test_an_energy_that_is_not_kept_breaks_a_trajectory() -> None:
    (impact,) = shoot(Wall(slab()), settings(energy_ev=40.0, timestep_fs=12.0), number=1)
    assert impact.verdict == "broken" and "shorter time step" in impact.reason


def test_frames_on_the_way() -> None:
    (impact,) = shoot(Wall(slab()), settings(), number=1, keeping=Keeping(every=100))
    steps = [frame.info["step"] for frame in impact.frames]
    assert steps == list(range(0, steps[-1] + 1, 100)) and len(steps) > 3


def test_the_error_bar_is_wilsons() -> None:
    low, high = wilson_interval(0, 10, z=1.96)
    assert low == 0.0 and high == pytest.approx(0.278, abs=0.001)  # Wilson 1927
    assert wilson_interval(5, 10)[0] == pytest.approx(1.0 - wilson_interval(5, 10)[1])


def test_wrong_beams_are_one_sentence() -> None:
    leaning = slab()
    leaning.set_cell([*leaning.cell.array[:2], [1.0, 0.0, 30.0]])
    prepare_slab(leaning, clearance=7.0)
    bare = fcc100("Pt", (2, 2, 3), vacuum=2.0, periodic=True)
    open_side = slab()
    open_side.pbc = (True, False, True)
    held = slab()
    held.set_constraint(FixAtoms(indices=range(len(held))))
    for atoms, words in (
        (bare, "of vacuum"),
        (open_side, "periodic in x and y"),
        (held, "every atom"),
    ):
        with pytest.raises(StructureError, match=words):
            prepare_slab(atoms, clearance=7.0)
    for changes, words in (
        ({"energy_ev": 0.0}, "energy_ev"),
        ({"angle": 89.0}, "below 85"),
        ({"clearance": 4.0}, "above the start"),
    ):
        with pytest.raises(ConfigError, match=words):
            settings(**changes)
    with pytest.raises(ConfigError, match="no atom or molecule"):
        shoot(Wall(slab()), settings(projectile="Ptt"))
