import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
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
