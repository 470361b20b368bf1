"""Reading checkpoints of another package: nothing in them runs."""

import pickle
from pathlib import Path

import pytest
import torch

from tace_al.core.errors import CheckpointError
from tace_al.model.reference.checkpoint import read_reference_checkpoint

EMBEDDING = "readout_fn.descriptor.node_embedding.mlp.0.weight"


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """Return a call that leaves a trace."""
        return (Path.touch, (self.path,))


def exported(**changes: object) -> dict[str, object]:
    """Return the least content of an exported checkpoint."""
    content = {
        "state_dict": {EMBEDDING: torch.ones(2, 4)},
        "cfg": {"num_layers": 1},
        "target_property": ["energy"],
    }
    return content | changes


def test_reads_tensors_and_plain_values(tmp_path: Path) -> None:
    """Names lose their prefix, float32 is widened and remembered."""
    torch.save(exported(), tmp_path / "model.pt")
    checkpoint = read_reference_checkpoint(tmp_path / "model.pt")
    assert list(checkpoint.state) == ["descriptor.node_embedding.mlp.0.weight"]
    assert next(iter(checkpoint.state.values())).dtype == torch.float64
    assert checkpoint.single_precision
    assert checkpoint.targets == ("energy",)


class Trap:
    """Pretends to be part of a model; its constructor would make a file."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """Return a call of a function of torch.fx that runs the code it is given."""
        from torch.fx.graph_module import _exec_with_source

        return (_exec_with_source, ("open('ran', 'w')", {}))


def test_code_in_a_whole_model_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions of packages that models need are stand-ins too."""
    monkeypatch.chdir(tmp_path)
    torch.save(exported(statistics=Trap()), tmp_path / "trap.pt")
    read_reference_checkpoint(tmp_path / "trap.pt")
    assert not (tmp_path / "ran").exists()


def test_hostile_checkpoints_are_refused_and_not_run(tmp_path: Path) -> None:
    """In torch's format, in place of any value, and as a plain pickle."""
    trace = tmp_path / "ran"
    torch.save(exported(statistics=Hostile(trace)), tmp_path / "value.pt")
    torch.save(Hostile(trace), tmp_path / "whole.ckpt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Hostile(trace)))
    for name in ("value.pt", "whole.ckpt", "plain.pt"):
        with pytest.raises(CheckpointError, match="nothing in it was executed"):
            read_reference_checkpoint(tmp_path / name)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weights": torch.ones(2)}, "not laid out"),
        (torch.ones(2), "not laid out"),
        (exported(target_property="energy"), "not laid out"),
        (exported(state_dict={"model.weight": torch.ones(2)}), "not laid out"),
        (exported(state_dict={EMBEDDING: torch.tensor([[float("nan")]])}), "not finite"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: object, message: str) -> None:
    """One sentence, and no traceback from torch."""
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=message):
        read_reference_checkpoint(tmp_path / "other.pt")


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    """Neither is a bug of the program."""
    with pytest.raises(CheckpointError, match="check the path"):
        read_reference_checkpoint(tmp_path / "none.pt")
    torch.save(exported(), tmp_path / "model.pt")
    whole = (tmp_path / "model.pt").read_bytes()
    for name, content in (
        ("half.pt", whole[: len(whole) // 2]),
        ("text.pt", b"hello"),
        ("no", b""),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match="not a checkpoint"):
            read_reference_checkpoint(tmp_path / name)
