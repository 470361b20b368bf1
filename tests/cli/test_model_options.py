"""Options of networks and losses from text: understood, or refused in one sentence."""

import pytest

from tace_al.cli.model_options import (
    check_labels,
    label_names,
    loss_weights,
    network_options,
    pairs,
    tensor_output,
)
from tace_al.core.errors import ConfigError
from tace_al.model.config import TaceConfig, TensorOutput, preset_config


def test_texts_become_values_of_the_declared_types() -> None:
    options = network_options(
        [
            "channels=16",
            "products=spatial, moment",
            "gate=true",
            "zbl=False",
            "embeddings=electric_field,fidelity",
            "cutoff=4.5",
            "radial_hidden=16,8",
            "charges=uniform",
        ],
        None,
        dtype="float64",
        cutoff=3.0,
    )
    assert options == {
        "channels": 16,
        "products": ("spatial", "moment"),
        "gate": True,
        "zbl": False,
        "embeddings": ("electric_field", "fidelity"),
        "cutoff": 4.5,  # the text comes before the option of its own
        "radial_hidden": (16, 8),
        "charges": "uniform",
        "dtype": "float64",
    }
    assert isinstance(preset_config("tiny", elements=("H",), **options), TaceConfig)


def test_channels_are_one_number_or_one_a_layer() -> None:
    assert network_options(["channels=8,4"], None)["channels"] == (8, 4)
    assert network_options(["channels=8"], None)["channels"] == 8


def test_what_is_not_given_is_left_to_the_preset() -> None:
    assert network_options(None, None, dtype=None, cutoff=None) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("chanels=8", "unknown model option 'chanels'. Did you mean 'channels'?"),
        ("heads=a,b", "unknown model option 'heads'"),
        ("channels", "--set channels is not KEY=VALUE"),
        ("channels=", "is not KEY=VALUE"),
        ("channels=many", "channels=many is not understood"),
        ("gate=perhaps", "gate=perhaps is not understood"),
        ("cutoff=5 A", "cutoff=5 A is not understood"),
    ],
)
def test_texts_that_are_no_options_are_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        network_options([text], None)
    assert words in str(refused.value)


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="--set names gate twice"):
        network_options(["gate=true", "gate=false"], None)
    assert pairs(["ccsd(t)=a=b.xyz"], "--also") == {"ccsd(t)": "a=b.xyz"}


def test_tensors_are_declared_in_one_word() -> None:
    assert tensor_output("dipole:1") == TensorOutput(name="dipole", rank=1)
    assert tensor_output("alpha:2:ij=ji") == TensorOutput(name="alpha", rank=2, symmetry="ij=ji")
    assert tensor_output("shift:2::atom") == TensorOutput(name="shift", rank=2, per="atom")
    options = network_options(None, ["dipole:1", "spin:0::atom"])
    assert [output.name for output in options["outputs"]] == ["dipole", "spin"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dipole", "is not NAME:RANK"),
        ("dipole:one", "is not NAME:RANK"),
        ("dipole:-1", "is not NAME:RANK"),
        ("alpha:2:ij=ji:atom:x", "is not NAME:RANK"),
        ("alpha:2:ij=ji:site", "structure or atom, not 'site'"),
        ("alpha:2:ij=jk", "alpha"),
        ("alpha:7", "alpha"),
        ("my tensor:1", "letters, digits and _"),
        ("energy:0", "every model has the output energy"),
        ("type:0", "means something to torch"),
    ],
)
def test_tensors_that_cannot_be_are_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        tensor_output(text)
    assert words in str(refused.value)


def test_weights_go_where_they_belong() -> None:
    weights = loss_weights(["energy=10", "dipole=2.5"])
    assert (weights.energy, weights.forces, weights.of("dipole")) == (10.0, 1.0, 2.5)
    assert loss_weights(None) == loss_weights([])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dipole=heavy", "dipole=heavy is not understood"),
        ("dipole=-1", "the weight of dipole is -1.0; give zero or more"),
        ("energy=nan", "the weight of energy is nan"),
        ("dipole", "--weight dipole is not KEY=VALUE"),
    ],
)
def test_weights_that_cannot_be_are_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        loss_weights([text])
    assert words in str(refused.value)


def test_labels_are_of_outputs_that_the_network_has() -> None:
    assert label_names(["dipole=mu"]) == {"dipole": "mu"}
    with pytest.raises(ConfigError, match="use --energy-key"):
        label_names(["energy=E"])
    plain = preset_config("tiny", elements=("H",))
    charged = preset_config("tiny", elements=("H",), charges="free")
    check_labels(["dipole", "charges"], charged)
    with pytest.raises(ConfigError, match="no output 'dipole'"):
        check_labels(["dipole"], plain)
    with pytest.raises(ConfigError, match="Did you mean 'dipole'"):
        label_names(["dipol=mu"], charged)
