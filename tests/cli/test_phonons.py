"""The command as a user runs it: files, numbers, error sentences."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from tace_al.model.checkpoint import save
from tace_al.model.tace import Tace

DATA = Path(__file__).parent.parent / "analysis" / "data"
Run = Callable[..., Any]


@pytest.fixture
def copper(tmp_path: Path) -> Path:
    """Return the file of copper at ASE's lattice constant."""
    path = tmp_path / "copper.xyz"
    bulk("Cu").write(path)
    return path


def test_copper_by_emt(tace_al: Run, copper: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    choice = ("--calculator", "emt", "--supercell", 3, 3, 3, "--mesh", 9, 9, 9)
    outcome = tace_al("phonons", copper, *choice, "--no-relax", "--out", out)
    assert outcome.code == 0, outcome.err
    found = json.loads((out / "phonons.json").read_text())
    assert found["mesh_max_frequency_thz"] == pytest.approx(7.711, abs=0.01)
    np.testing.assert_allclose(found["gamma_frequencies_thz"], 0.0, atol=1e-4)
    assert found["path"]["labels"] == ["Γ", "X", "U|K", "Γ", "L", "W", "X"]
    segment = found["path"]["segments"][0]
    assert np.shape(segment["frequencies_thz"]) == (len(segment["q_points"]), 3)
    heat = dict(
        zip(
            found["thermal"]["temperatures_k"],
            found["thermal"]["heat_capacity_j_k_mol"],
            strict=True,
        )
    )
    assert heat[0.0] == 0.0 and 20.0 < heat[300.0] < 24.94 and heat[1000.0] < 24.95  # 3 R
    assert found["warning"] is None and found["num_structures"] == 1
    for name in ("bands.png", "thermal.png", "unit_cell.xyz", "phonopy.yaml"):
        assert (out / name).stat().st_size > 100
    relaxed = tace_al("phonons", copper, *choice, "--out", out)
    assert relaxed.code == 0, relaxed.err
    found = json.loads((out / "phonons.json").read_text())
    assert found["relaxation"]["max_stress_ev_a3"] < 1e-6
    assert found["mesh_max_frequency_thz"] == pytest.approx(8.03, abs=0.05)


def test_forces_from_a_file(tace_al: Run, tmp_path: Path) -> None:
    reference = json.loads((DATA / "phonopy_mgo.json").read_text())
    cell = tmp_path / "mgo.xyz"
    Atoms(
        reference["unitcell_symbols"],
        cell=reference["unitcell"],
        scaled_positions=reference["scaled_positions"],
        pbc=True,
    ).write(cell)
    points = [part for q in reference["qpoints"] for part in ("--q-point", " ".join(map(str, q)))]
    choice = ("--mesh", 8, 8, 8, *points, "--out", tmp_path / "out")  # the file knows its supercell
    outcome = tace_al("phonons", cell, "--forces", DATA / "phonopy_mgo.xyz.xz", *choice)
    assert outcome.code == 0, outcome.err
    found = json.loads((tmp_path / "out" / "phonons.json").read_text())
    assert found["supercell"] == [[2, 0, 0], [0, 2, 0], [0, 0, 2]]
    np.testing.assert_allclose(
        found["q_point_frequencies_thz"], reference["frequencies_THz_no_NAC"], atol=1e-3
    )


def test_models_by_displacements_and_hessian(tace_al: Run, copper: Path, tmp_path: Path) -> None:
    models = []
    for seed in (1, 2):
        model = Tace.from_preset("tiny", elements=["Cu"], cutoff=4.0, seed=seed)
        models.append(tmp_path / f"{seed}.tace")
        save(model, models[-1])
    found = []
    for extra in ((), ("--hessian",)):
        choice = (*extra, "--no-relax", "--supercell", 2, 2, 2, "--mesh", 3, 3, 3)
        outcome = tace_al("phonons", copper, *models, *choice, "--out", tmp_path / "out")
        assert outcome.code == 0, outcome.err
        found.append(json.loads((tmp_path / "out" / "phonons.json").read_text()))
    first, second = (each["mesh_max_frequency_thz"] for each in found)
    assert first == pytest.approx(second, abs=1e-4)
    assert found[0]["mesh_max_frequency_spread_thz"] > 0.0
    assert found[0]["num_members"] == 2 and found[1]["source"] == "hessian"
    assert found[0]["inputs"]["dtype"] == "float64"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to calculate with"),
        (("--calculator", "emt", "--hessian"), "--hessian is for models"),
        (("--calculator", "emt", "--supercell", 0, 1, 1), "at least 1"),
        (("--calculator", "emt", "--q-point", "0.5 0"), "not three numbers"),
        (("--calculator", "emt", "--forces", "forces.xyz"), "keep one of them"),
        (("--forces", "missing.xyz"), "does not exist"),
        (("--calculator", "emt", "--no-relax", "--born", "missing"), "BORN"),
        (("--calculator", "emt", "--hessian", "--displacement", 0.1), "displaces nothing"),
    ],
)
def test_what_cannot_be_is_said(
    tace_al: Run, copper: Path, tmp_path: Path, arguments: tuple, message: str
) -> None:
    choice = arguments if "--supercell" in arguments else (*arguments, "--supercell", 1, 1, 1)
    outcome = tace_al("phonons", copper, *choice, "--out", tmp_path / "out")
    assert outcome.code == 2 and message in outcome.err, outcome.err


def test_a_molecule_is_sent_to_hessian(tace_al: Run, tmp_path: Path) -> None:
    path = tmp_path / "water.xyz"
    molecule("H2O").write(path)
    outcome = tace_al("phonons", path, "--calculator", "emt", "--out", tmp_path / "out")
    assert outcome.code == 2 and "tace-al hessian" in outcome.err


def test_forces_under_another_name_are_asked_for(
    tace_al: Run, copper: Path, tmp_path: Path
) -> None:
    outcome = tace_al("phonons", copper, "--forces", copper, "--out", tmp_path / "out")
    assert outcome.code == 2 and "its columns are numbers, positions. Name the" in outcome.err
