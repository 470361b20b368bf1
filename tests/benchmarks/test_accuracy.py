"""The yardsticks of the accuracy benchmarks, on labels one can sum by hand."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from benchmarks.accuracy import add_rows
from benchmarks.accuracy_tasks import TASKS, random_split, read
from benchmarks.accuracy_trivial import trivial_errors
from tace_al.core.errors import DataError
from tace_al.model.config import preset_config


def chain(num_hydrogen: int, num_oxygen: int) -> Atoms:
    """Return atoms in a row with an energy of -1 eV for each H and -5 eV for each O."""
    positions = [[1.5 * i, 0, 0] for i in range(num_hydrogen + num_oxygen)]
    atoms = Atoms(f"H{num_hydrogen}O{num_oxygen}", positions=positions)
    atoms.info["REF_energy"] = -1.0 * num_hydrogen - 5.0 * num_oxygen
    atoms.set_array("REF_forces", np.full((len(atoms), 3), 0.2))
    charges = np.where(atoms.numbers == 1, 1.0, -2.0)
    atoms.set_array("REF_born_charges", charges[:, None] * np.eye(3).ravel())
    return atoms


def test_the_trivial_model_knows_compositions_and_species() -> None:
    train = [chain(2, 1), chain(4, 1), chain(2, 3)]
    judged = [chain(6, 2)]
    judged[0].info["REF_energy"] += 0.8
    errors = trivial_errors(train, judged)
    assert errors["energy_rmse_mev"] == pytest.approx(800.0)
    assert errors["energy_rmse_mev_per_atom"] == pytest.approx(100.0)
    assert errors["forces_rmse_mev_per_angstrom"] == pytest.approx(200.0)
    assert errors["born_charges_rmse"] == pytest.approx(0.0, abs=1e-12)


def test_no_judged_frame_is_trained_on_and_isolated_atoms_are() -> None:
    frames = [chain(n, 1) for n in range(1, 21)] + [Atoms("H"), Atoms("O")]
    for index, atoms in enumerate(frames):
        atoms.info["index"] = index
    split = random_split(frames, 6, seed=0)
    judged = {atoms.info["index"] for atoms in split.held_out["held out"]}
    trained = {atoms.info["index"] for atoms in split.train}
    assert len(judged) == 6
    assert not judged & trained
    assert judged | trained == set(range(22))
    assert {20, 21} <= trained


def test_a_missing_data_folder_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TACE_AL_DATA", raising=False)
    with pytest.raises(DataError, match="TACE_AL_DATA is not set"):
        read("acac_train_300K")


@pytest.mark.parametrize("name", TASKS)
def test_every_model_of_every_task_can_be_made(name: str) -> None:
    for options in TASKS[name].models.values():
        preset_config("small", elements=("H", "O"), **options)


def test_a_new_row_replaces_that_of_the_same_model(tmp_path: Path) -> None:
    path = tmp_path / "accuracy_acac.json"
    row = {
        **dict.fromkeys(("preset", "device", "machine", "date", "versions", "time_limit"), "x"),
        **{"model": "full", "product": "spectral", "seed": 0, "parameters": 10, "epochs": 3},
        **{"training_seconds": 60.0, "processor_seconds": 30.0},
        "errors": {"300 K": {"energy_rmse_mev": 7.0}},
    }
    trivial = {"model": "trivial", "errors": {"300 K": {"energy_rmse_mev": 90.0}}}
    add_rows(path, [trivial, row])
    add_rows(path, [{**row, "errors": {"300 K": {"energy_rmse_mev": 5.0}}}])
    add_rows(path, [{**row, "product": "moment", "errors": {"300 K": {"energy_rmse_mev": 6.0}}}])
    table = path.with_suffix(".md").read_text()
    lines = [line for line in table.splitlines() if line.startswith(("| trivial", "| full"))]
    assert [line.split("|")[-2].strip() for line in lines] == ["90", "5", "6"]
