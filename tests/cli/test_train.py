import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from tace_al.engines.labelling.catalogue import labeller_from_name
from tace_al.model.checkpoint import load


def waters(count: int, *, seed: int, keys: tuple[str, str] = ("REF_energy", "REF_forces")):
    """Return distorted waters labelled by the analytic labeller that ships."""
    rng = np.random.default_rng(seed)
    labeller = labeller_from_name("fake")
    frames = []
    for _ in range(count):
        atoms = molecule("H2O")
        atoms.positions += rng.normal(0.0, 0.1, (3, 3))
        label = labeller.label(atoms)
        atoms.info[keys[0]] = label.energy
        atoms.set_array(keys[1], label.forces)
        frames.append(atoms)
    return frames


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "waters.xyz"
    write(path, waters(80, seed=0), format="extxyz")
    return path


@pytest.mark.slow
def test_train_then_evaluate_beats_the_mean(tace_al, data: Path, tmp_path: Path) -> None:
    model, errors = tmp_path / "m.tace", tmp_path / "errors.json"
    arguments = ("--preset", "tiny", "--epochs", 40, "--batch-size", 4)
    outcome = tace_al("train", data, "--out", model, *arguments, "--cutoff", 3)
    assert outcome.code == 0, outcome.err
    assert "Held-out structures" in outcome.out and "epoch" in outcome.err
    write(tmp_path / "test.xyz", waters(10, seed=1), format="extxyz")
    outcome = tace_al("evaluate", model, tmp_path / "test.xyz", "--json", errors)
    assert outcome.code == 0, outcome.err
    found = json.loads(errors.read_text())
    force = np.concatenate([atoms.arrays["REF_forces"] for atoms in waters(10, seed=1)])
    assert found["forces_rmse_mev_per_angstrom"] < 500 * np.sqrt(np.mean(force**2))
    for name in ("energy_rmse_mev_per_atom", "energy_mae_mev_per_atom"):
        assert found[name] > 0
    assert "stress_rmse_mev_per_angstrom3" not in found, "the data has no stress"
    metadata = load(model).metadata
    assert metadata["seed"] == 0 and metadata["data"] == "waters.xyz"
    assert len(metadata["training_set"]) == 32


def test_a_time_limit_ends_training(tace_al, data: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.tace"
    outcome = tace_al(
        "train", data, "--out", model, "--preset", "tiny", "--time-limit", "0.3s", "--cutoff", 3
    )
    assert outcome.code == 0, outcome.err
    assert "stopped by time" in outcome.out and model.is_file()
    again = tace_al(
        "train", data, "--out", model, "--start", model, "--epochs", 1, "--learning-rate", 0.001
    )
    assert again.code == 0, again.err
    assert load(model).metadata["parent"] == "m.tace"


def test_own_keys_and_calculator_results(tace_al, tmp_path: Path) -> None:
    arguments = ("--out", tmp_path / "m.tace", "--preset", "tiny", "--epochs", 1, "--cutoff", 3)
    write(tmp_path / "own.xyz", waters(6, seed=2, keys=("E_dft", "F_dft")), format="extxyz")
    keys = ("--energy-key", "E_dft", "--forces-key", "F_dft")
    outcome = tace_al("train", tmp_path / "own.xyz", *arguments, *keys)
    assert outcome.code == 0, outcome.err
    plain = waters(6, seed=2, keys=("E", "F"))
    for atoms in plain:
        energy, forces = atoms.info.pop("E"), atoms.arrays.pop("F")
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    write(tmp_path / "plain.xyz.gz", plain, format="extxyz")
    outcome = tace_al("train", tmp_path / "plain.xyz.gz", *arguments)
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (("--energy-key", "REF_enregy"), "REF_enregy"),
        (("--preset", "smal"), "Did you mean 'small'?"),
        (("--time-limit", "soon"), "is not a time"),
        (("--dtype", "float16"), "float16"),
        (("--device", "cud"), "there is no device 'cud'"),
        (("--start", "none.tace"), "no model at none.tace"),
        (("--valid", "none.xyz"), "none.xyz does not exist"),
    ],
)
def test_wrong_options(tace_al, data: Path, tmp_path: Path, extra: tuple, words: str) -> None:
    out = tmp_path / "m.tace"
    outcome = tace_al("train", data, "--out", out, "--epochs", 1, *extra)
    assert outcome.code == 2 and words in outcome.err and not out.exists()


def test_a_full_disk_is_found_before_training(tace_al, data, tmp_path, monkeypatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("tace_al.core.atomic_write.shutil.disk_usage", lambda _: usage)
    outcome = tace_al("train", data, "--out", tmp_path / "m.tace")
    assert outcome.code == 2 and "free some space" in outcome.err


def test_evaluating_what_is_no_model(tace_al, data: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.tace").write_bytes(b"not a model" * 10)
    outcome = tace_al("evaluate", tmp_path / "bad.tace", data)
    assert outcome.code == 2 and "is not a .tace checkpoint" in outcome.err
