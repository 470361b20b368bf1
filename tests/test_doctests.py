"""The examples in docstrings run, and say what they show."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def modules_with_examples() -> list[str]:
    """Return the modules of the package, linked folders included, that hold an example."""
    folders = ["tace_al", "tace_al/model", "tace_al/engines", "tace_al/workflows"]
    paths = {path for folder in folders for path in (ROOT / folder).rglob("*.py")}
    return sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in paths
        if ">>> " in path.read_text(encoding="utf-8")
    )


@pytest.mark.parametrize("module", modules_with_examples())
def test_examples(module: str) -> None:
    results = doctest.testmod(importlib.import_module(module))
    assert results.attempted and not results.failed
