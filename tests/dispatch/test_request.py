import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tace_al.core.errors import DispatchError
from tace_al.dispatch.request import Envelope, Request, placed, portable

FUNCTION = "tace_al.dispatch.tasks.probe:run"


def test_key_is_the_content_and_nothing_else() -> None:
    one = Request.build("probe", FUNCTION, {"a": 1, "b": [1.5, "x"]})
    same = Request.build("probe", FUNCTION, {"b": [1.5, "x"], "a": 1}, timeout_s=3.0)
    assert one.key == same.key
    assert one.key != Request.build("probe", FUNCTION, {"a": 2, "b": [1.5, "x"]}).key
    assert one.key != Request.build("other", FUNCTION, {"a": 1, "b": [1.5, "x"]}).key


@pytest.mark.parametrize("function", ["os:system", "tace_al.x", "tace_al.x:y.z", "tace_alx:run"])
def test_only_functions_of_the_package(function: str) -> None:
    with pytest.raises(DispatchError, match="cannot run"):
        Request.build("probe", function, {})


@pytest.mark.parametrize("payload", [{"a": np.zeros(2)}, {"a": {1, 2}}, {"a": float("nan")}])
def test_only_plain_payloads(payload: dict[str, object]) -> None:
    with pytest.raises(DispatchError, match="not plain"):
        Request.build("probe", FUNCTION, payload)


def test_kind_is_a_safe_folder_name() -> None:
    with pytest.raises(DispatchError, match="kind"):
        Request.build("../up", FUNCTION, {})


def test_envelope_travels_as_builtins() -> None:
    envelope = Envelope(key="k", kind="probe", ok=True, result={"a": 1}, folder="f", ended=2.0)
    assert Envelope.from_dict(envelope.to_dict()) == envelope
    assert envelope.seconds == 2.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        envelope.ok = False  # type: ignore[misc]


def test_a_moved_campaign_asks_with_the_same_key(tmp_path: Path) -> None:
    keys, files = set(), []
    for folder in (tmp_path / "before", tmp_path / "after"):
        payload = portable({"frames": folder / "inputs" / "a.npz", "models": ()}, folder)
        request = Request.build("probe", FUNCTION, payload)
        keys.add(request.key)
        files.append(placed(request.payload, folder)["frames"])
    assert len(keys) == 1
    assert files == [str(tmp_path / name / "inputs" / "a.npz") for name in ("before", "after")]
    assert portable(Path("/elsewhere/a.npz"), tmp_path) == "/elsewhere/a.npz"
