from collections.abc import Sequence

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.constraints import FixAtoms

from tace_al.core.errors import ConfigError
from tace_al.data.frames import fixed_mask
from tace_al.engines.labelling.catalogue import labeller_from_name
from tace_al.engines.sampling.labeller_potential import LabellerPotential
from tace_al.engines.sampling.langevin import LangevinSampler
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.sampler import Thresholds
from tace_al.model.prediction import Prediction

CALM = Thresholds(low=1.0, high=2.0)


class Springs(Potential):
    """Each atom on its own spring; members disagree by `growth` times the displacement."""

    def __init__(self, sites: np.ndarray, *, stiffness: float = 5.0, growth: float = 0.0) -> None:
        self.sites, self.stiffness, self.growth = sites, stiffness, growth
        self.num_calls = 0

    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        self.num_calls += len(frames)
        return [self._predict(atoms.positions - self.sites) for atoms in frames]

    def _predict(self, away: np.ndarray) -> Prediction:
        stiffness = self.stiffness + self.growth * np.array([-1.0, 1.0])
        return Prediction(
            member_energies=0.5 * stiffness * (away**2).sum(),
            member_forces=-stiffness[:, None, None] * away,
        )


def crystal() -> Atoms:
    return bulk("Cu", cubic=True) * (2, 2, 2)


def sampler(
    potential: Potential, thresholds: Thresholds = CALM, **changes: object
) -> LangevinSampler:
    settings = {"temperature": 300.0, "steps": 50, "timestep_fs": 2.0, "seed": 1, **changes}
    return LangevinSampler(potential, thresholds, **settings)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_harmonic_solid_has_the_temperature_of_the_thermostat() -> None:
    atoms = crystal()
    springs = Springs(atoms.positions.copy())
    chunk = sampler(springs, steps=4000, friction=0.02, record_every=5).run(atoms)
    settled = chunk.frames[100:]
    kinetic = np.mean([frame.info["temperature"] for frame in settled])
    assert kinetic == pytest.approx(300.0, rel=0.03)
    # equipartition of the potential energy: 3 N kT / 2
    potential = np.mean([frame.info["energy"] for frame in settled])
    assert potential == pytest.approx(1.5 * len(atoms) * 8.617e-5 * 300.0, rel=0.04)


def test_a_chunk_without_doubt_is_known_and_keeps_frames_for_audits() -> None:
    atoms = crystal()
    springs = Springs(atoms.positions.copy())
    chunk = sampler(springs, record_every=20).run(atoms)
    assert chunk.outcome == "known"
    assert chunk.steps == 50
    assert [frame.info["step"] for frame in chunk.known] == [20, 40]
    assert chunk.uncertain == ()
    assert springs.num_calls == 51
    assert chunk.final.get_momenta().any()
    assert chunk.frames[0].info["time_fs"] == 40.0
    assert np.array_equal(atoms.positions, crystal().positions)


def test_the_seed_decides_everything() -> None:
    atoms = crystal()
    springs = Springs(atoms.positions.copy())
    one, two = sampler(springs).run(atoms), sampler(springs).run(atoms)
    assert np.array_equal(one.final.positions, two.final.positions)
    other = sampler(springs, seed=2).run(atoms)
    assert not np.allclose(one.final.positions, other.final.positions)


def test_fixed_atoms_stay_and_the_rest_goes_on_with_its_momenta() -> None:
    atoms = crystal()
    atoms.set_constraint(FixAtoms(indices=[0, 1, 2]))
    springs = Springs(atoms.positions.copy())
    chunk = sampler(springs).run(atoms)
    assert np.array_equal(chunk.final.positions[:3], atoms.positions[:3])
    assert fixed_mask(chunk.final)[:3].all()
    still = sampler(springs, steps=1, friction=1e-9, timestep_fs=1e-6).run(chunk.final)
    assert np.allclose(still.final.get_momenta(), chunk.final.get_momenta(), atol=1e-3)


def test_uncertain_frames_are_gathered_apart_until_there_are_enough() -> None:
    atoms = crystal()
    springs = Springs(atoms.positions.copy(), growth=1.0)
    band = Thresholds(low=0.02, high=10.0)
    chunk = sampler(springs, band, steps=200, gap=7, max_uncertain=4).run(atoms)
    assert chunk.outcome == "uncertain"
    assert len(chunk.uncertain) == 4
    assert np.diff([frame.info["step"] for frame in chunk.uncertain]).min() >= 7
    assert chunk.steps < 200
    assert all(0.02 <= frame.info["uncertainty"] < 10.0 for frame in chunk.uncertain)


def test_bonds_masses_and_conditions_travel_with_the_frames() -> None:
    atoms = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.74]], masses=[2.0, 2.0])
    atoms.info["electric_field"] = [0.0, 0.0, 0.1]
    atoms.set_momenta([[0, 0, -0.2], [0, 0, 0.2]])
    free = Springs(atoms.positions.copy(), stiffness=0.0)
    chunk = sampler(free, friction=1e-9, steps=40, record_every=10, timestep_fs=1.0).run(atoms)
    assert [frame.info["bond_event"] for frame in chunk.frames] == [False, True, False, False]
    assert chunk.frames[-1].info["bonds_broken"] == "H0-H1"
    assert chunk.frames[0].info["electric_field"] == [0.0, 0.0, 0.1]
    apart = chunk.frames[0].get_distance(0, 1) - 0.74
    assert apart == pytest.approx(10 * units.fs * 2 * 0.2 / 2.0, abs=1e-3), "deuterium is heavier"


def test_a_broken_frame_stops_the_chunk_and_does_not_come_home() -> None:
    atoms = crystal()
    springs = Springs(atoms.positions.copy(), growth=1.0)
    band = Thresholds(low=0.05, high=0.2)
    chunk = sampler(springs, band, steps=500, max_uncertain=100).run(atoms)
    assert chunk.outcome == "broken"
    assert "above the reject level" in chunk.reason
    assert chunk.max_uncertainty >= 0.2
    assert chunk.uncertain
    assert max(frame.info["uncertainty"] for frame in chunk.frames) < 0.2
    assert chunk.uncertain[-1].info["step"] == chunk.steps
    assert np.array_equal(chunk.final.positions, chunk.uncertain[-1].positions)


def test_the_calibration_scales_the_uncertainty() -> None:
    atoms = crystal()
    springs = Springs(atoms.positions.copy(), growth=1.0)
    plain = sampler(springs, Thresholds(low=50.0, high=99.0)).run(atoms)
    scaled = sampler(springs, Thresholds(low=50.0, high=99.0, scale=3.0)).run(atoms)
    assert scaled.max_uncertainty == pytest.approx(3.0 * plain.max_uncertainty)


def test_a_broken_start_says_so_and_gives_the_start_back() -> None:
    atoms = molecule("H2O")
    atoms.positions[1] = atoms.positions[0] + [0, 0, 0.2]
    chunk = sampler(Springs(atoms.positions.copy())).run(atoms)
    assert (chunk.outcome, chunk.steps, chunk.frames) == ("broken", 0, ())
    assert "0.20 A apart" in chunk.reason
    assert np.allclose(chunk.final.positions, atoms.positions)


def test_a_molecule_that_falls_apart_is_broken() -> None:
    atoms = Atoms("H2", positions=[[0, 0, 0], [0, 0, 5.9]])
    atoms.set_momenta([[0, 0, -0.5], [0, 0, 0.5]])
    free = Springs(atoms.positions.copy(), stiffness=0.0)
    chunk = sampler(free, max_separation=6.0, friction=1e-6, steps=200).run(atoms)
    assert chunk.outcome == "broken"
    assert "more than 6.0 A from the rest" in chunk.reason


def test_a_runaway_and_a_nan_are_broken() -> None:
    atoms = crystal()
    atoms.set_momenta(np.full((len(atoms), 3), 100.0))
    chunk = sampler(Springs(atoms.positions.copy())).run(atoms)
    assert "above 4000 K" in chunk.reason
    chunk = sampler(Springs(atoms.positions.copy(), growth=float("nan"))).run(crystal())
    assert (chunk.outcome, chunk.steps) == ("broken", 0)
    assert "not finite" in chunk.reason


def test_the_temperature_rises_to_its_end() -> None:
    ramp = sampler(Springs(crystal().positions), temperature=100.0, temperature_end=500.0)
    assert [ramp.temperature_at(step) for step in (0, 25, 50)] == [100.0, 300.0, 500.0]


def test_a_free_molecule_stays_where_it_was_on_its_real_potential() -> None:
    atoms = molecule("H2O")
    potential = LabellerPotential(labeller_from_name("gfn2"))
    chunk = sampler(potential, steps=40, timestep_fs=0.5).run(atoms)
    assert chunk.outcome == "known"
    assert np.allclose(chunk.final.get_center_of_mass(), atoms.get_center_of_mass())
    assert not np.allclose(chunk.final.positions, atoms.positions)


@pytest.mark.parametrize("name", ["temperature", "steps", "timestep_fs", "friction", "gap"])
def test_settings_out_of_range_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        sampler(Springs(crystal().positions), **{name: 0})


def test_thresholds_must_make_a_band() -> None:
    with pytest.raises(ConfigError, match="make no band"):
        Thresholds(low=2.0, high=1.0)
    assert [CALM.outcome(u) for u in (0.5, 1.0, 2.0, float("nan"))] == [
        "known",
        "uncertain",
        "broken",
        "broken",
    ]
