import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.lennard_jones_viscosity import RESULTS, liquid, markdown, sheared


def published() -> dict[str, object]:
    content: dict[str, object] = json.loads((RESULTS / "lennard_jones_viscosity.json").read_text())
    return content


def test_the_published_viscosity_is_the_literatures() -> None:
    content = published()
    value = float(str(content["viscosity_at_rest"]))
    assert value == pytest.approx(3.25, rel=0.10)
    page = Path(RESULTS / "lennard_jones_viscosity.md").read_text()
    assert page == markdown(content)


def test_a_short_run_is_of_the_right_size() -> None:
    series, last = sheared(liquid(), 1.0, 60)
    assert len(series) == 60 and np.isfinite(series).all()
    assert len(last) == 108
