import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import add_adsorbate, fcc100
from ase.constraints import FixAtoms
from ase.io import write

from tace_al.cli import saddle as saddle_module
from tace_al.data.extxyz import read_structures


@pytest.fixture
def adatom(tmp_path: Path) -> Path:
    """Return the file of Au above a hollow of Al(100), the lower layers fixed."""
    slab = fcc100("Al", (2, 2, 3))
    add_adsorbate(slab, "Au", 1.7, "hollow")
    slab.center(5.0, axis=2)
    slab.info.clear()
    slab.set_constraint(FixAtoms(mask=slab.get_tags() > 1))
    write(tmp_path / "slab.xyz", slab, format="extxyz")
    return tmp_path / "slab.xyz"


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@pytest.mark.slow
def test_a_hop_is_found_verified_and_told(
    tace_al: Callable[..., Any], adatom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The band's barrier, 0.375 eV, found in two goes from one minimum alone."""
    monkeypatch.setattr(saddle_module, "SAVE_SECONDS", -1.0)
    out = tmp_path / "out"
    arguments = ["saddle", adatom, "--calculator", "emt", "--active", 12, "--out", out]
    short = tace_al(*arguments, "--max-steps", 15)
    assert short.code == 2 and "goes on where it was" in short.err
    assert not read(out / "saddle.json")["converged"]
    outcome = tace_al(*arguments)
    assert outcome.code == 0, outcome.err
    found = read(out / "saddle.json")
    assert found["converged"] and found["resumed"]
    assert found["barrier_ev"] == pytest.approx(0.375, abs=0.01)
    assert found["reverse_barrier_ev"] == pytest.approx(0.375, abs=0.01)
    assert found["num_negative_modes"] == 1 and found["is_first_order_saddle"]
    assert found["connects_to_start"]
    assert found["distance_between_sides_a"] == pytest.approx(4.05 / np.sqrt(2), abs=0.2)
    assert len(read_structures(out / "sides.xyz")) == 2
    assert (out / "saddle.png").exists()
    other = tace_al(*arguments, "--seed", 5)
    assert other.code == 2 and "another search" in other.err


def test_refusals(tace_al: Callable[..., Any], adatom: Path, tmp_path: Path) -> None:
    arguments = ["saddle", adatom, "--calculator", "emt", "--out", tmp_path / "out"]
    wrong = tace_al(*arguments, "--active", "a,b")
    assert wrong.code == 2 and "no list of atoms" in wrong.err
    none = tace_al(*arguments, "--active", "99")
    assert none.code == 2 and "not all there" in none.err
