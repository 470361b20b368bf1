from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule

from tace_al.cli.potential_options import choose_potential
from tace_al.core.errors import ConfigError, DataError, StoreError
from tace_al.model.checkpoint import save
from tace_al.model.tace import Tace


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return the files of two untrained models with two heads."""
    folder = tmp_path_factory.mktemp("models")
    paths = [folder / "a.tace", folder / "b.tace"]
    for seed, path in enumerate(paths):
        save(Tace.from_preset("tiny", elements=["H", "O"], heads=("x", "y"), seed=seed), path)
    return paths


def test_a_calculator_by_name_with_options() -> None:
    chosen = choose_potential(None, "ase.calculators.lj:LennardJones", options=["sigma=2.0"])
    assert chosen.num_members == 1 and chosen.committee is None
    read = "free_energy, else energy"
    assert chosen.description["settings"] == {"sigma": 2.0, "energy_read": read}
    (prediction,) = chosen.potential.predict([bulk("Ar", "fcc", a=3.2, cubic=True)])
    assert prediction.stress is not None


def test_models_are_one_committee(checkpoints: list[Path]) -> None:
    chosen = choose_potential(checkpoints, None, dtype="float64", head="y")
    assert chosen.num_members == 2 and chosen.committee is not None
    assert chosen.description["head"] == "y" and chosen.description["dtype"] == "float64"
    assert len(set(chosen.description["sha256"])) == 2
    (prediction,) = chosen.potential.predict([molecule("H2O")])
    assert prediction.member_energies.shape == (2,) and prediction.energy_spread > 0


@pytest.mark.parametrize("skin", [None, 0.5])
def test_stress_where_it_is_asked_for(checkpoints: list[Path], skin: float | None) -> None:
    ice = molecule("H2O", cell=np.diag([4.0, 4.0, 4.0]), pbc=True)
    for stress in (True, False):
        chosen = choose_potential(checkpoints[:1], None, stress=stress, skin=skin)
        (prediction,) = chosen.potential.predict([ice])
        assert (prediction.stress is not None) == stress


def test_one_sentence_for_what_does_not_go_together(
    checkpoints: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="nothing to calculate with"):
        choose_potential(None, None)
    with pytest.raises(ConfigError, match="keep one of the two"):
        choose_potential(checkpoints, "emt")
    with pytest.raises(ConfigError, match="--option is for --calculator"):
        choose_potential(checkpoints, None, options=["a=1"])
    with pytest.raises(ConfigError, match="are for models"):
        choose_potential(None, "emt", head="x")
    with pytest.raises(ConfigError, match="Did you mean 'gfn2'"):
        choose_potential(None, "gnf2")
    with pytest.raises(DataError, match=r"no\.tace does not exist"):
        choose_potential([tmp_path / "no.tace"], None)
    with pytest.raises(StoreError, match="holds no campaign"):
        choose_potential([tmp_path], None)
