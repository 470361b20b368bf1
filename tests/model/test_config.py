"""Shapes of networks: checked when made, rebuilt from plain content, misspellings answered."""

import json

import pytest

from tace_al.core.errors import ConfigError
from tace_al.model.config import PRESETS, TaceConfig, TensorOutput, preset_config


def test_elements_are_put_in_order_once() -> None:
    assert TaceConfig(elements=("O", "H", "O", "C")).elements == ("H", "C", "O")
    assert TaceConfig(elements=("Pt", "O")).numbers == [8, 78]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_configuration_survives_json(preset: str) -> None:
    config = preset_config(preset, elements=("H", "O"), heads=("gfn2", "pbe"))
    assert TaceConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"elements": ()}, "chemical symbols"),
        ({"elements": ("Xx",)}, "chemical symbols"),
        ({"elements": ("H",), "cutoff": 0.0}, "cutoff is 0.0"),
        ({"elements": ("H",), "cutoff": float("nan")}, "cutoff is nan"),
        ({"elements": ("H",), "l_hidden": 3}, "l_hidden"),
        ({"elements": ("H",), "l_edge": 9}, "l_edge"),
        ({"elements": ("H",), "heads": ()}, "head"),
        ({"elements": ("H",), "heads": ("a.b",)}, "without dots"),
        ({"elements": ("H",), "heads": ("a", "a")}, "all different"),
        ({"elements": ("X",)}, "chemical symbols"),
        ({"elements": ("H",), "dtype": "float16"}, "float16"),
    ],
)
def test_impossible_shapes_are_refused(options: dict, message: str) -> None:
    # TypeError: where the tests check declared types, a wrong Literal does not get past the call.
    with pytest.raises((ConfigError, TypeError), match=message):
        TaceConfig(**options)


def test_the_nearest_name_is_suggested() -> None:
    with pytest.raises(ConfigError, match=r"unknown preset 'smal'.*'small'"):
        preset_config("smal", elements=("H",))
    with pytest.raises(ConfigError, match=r"unknown model option 'chanels'.*'channels'"):
        preset_config("tiny", elements=("H",), chanels=3)


def test_known_outputs_keep_their_shape() -> None:
    with pytest.raises(ConfigError, match="dipole is of rank 1 and one per structure"):
        TensorOutput(name="dipole", rank=1, per="atom")
    with pytest.raises(ConfigError, match="forces is of rank 1"):
        TensorOutput(name="forces", rank=0, per="atom")
    charges = TensorOutput(name="charges", rank=0, per="atom")
    assert TaceConfig(elements=("H",), outputs=(charges,)).outputs == (charges,)
    with pytest.raises(ConfigError, match="charges are free already"):
        TaceConfig(elements=("H",), outputs=(charges,), charges="free")
