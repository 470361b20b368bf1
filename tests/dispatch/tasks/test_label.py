import errno
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from tace_al.core.errors import DataError, LabellerMissing, StorageFull
from tace_al.core.labels import Label
from tace_al.data.frames import structure_key, write_frames
from tace_al.dispatch.label_file import LabelFailure, read_label
from tace_al.dispatch.tasks import label as label_task
from tace_al.dispatch.tasks.label import label_request, run
from tace_al.engines.labelling.catalogue import labeller_from_name


def frames() -> list[Atoms]:
    overlapping = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.05]])
    radical = molecule("OH")
    radical.info["spin_multiplicity"] = 1
    return [molecule("H2O"), overlapping, radical]


def payload(tmp_path: Path, labeller: str = "fake") -> dict[str, object]:
    write_frames(tmp_path / "frames.npz", frames())
    keys = [structure_key(atoms) for atoms in frames()]
    request = label_request(
        labeller, {}, frames=tmp_path / "frames.npz", keys=keys, labels_dir=tmp_path / "labels"
    )
    return dict(request.payload)


def test_failures_are_data(tmp_path: Path) -> None:
    entries = run(payload(tmp_path), tmp_path)["labels"]
    assert [entry["ok"] for entry in entries] == [True, False, False]
    assert [entry["kind"] for entry in entries] == ["", "contact", "parity"]
    label = read_label(Path(entries[0]["label_file"]))
    assert isinstance(label, Label)
    expected = labeller_from_name("fake").label(frames()[0])
    np.testing.assert_array_equal(label.forces, expected.forces)
    assert label.key == entries[0]["label_key"]
    assert isinstance(read_label(Path(entries[1]["label_file"])), LabelFailure)


def test_a_repeated_batch_computes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(payload(tmp_path), tmp_path)["labels"]

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a label was computed twice")

    monkeypatch.setattr(label_task, "guarded_label", refuse)
    again = run(payload(tmp_path), tmp_path)["labels"]
    assert all(entry["reused"] for entry in again)
    assert [entry["label_key"] for entry in again] == [entry["label_key"] for entry in first]


def test_a_crashing_labeller_fails_one_label_not_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("somewhere deep")

    monkeypatch.setattr(label_task, "guarded_label", crash)
    entries = run(payload(tmp_path), tmp_path)["labels"]
    assert {entry["kind"] for entry in entries} == {"crash"}
    assert "ZeroDivisionError" in entries[0]["message"]


def test_a_structure_that_is_not_in_the_file(tmp_path: Path) -> None:
    content = payload(tmp_path) | {"keys": ["0" * 32]}
    with pytest.raises(DataError, match="lacks 1 of the 1"):
        run(content, tmp_path)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ModuleNotFoundError("no module named 'tblite'"), LabellerMissing),
        (OSError(errno.ENOSPC, "No space left on device"), StorageFull),
    ],
)
def test_what_no_other_structure_could_get_round_is_no_failed_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: type[Exception]
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    content = payload(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(label_task, "guarded_label", fail)
        with pytest.raises(expected, match="same command again"):
            run(content, tmp_path)
    assert [entry["ok"] for entry in run(content, tmp_path)["labels"]] == [True, False, False]
