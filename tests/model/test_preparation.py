"""What is measured before the first step is what the training set says."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import molecule

from tace_al.data.graph import graph_from_atoms
from tace_al.model.config import TensorOutput, preset_config
from tace_al.model.preparation import prepare_model


def test_direct_outputs_start_from_their_isotropic_part_and_scale() -> None:
    config = preset_config(
        "tiny",
        elements=("H", "O"),
        channels=8,
        outputs=(
            TensorOutput(name="response", rank=2, symmetry="ij=ji"),
            TensorOutput(name="pull", rank=1, per="atom"),
        ),
    )
    rng = np.random.default_rng(0)
    frames = []
    for name in ("H2O", "H2", "O2", "H2O2") * 10:
        atoms = molecule(name)
        counts = np.array([(atoms.numbers == z).sum() for z in (1, 8)])
        atoms.info["REF_response"] = counts @ [0.5, 2.0] * np.eye(3)
        atoms.set_array("REF_pull", rng.normal(scale=7.0, size=(len(atoms), 3)))
        frames.append(atoms)
    model = prepare_model(frames, config=config, seed=0, start=None)
    lone = model.evaluate(graph_from_atoms(molecule("O"), 5.0), ("response",))
    assert np.allclose(lone["response"][0], 2.0 * np.eye(3))
    assert float(model.tensor_readouts["pull"].scale) == pytest.approx(7.0, rel=0.1)


def test_forces_without_energies_set_the_scale() -> None:
    config = preset_config("tiny", elements=("H",), channels=8)
    frames = [molecule("H2") for _ in range(3)]
    for index, atoms in enumerate(frames):
        atoms.set_array("REF_forces", np.full((2, 3), 4.0))
        if index == 1:
            atoms.info["REF_energy"] = float("nan")
    head = prepare_model(frames, config=config, seed=0, start=None).head()
    assert head.scale.tolist() == pytest.approx([4.0])
    assert head.e0.tolist() == head.shift.tolist() == [0.0]


def test_another_arithmetic_is_that_of_the_configuration() -> None:
    config = preset_config("tiny", elements=("H",), channels=8)
    frames = [molecule("H2")]
    frames[0].info["REF_energy"] = -1.0
    start = prepare_model(frames, config=config, seed=0, start=None)
    precise = prepare_model(frames, config=replace(config, dtype="float64"), seed=0, start=start)
    assert precise.embedding.dtype == torch.float64 and precise.config.dtype == "float64"
    assert torch.equal(precise.embedding, start.embedding.double())
