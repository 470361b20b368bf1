"""The command as a user runs it, beside ase.vibrations."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import units
from ase.build import fcc111, molecule
from ase.constraints import FixAtoms
from ase.io import read
from ase.optimize import BFGS
from ase.vibrations import Vibrations
from tblite.ase import TBLite

from tace_al.data.extxyz import write_structures

Run = Callable[..., Any]


@pytest.mark.parametrize("name", ["H2O", "CH3CH2OH"])
def test_molecules_equal_ase_vibrations(tace_al: Run, tmp_path: Path, name: str) -> None:
    atoms = molecule(name)
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    with BFGS(atoms, logfile=None) as optimiser:
        optimiser.run(fmax=1e-4, steps=300)
    write_structures(tmp_path / "relaxed.xyz", [atoms])
    by_ase = Vibrations(atoms, name=str(tmp_path / "vib"))
    by_ase.run()
    expected = by_ase.get_energies().real[6:] / units.invcm
    for extra, tolerance in ((("--no-relax",), 1.0), ((), 1.0)):
        choice = ("--calculator", "gfn2", *extra, "--out", tmp_path / "out")
        outcome = tace_al("hessian", tmp_path / "relaxed.xyz", *choice)
        assert outcome.code == 0, outcome.err
        found = json.loads((tmp_path / "out" / "hessian.json").read_text())
        np.testing.assert_allclose(found["frequencies_cm1"], expected, atol=tolerance)
        zero_point = found["zero_point_energy_ev"] / units.invcm
        assert zero_point == pytest.approx(0.5 * expected.sum(), abs=tolerance)
        whole = found["unprojected_zero_point_energy_ev"] / units.invcm
        assert whole == pytest.approx(by_ase.get_zero_point_energy() / units.invcm, abs=5.0)
        assert found["stationary"] and found["stationary_point"] == "minimum"
    gas = found["thermochemistry"]["ideal_gas"]
    assert gas["symmetry_number"] == (2 if name == "H2O" else 1)
    frames = read(tmp_path / "out" / "modes.xyz", ":")
    assert len(frames) == len(expected) and frames[0].arrays["mode"].shape == (len(atoms), 3)
    assert len(read(tmp_path / "out" / "lowest_mode.xyz", ":")) == 24


def test_fixed_atoms_stay(tace_al: Run, tmp_path: Path) -> None:
    slab = fcc111("Cu", (1, 1, 3), vacuum=8.0, periodic=True)
    slab.info.clear()
    slab.set_constraint(FixAtoms([0, 1]))
    write_structures(tmp_path / "slab.xyz", [slab])
    choice = ("--calculator", "emt", "--temperature", 500, "--out", tmp_path / "out")
    outcome = tace_al("hessian", tmp_path / "slab.xyz", *choice)
    assert outcome.code == 0, outcome.err
    found = json.loads((tmp_path / "out" / "hessian.json").read_text())
    assert found["moving_atoms"] == [2] and found["fixed_atoms"] == [0, 1]
    assert len(found["frequencies_cm1"]) == 3 and found["num_projected"] == 0
    assert found["thermochemistry"]["ideal_gas"] is None
    assert found["thermochemistry"]["temperature_k"] == 500.0


def test_a_structure_that_is_not_relaxed_is_noticed(tace_al: Run, tmp_path: Path) -> None:
    stretched = molecule("H2O")
    stretched.positions[1] *= 1.2
    write_structures(tmp_path / "water.xyz", [stretched])
    choice = ("--calculator", "gfn2", "--no-relax", "--out", tmp_path / "out")
    outcome = tace_al("hessian", tmp_path / "water.xyz", *choice)
    assert outcome.code == 0 and "no stationary point" in outcome.out
    assert not json.loads((tmp_path / "out" / "hessian.json").read_text())["stationary"]


def test_errors_are_sentences(tace_al: Run, tmp_path: Path) -> None:
    write_structures(tmp_path / "water.xyz", [molecule("H2O")])
    nothing = tace_al("hessian", tmp_path / "water.xyz", "--out", tmp_path / "out")
    assert nothing.code == 2 and "nothing to calculate with" in nothing.err
    held = molecule("H2O")
    held.set_constraint(FixAtoms([0, 1, 2]))
    write_structures(tmp_path / "held.xyz", [held])
    choice = ("--calculator", "gfn2", "--no-relax", "--out", tmp_path / "out")
    outcome = tace_al("hessian", tmp_path / "held.xyz", *choice)
    assert outcome.code == 2 and "every atom is fixed" in outcome.err
