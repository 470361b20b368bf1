"""The error tree: one base, names suggested, and errors that survive a process border."""

import pickle

import pytest

from tace_al.core import errors
from tace_al.core.errors import LabelFailed, TaceError, nearest_names


def test_every_error_derives_from_the_base_and_is_in_the_drawing() -> None:
    classes = [item for item in vars(errors).values() if isinstance(item, type)]
    raised = [item for item in classes if item.__module__ == errors.__name__]
    assert len(raised) > 10
    for error in raised:
        assert issubclass(error, TaceError)
        assert error.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("temprature", "Did you mean 'temperature'?"), ("zzz", "Valid names: temperature, timestep.")],
)
def test_the_nearest_name_is_suggested(name: str, expected: str) -> None:
    assert nearest_names(name, ["timestep", "temperature"]) == f" {expected}"


def test_nothing_is_suggested_from_nothing() -> None:
    assert nearest_names("x", []) == ""


def test_a_failed_label_keeps_its_kind_through_pickle() -> None:
    copy = pickle.loads(pickle.dumps(LabelFailed("parity", "odd electrons; set a doublet")))
    assert copy.kind == "parity"
    assert str(copy) == copy.message == "odd electrons; set a doublet"
