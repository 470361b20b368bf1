from pathlib import Path

import numpy as np
import pytest

from tace_al.core.errors import DataError
from tace_al.core.labels import Label
from tace_al.dispatch.label_file import LabelFailure, label_path, read_label, write_label


def test_a_label_comes_back_bit_for_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    label = Label(
        structure_key="s",
        fidelity_key="f",
        energy=-1 / 3 * 1e3,
        forces=rng.normal(size=(4, 3)),
        stress=rng.normal(size=(3, 3)),
        seconds=0.1,
    )
    path = label_path(tmp_path, label.key)
    write_label(path, label)
    back = read_label(path)
    assert isinstance(back, Label)
    assert back.energy == label.energy
    assert (back.forces == label.forces).all()
    assert back.stress is not None
    assert label.stress is not None
    assert (back.stress == label.stress).all()
    assert back.dipole is None
    assert back.key == label.key


def test_a_failure_comes_back_with_its_kind(tmp_path: Path) -> None:
    failure = LabelFailure(structure_key="s", fidelity_key="f", kind="parity", message="odd")
    write_label(tmp_path / "x.npz", failure)
    assert read_label(tmp_path / "x.npz") == failure


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04rubbish"])
def test_a_bad_file_says_what_to_do(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="not a label file"):
        read_label(path)
