import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms

from tace_al.core.errors import ConfigError, StructureError
from tace_al.engines.sampling.batched_md import BatchedDynamics
from tace_al.engines.sampling.heat_flow import WATT_PER_M2, HeatFlow, ProfileWatch
from tace_al.engines.sampling.heat_sampler import TwoTemperatureSampler
from tace_al.engines.sampling.lennard_jones import LennardJones
from tace_al.engines.sampling.sampler import Thresholds
from tace_al.engines.sampling.walkers import Walker


def argon() -> Atoms:
    """Return a bar of solid argon, two cells wide and six long."""
    return bulk("Ar", a=5.3, cubic=True) * (2, 2, 6)


def flow(**changes: object) -> HeatFlow:
    options: dict[str, object] = {"hot": 50.0, "cold": 20.0, "slices": 6, "friction": 0.02}
    return HeatFlow(argon(), **{**options, **changes})  # type: ignore[arg-type]


@pytest.mark.slow
def test_heat_flows_steadily_from_hot_to_cold() -> None:
    """What the hot bath gives the cold one takes; the profile falls from one to the other."""
    baths, settle, steps = flow(), 1200, 4000
    watch = ProfileWatch(baths, settle=settle)
    walker = Walker(baths.atoms, steps=steps, temperature=35.0, seed=4, stops=(watch,))
    dynamics = BatchedDynamics(LennardJones(), [walker], baths.baths, timestep_fs=6.0)
    dynamics.run(settle)
    settled = dynamics.state()["chain"][0, :, 0]
    dynamics.run()
    given = dynamics.state()["chain"][0, :, 0] - settled
    assert given[0] > 0.0 > given[1]
    assert abs(given.sum()) < 0.3 * given[0]
    profile = watch.profile
    assert profile[0] > profile[1] > profile[3] and profile[0] > profile[5] > profile[3]
    assert profile.min() > 20.0 and profile.max() < 50.0
    time_fs = (steps - settle) * 6.0
    assert baths.current(given, time_fs) > 0.0
    # solid argon near 35 K conducts about 1 W/(m K); a cell of 3 nm less
    assert 0.05 < baths.conductivity(given, time_fs, profile) < 3.0


def test_no_difference_no_current() -> None:
    baths = flow(hot=35.0, cold=35.0)
    assert baths.gradient(np.full(6, 35.0)) == pytest.approx(0.0)
    assert np.isnan(baths.conductivity(np.array([1.0, -1.0]), 1.0, np.full(6, 35.0)))


def test_units_and_areas() -> None:
    baths = flow()
    assert baths.width == pytest.approx(5.3) and baths.slice_of.max() == 5
    area = (2 * 5.3) ** 2
    # 1 eV each in 1 fs, half of it each way round the cell
    assert baths.current(np.array([1.0, -1.0]), 1.0) == pytest.approx(WATT_PER_M2 / (2.0 * area))
    profile = np.array([50.0, 40.0, 30.0, 20.0, 30.0, 40.0])
    assert baths.gradient(profile) == pytest.approx(10.0 / 5.3)


def test_a_chunk_of_a_campaign() -> None:
    sampler = TwoTemperatureSampler(
        LennardJones(),
        Thresholds(low=0.1, high=1.0),
        hot=50.0,
        cold=20.0,
        slices=6,
        timestep_fs=6.0,
        steps=60,
        settle=20,
        record_every=20,
    )
    chunk = sampler.run(argon())
    assert chunk.outcome == "known" and len(chunk.known) == 3
    assert len(chunk.observables["temperature_profile_k"]) == 6
    assert np.isfinite(chunk.observables["heat_current_w_per_m2"])


def test_wrong_bars_are_one_sentence() -> None:
    held = argon()
    held.set_constraint(FixAtoms(indices=[0]))
    for atoms, words in ((molecule("CH4"), "not periodic"), (held, "held")):
        with pytest.raises(StructureError, match=words):
            HeatFlow(atoms, hot=50.0, cold=20.0)
    with pytest.raises(StructureError, match="holds no atom"):
        flow(slices=40)
    for changes, words in (
        ({"hot": 0.0}, "positive"),
        ({"slices": 5}, "even number"),
        ({"axis": 3}, "axis"),
    ):
        with pytest.raises(ConfigError, match=words):
            flow(**changes)
