"""Checkpoints: exact, and nothing in a file is ever executed."""

import io
import json
import os
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
from ase.build import molecule

from tace_al.core.errors import CheckpointError
from tace_al.data.graph import graph_from_atoms
from tace_al.model.checkpoint import load, read_header, save
from tace_al.model.tace import Tace


def make_model(**options: object) -> Tace:
    model = Tace.from_preset("tiny", elements=["H", "O"], seed=3, channels=8, **options)
    model.head().e0.copy_(torch.tensor([-13.6, -2041.3]).double())
    model.metadata = {"seed": 3, "parents": ["a" * 32], "training_set": "b" * 32}
    return model


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_model_comes_back_bit_for_bit(tmp_path: Path, dtype: str) -> None:
    model = make_model(dtype=dtype, average_neighbours=3.7, heads=("gfn2", "pbe"))
    save(model, tmp_path / "m.tace")
    again = load(tmp_path / "m.tace")
    assert again.config == model.config
    assert again.metadata == model.metadata
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
        assert again.state_dict()[name].dtype == tensor.dtype, name
    graph = graph_from_atoms(molecule("H2O"), 5.0)
    before, after = model.evaluate(graph), again.evaluate(graph)
    assert torch.equal(before.energy, after.energy)
    assert torch.equal(before.forces, after.forces)


def test_the_header_is_read_without_the_weights(tmp_path: Path) -> None:
    save(make_model(), tmp_path / "m.tace")
    assert read_header(tmp_path / "m.tace")["metadata"]["seed"] == 3


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return (os.system, (f"touch {self.target}",))


@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_a_hostile_file_is_refused_and_not_executed(tmp_path: Path, writer: str) -> None:
    marker, path = tmp_path / "executed", tmp_path / "hostile.tace"
    if writer == "pickle":
        path.write_bytes(pickle.dumps(Payload(marker)))
    else:
        buffer = io.BytesIO()
        torch.save({"weights": Payload(marker)}, buffer)
        path.write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match="nothing in it was executed"):
        load(path)
    assert not marker.exists()


@pytest.mark.parametrize("keep", [0, 4, 100, -100])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "m.tace"
    save(make_model(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"m\.tace is not a \.tace checkpoint"):
        load(path)


def rewrite(path: Path, header: object) -> None:
    """Write the weights of a small model under another header."""
    state = make_model().state_dict()
    path.write_bytes(safetensors.torch.save(state, metadata={"tace": json.dumps(header)}))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"format": "tace", "version": 99}, "install a newer tace-al"),
        ({"format": "other", "version": 1}, "not a TACE model"),
        (["tace"], "not a TACE model"),
        ({"format": "tace"}, "do not fit|damaged"),
        ({"format": "tace", "version": "1"}, "do not fit|damaged"),
        ({"format": "tace", "version": 2}, "do not fit|damaged"),
        ({"format": "tace", "version": 2, "config": {"elements": ["H"], "wings": 2}}, "wings"),
        ({"format": "tace", "version": 2, "config": {"elements": ["H"]}}, "do not fit"),
        ({"format": "tace", "version": 2, "config": {"elements": ["H"], "channels": "8"}}, "fit"),
    ],
)
def test_a_header_that_cannot_be_true_is_refused(
    tmp_path: Path, header: object, message: str
) -> None:
    rewrite(tmp_path / "m.tace", header)
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "m.tace")


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no model at"):
        load(tmp_path / "none.tace")
    with pytest.raises(CheckpointError, match=r"not a \.tace checkpoint"):
        load(tmp_path)  # a folder


def test_a_checkpoint_of_version_1_means_the_same_model() -> None:
    """Written by the release that had one scale and shift a head, with these numbers."""
    model = load(Path(__file__).parent / "data" / "version_1.tace")
    atoms = molecule("H2O")
    atoms.rattle(0.1, seed=1)
    output = model.evaluate(graph_from_atoms(atoms, 5.0))
    forces = [
        [0.01830088940085371, 0.7166165958011332, 0.6289366027026639],
        [-0.026622845986991932, 0.07841426258309692, -0.0848746436669482],
        [0.008321956586138223, -0.7950308583842302, -0.5440619590357157],
    ]
    assert output.energy.item() == pytest.approx(-2073.127922177273, abs=1e-10)
    assert torch.allclose(output.forces, torch.tensor(forces).double(), atol=1e-12)
    assert model.head().shift.tolist() == [-2.5, -2.5]
    assert model.metadata == {"seed": 3}
