import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from tace_al.core.errors import ConfigError
from tace_al.engines.sampling.catalogue import (
    SAMPLERS,
    option_names,
    sampler_factory,
    sampler_from_name,
    sampler_options,
)
from tace_al.engines.sampling.fake import FakeSampler
from tace_al.engines.sampling.langevin import LangevinSampler
from tace_al.engines.sampling.lennard_jones import LennardJones
from tace_al.engines.sampling.potential import CalculatorPotential, Potential
from tace_al.engines.sampling.sampler import Chunk, Sampler, Thresholds

THRESHOLDS = Thresholds(low=0.1, high=1.0)


def own_sampler(
    potential: Potential, thresholds: Thresholds, *, seed: int, width: float = 0.1
) -> Sampler:
    """Return a sampler as somebody's own package would."""
    return FakeSampler(displacement=width, seed=seed)


def no_sampler(potential: Potential, thresholds: Thresholds, *, seed: int) -> object:
    """Return something else."""
    return object()


def made(name: str, **options: object) -> Sampler:
    potential = CalculatorPotential(EMT())
    return sampler_from_name(name, options, potential=potential, thresholds=THRESHOLDS, seed=3)


def test_a_sampler_by_name_is_the_one_built_by_hand() -> None:
    by_name = made("langevin", temperature=300, steps=5, record_every=1)
    by_hand = LangevinSampler(
        CalculatorPotential(EMT()), THRESHOLDS, temperature=300.0, steps=5, record_every=1, seed=3
    )
    water = molecule("H2O")
    one, other = by_name.run(water), by_hand.run(water)
    np.testing.assert_array_equal(one.final.positions, other.final.positions)
    assert len(one.frames) == len(other.frames) == 5


def test_a_sampler_of_ones_own_by_its_import_path() -> None:
    name = f"{__name__}:own_sampler"
    chunk = made(name, width=0.3).run(molecule("H2O"))
    assert len(chunk.frames) == 3
    assert option_names(name) == ("width",)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_every_name_leads_to_a_factory(name: str) -> None:
    assert callable(sampler_factory(name))
    assert "seed" not in option_names(name)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("langevine", {}, "Did you mean 'langevin'?"),
        ("langevin", {"temprature": 3}, "Did you mean 'temperature'?"),
        ("langevin", {"temperature": "hot"}, "option temperature is 'hot'"),
        ("langevin", {}, "needs a value for: temperature"),
        ("no_package:here", {}, "cannot be imported"),
    ],
)
def test_wrong_names_and_options(name: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sampler_options(name, options)
    assert words in str(caught.value)


def test_a_factory_must_make_a_sampler() -> None:
    with pytest.raises(ConfigError, match="must return"):
        made(f"{__name__}:no_sampler")


def test_a_sampler_without_state_just_runs_on() -> None:
    sampler = FakeSampler(seed=1)
    water: Atoms = molecule("H2O")
    one, other = sampler.run(water), sampler.go_on(water, {"hills": np.ones(3)})
    assert isinstance(one, Chunk) and not one.state and not one.observables
    np.testing.assert_array_equal(one.final.positions, other.final.positions)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("langevin", {"temperature": 50}),
        ("md", {"ensemble": "npt", "temperature": 50}),
        ("metadynamics", {"variables": ["distance:0,1"], "pace": 2}),
        ("saddle", {"max_steps": 3}),
        ("beam", {"projectile": "Ar", "energy_ev": 5.0, "steps": 5, "number": 2}),
        ("shear", {"rate_per_ps": 1.0, "temperature": 50}),
        ("two_temperature", {"hot": 60, "cold": 40, "slices": 4, "settle": 2}),
    ],
)
def test_every_kind_of_dynamics_brings_home_frames_with_bond_events(
    name: str, options: dict[str, object]
) -> None:
    """By name, as a campaign has them; a committee of one is in doubt from an error bar of 0 on."""
    argon = bulk("Ar", a=5.3, cubic=True) * (1, 1, 2)
    if name == "beam":
        argon.center(8.0, axis=2)
        options["equilibration"] = 2
    elif name != "saddle":
        options["steps"] = 15
    sampler = sampler_from_name(
        name,
        options,
        potential=LennardJones(),
        thresholds=Thresholds(low=0.0, high=1.0),
        seed=3,
    )
    chunk = sampler.run(argon)
    assert chunk.outcome == "uncertain" and chunk.uncertain
    for frame in chunk.frames:
        assert "bond_event" in frame.info and "forces" in frame.arrays
        assert {"step", "time_fs", "verdict", "uncertainty"} <= set(frame.info)
