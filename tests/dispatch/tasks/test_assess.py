from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from tace_al.data.extxyz import ENERGY, FORCES
from tace_al.data.frames import write_frames
from tace_al.dispatch.apps import plain
from tace_al.dispatch.tasks.assess import run
from tace_al.model.committee import Committee


def test_an_assessment_is_the_committee_against_the_labels(
    tmp_path: Path, labelled_ammonia: list[Atoms], model_files: list[str]
) -> None:
    frames = [*labelled_ammonia[:3], molecule("NH3"), Atoms("N")]
    write_frames(tmp_path / "frames.npz", frames)
    result = run({"models": model_files, "frames": str(tmp_path / "frames.npz")}, tmp_path)
    assert plain(result) == result
    with np.load(tmp_path / result["assessment_file"]) as content:
        arrays = {name: content[name] for name in content.files}
    assert arrays["counts"].tolist() == [4, 4, 4, 4, 1]
    predictions = Committee.load(tuple(model_files)).predict(frames)
    np.testing.assert_allclose(
        arrays["force_spread"], np.concatenate([p.force_spread for p in predictions]), rtol=1e-5
    )
    np.testing.assert_allclose(
        arrays["member_energies"], [p.member_energies for p in predictions], rtol=1e-6
    )
    assert arrays["descriptors"].shape[0] == len(frames)
    errors = np.split(arrays["force_error"], np.cumsum(arrays["counts"])[:-1])
    for atoms, prediction, error in zip(frames[:3], predictions[:3], errors[:3], strict=True):
        expected = np.linalg.norm(prediction.forces - atoms.arrays[FORCES], axis=1)
        np.testing.assert_allclose(error, expected, rtol=1e-4)
    assert np.isnan(errors[3]).all() and np.isnan(errors[4]).all()  # no label, no error
    energies = [
        1e3 * (p.energy - atoms.info[ENERGY]) / 4
        for atoms, p in zip(frames[:3], predictions[:3], strict=True)
    ]
    assert result["errors"]["energy_mae"] == pytest.approx(np.mean(np.abs(energies)), rel=1e-4)


def test_nothing_to_assess(tmp_path: Path, model_files: list[str]) -> None:
    write_frames(tmp_path / "frames.npz", [molecule("NH3")])
    result = run({"models": model_files, "frames": str(tmp_path / "frames.npz")}, tmp_path)
    assert result["errors"] == {}
