from pathlib import Path

import pytest
from ase.build import bulk

from tace_al.analysis.targets import TargetInputs, evaluate_target
from tace_al.model.committee import Committee
from tace_al.model.tace import Tace


def test_the_error_bar_is_that_of_the_worst_band(tmp_path: Path) -> None:
    members = [Tace.from_preset("tiny", elements=["Cu"], cutoff=4.0, seed=seed) for seed in (1, 2)]
    copper = bulk("Cu", cubic=True, a=3.6)
    options = {"relax": False, "min_height": 3.0, "mesh": 3}
    bars = []
    for scale in (1.0, 2.0):
        inputs = TargetInputs(
            committee=Committee(members),
            folder=tmp_path,
            starts={"copper": [copper]},
            force_scale=scale,
        )
        found = evaluate_target("phonon_bands", options, inputs)
        assert set(found) == {"highest", "bands"}
        assert found["bands"]["labels"][0] == "Γ"
        assert found["bands"]["error_bar"] >= found["highest"]["error_bar"] * 0.99
        bars.append(found["bands"]["error_bar"])
    assert bars[1] == pytest.approx(2.0 * bars[0])
    assert bars[0] > 0.0
