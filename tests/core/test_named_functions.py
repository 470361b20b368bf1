from dataclasses import dataclass

import pytest

from tace_al.core.errors import ConfigError
from tace_al.core.named_functions import checked_options, import_path, named_callable


def function(first: int, *, width: float, count: int = 3, names: tuple[str, ...] = ()) -> None:
    """Take some options."""


@dataclass(kw_only=True)
class Kind:
    """A class whose fields are its options."""

    width: float = 1.0
    seed: int = 0


def test_options_become_what_the_annotations_say() -> None:
    checked = checked_options(function, {"width": 2, "names": ["a"]}, where="sampler x")
    assert checked == {"width": 2.0, "names": ("a",)} and isinstance(checked["width"], float)
    assert checked_options(Kind, {"width": 2}, reserved=("seed",), where="x") == {"width": 2.0}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 1.0, "cuont": 2}, "sampler x has no option 'cuont'. Did you mean 'count'?"),
        ({"width": "wide"}, "option width is 'wide'"),
        ({}, "needs a value for: width"),
    ],
)
def test_wrong_options_are_one_sentence(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        checked_options(function, options, where="sampler x")
    assert words in str(caught.value)
    with pytest.raises(ConfigError, match="has no option 'seed'"):
        checked_options(Kind, {"seed": 1}, reserved=("seed",), where="x")


def test_names_and_import_paths() -> None:
    assert import_path("a", {"a": "m:f"}, what="sampler") == "m:f"
    assert import_path("m:g", {"a": "m:f"}, what="sampler") == "m:g"
    with pytest.raises(ConfigError, match="Did you mean 'beam'"):
        import_path("baem", {"beam": "m:f"}, what="sampler")
    with pytest.raises(ConfigError, match="cannot be imported"):
        named_callable("no_such_module:f", what="sampler")
    with pytest.raises(ConfigError, match="cannot be imported"):
        named_callable("tace_al.core.errors:nowhere", what="sampler")
    with pytest.raises(ConfigError, match="no function or class"):
        named_callable("tace_al.core.units:__doc__", what="sampler")
