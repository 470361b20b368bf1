"""Labelled ammonia and a committee of two untrained models, as files that tasks read."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from tace_al.data.extxyz import ENERGY, FORCES
from tace_al.data.frames import write_frames
from tace_al.engines.labelling.catalogue import labeller_from_name
from tace_al.model.checkpoint import save
from tace_al.model.tace import Tace

SHAPE = {"channels": 8, "radial_hidden": (16,)}


@pytest.fixture(scope="session")
def labelled_ammonia() -> list[Atoms]:
    """Return rattled ammonia molecules with the fake labeller's energies and forces."""
    labeller, rng = labeller_from_name("fake"), np.random.default_rng(3)
    frames = []
    for _ in range(10):
        atoms = molecule("NH3")
        atoms.positions += rng.normal(0.0, 0.05, (4, 3))
        label = labeller.label(atoms)
        atoms.info[ENERGY] = label.energy
        atoms.arrays[FORCES] = label.forces
        frames.append(atoms)
    return frames


@pytest.fixture(scope="session")
def labelled_file(tmp_path_factory: pytest.TempPathFactory, labelled_ammonia: list[Atoms]) -> Path:
    """Return the frame file of the labelled molecules."""
    path = tmp_path_factory.mktemp("frames") / "labelled.npz"
    write_frames(path, labelled_ammonia)
    return path


@pytest.fixture(scope="session")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the checkpoints of two untrained models."""
    folder = tmp_path_factory.mktemp("models")
    paths = []
    for seed in range(2):
        model = Tace.from_preset("tiny", elements=["H", "N"], seed=seed, **SHAPE)
        save(model, folder / f"{seed}.tace")
        paths.append(str(folder / f"{seed}.tace"))
    return paths
