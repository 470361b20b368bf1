import numpy as np
import pytest
from ase import Atoms

from tace_al.analysis.sticking import sticking_of_members
from tace_al.core.errors import SamplerError
from tace_al.core.proportions import wilson_error
from tace_al.engines.sampling.beam import Impact, Verdict


def impacts(**counts: int) -> list[Impact]:
    def one(verdict: Verdict) -> Impact:
        return Impact(
            verdict=verdict,
            reason="",
            time_fs=1.0,
            energy_ev=0.0,
            conserved_drift_ev=0.0,
            max_uncertainty=0.0,
            final=Atoms("H"),
        )

    return [one(verdict) for verdict, count in counts.items() for _ in range(count)]  # type: ignore[arg-type]


def test_members_that_agree_leave_the_sampling_error() -> None:
    own = [impacts(stuck=18, reflected=2) for _ in range(4)]
    found = sticking_of_members(own, force_scale=3.0)
    assert found["value"] == 0.9
    assert found["error_bar"] == pytest.approx(wilson_error(72, 80))


def test_members_that_disagree_widen_the_bar() -> None:
    own = [impacts(stuck=20), impacts(stuck=20), impacts(reflected=20), impacts(reflected=20)]
    found = sticking_of_members(own, force_scale=1.0)
    expected = np.sqrt(1.0 / 3.0 - 0.25 / 20)
    assert found["value"] == 0.5
    assert found["error_bar"] == pytest.approx(np.hypot(expected, wilson_error(40, 80)))


def test_what_is_not_decided_does_not_count() -> None:
    own = [impacts(stuck=5, undecided=3, broken=2), impacts(stuck=4, penetrated=1)]
    assert sticking_of_members(own, force_scale=1.0)["value"] == 1.0
    with pytest.raises(SamplerError, match="decided no trajectory"):
        sticking_of_members([impacts(broken=3)], force_scale=1.0)
