"""The compiled kernels say what PyTorch's operators say, on every network."""

import pytest
from potentials import Potential, close
from structures import systems

from tace_al.model.kernels import native


def test_compiled_or_not(model: Potential, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = list(systems(model).values())
    compiled = model.answers(frames)
    monkeypatch.setattr(native, "takes", lambda tensor: False)
    for fast, slow in zip(compiled, model.answers(frames), strict=True):
        for name, values in slow.items():
            assert close(fast[name], values, model.tolerance), name
