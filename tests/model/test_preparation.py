"""What is measured before the first step is what the training set says."""

import numpy as np
import pytest
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
