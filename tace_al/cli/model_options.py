"""Options of networks and losses on the command line, KEY=VALUE as in `tace-al run --set`."""

import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tace_al.core.errors import ConfigError, nearest_names

if TYPE_CHECKING:
    from tace_al.data.extxyz import LabelKeys
    from tace_al.model.config import TaceConfig, TensorOutput
    from tace_al.model.loss import LossWeights

ModelOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="OPTION=VALUE",
        help="Option of the network, such as products=spatial, embeddings=electric_field,"
        "total_charge or charges=free. Repeat for more.",
    ),
]
Tensors = Annotated[
    list[str] | None,
    typer.Option(
        "--tensor",
        metavar="NAME:RANK[:SYMMETRY[:atom]]",
        help="A tensor to read directly, such as quadrupole:2:ij=ji; labels are REF_NAME.",
    ),
]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        "--weight", metavar="OUTPUT=NUMBER", help="Weight of an output in the loss. Repeatable."
    ),
]
OtherKeys = Annotated[
    list[str] | None,
    typer.Option(
        "--key", metavar="OUTPUT=NAME", help="Name of another label, such as dipole=mu. Repeatable."
    ),
]


def pairs(texts: Sequence[str] | None, option: str) -> dict[str, str]:
    """Return KEY=VALUE texts as a dictionary."""
    found = {}
    for text in texts or ():
        key, separator, value = text.partition("=")
        if not (separator and key.strip() and value.strip()):
            raise ConfigError(f"{option} {text} is not KEY=VALUE; write {option} key=value")
        if key.strip() in found:
            raise ConfigError(f"{option} names {key.strip()} twice; keep one of them")
        found[key.strip()] = value.strip()
    return found


def label_names(texts: Sequence[str] | None, config: "TaceConfig | None" = None) -> dict[str, str]:
    """Return the file's names of labels by output from OUTPUT=NAME texts.

    With a network's shape, labels of outputs that it has not are refused.
    """
    names = pairs(texts, "--key")
    for output in ("energy", "forces", "stress"):
        if output in names:
            raise ConfigError(f"--key {output}={names[output]}: use --{output}-key for that")
    if config is not None:
        check_labels(names, config)
    return names


def label_keys(energy: str, forces: str, stress: str, *, others: dict[str, str]) -> "LabelKeys":
    """Return what a file calls its labels."""
    from tace_al.data.extxyz import LabelKeys

    return LabelKeys(energy=energy, forces=forces, stress=stress, others=others)


def check_labels(names: Iterable[str], config: "TaceConfig") -> None:
    """Refuse labels and weights of outputs that a network has not."""
    from tace_al.model.outputs import output_shapes

    known = output_shapes(config)
    for name in names:
        if name not in known:
            raise ConfigError(
                f"the network has no output '{name}' to learn; correct the name, or add the output "
                f"with --tensor or --set.{nearest_names(name, known)}"
            )


def network_options(
    texts: Sequence[str] | None, tensors: Sequence[str] | None, **given: Any
) -> dict[str, Any]:
    """Return options of `TaceConfig` from KEY=VALUE texts, declared tensors, and given ones.

    Given ones that are None are left out; texts come before them.
    """
    from tace_al.model.config import TaceConfig

    kinds = typing.get_type_hints(TaceConfig)
    known = {field.name for field in fields(TaceConfig)} - {"elements", "heads", "outputs"}
    options = {name: value for name, value in given.items() if value is not None}
    for name, text in pairs(texts, "--set").items():
        if name not in known:
            raise ConfigError(f"unknown model option '{name}'.{nearest_names(name, known)}")
        options[name] = _value(name, text, kinds[name])
    if tensors:
        options["outputs"] = tuple(tensor_output(text) for text in tensors)
    return options


def tensor_output(text: str) -> "TensorOutput":
    """Return a declared tensor from NAME:RANK[:SYMMETRY[:atom]]."""
    from tace_al.model.config import TensorOutput

    name, *rest = text.split(":")
    if not rest or not rest[0].isdigit() or len(rest) > 3:
        raise ConfigError(
            f"--tensor {text} is not NAME:RANK[:SYMMETRY[:atom]]; write quadrupole:2:ij=ji"
        )
    per: Literal["structure", "atom"] = "structure"
    if rest[2:] == ["atom"]:
        per = "atom"
    elif rest[2:] not in ([], ["structure"]):
        raise ConfigError(f"--tensor {text}: the last part is structure or atom, not '{rest[2]}'")
    symmetry = rest[1] if len(rest) > 1 else ""
    return TensorOutput(
        name=name,
        rank=int(rest[0]),
        symmetry=symmetry,
        per="atom" if per == "atom" else "structure",
    )


def loss_weights(texts: Sequence[str] | None) -> "LossWeights":
    """Return weights of the loss from OUTPUT=NUMBER texts."""
    from tace_al.model.loss import LossWeights

    weights = {name: _value(name, text, float) for name, text in pairs(texts, "--weight").items()}
    named = {name: weights.pop(name) for name in ("energy", "forces", "stress") if name in weights}
    return LossWeights(**named, others=weights)


def _value(name: str, text: str, kind: Any) -> Any:
    """Return a text as a value of a declared type."""
    from tace_al.model.config import check_choice

    if typing.get_origin(kind) is typing.Literal:
        check_choice(name, text, kind)
        return text
    choices = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    for choice in choices:
        try:
            return _converted(text, choice)
        except ValueError:
            continue
    raise ConfigError(f"{name}={text} is not understood; give a value like that of the default")


def _converted(text: str, kind: Any) -> Any:
    """Return a text as one type; ValueError if it is not."""
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        inner = str if typing.get_origin(item) is typing.Literal else item
        return tuple(_converted(part.strip(), inner) for part in text.split(","))
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    return kind(text)
