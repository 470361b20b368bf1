"""Whole pickled models of the reference package, read as data.

`torch.save(model)` pickles a tree of modules by the names of their classes. Here every such name is
given an inert stand-in that keeps attributes and runs nothing, so that the tree can be walked: its
parameters and buffers are the state, its attributes say the configuration. Names outside the few
packages that such a tree needs are refused.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast, final

import torch
from torch import Tensor

from tace_al.core.errors import CheckpointError

PACKAGES = (
    "tace.",
    "cartnn.",
    "e3nn.",
    "torch.nn.modules.",
    "torch.fx.",
    "pathlib.",
    "numpy.",
    "builtins.slice",
)
"""Where the names of a model's classes may come from."""


@final
class StandIn:
    """Takes the place of a class or function: keeps what it is given, runs nothing.

    Every name gets a copy of this class of its own (`stand_ins`), by which objects are told apart.
    """

    def __init__(self, *values: object) -> None:
        self.values = values

    def __setstate__(self, attributes: object) -> None:
        self.attributes = attributes if isinstance(attributes, Mapping) else {}

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute of the object that this stands for."""
        return getattr(self, "attributes", {}).get(name, default)


def stand_ins(names: Sequence[str]) -> list[tuple[type[StandIn], str]]:
    """Return an inert class of the same name for each name, as torch takes them.

    Raises
    ------
    CheckpointError
        A name has no place in a model.
    """
    foreign = [name for name in names if not name.startswith(PACKAGES)]
    if foreign:
        raise CheckpointError(
            f"the file names {', '.join(foreign[:3])}, which have no place in a model of "
            "tace==0.1.0; nothing in it was executed. Do not use a file from such a source"
        )
    return [(type(name.rsplit(".", 1)[-1], (StandIn,), {}), name) for name in names]


def read_whole_model(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Return the content of a pickled model, laid out like an exported checkpoint.

    Parameters
    ----------
    path
        The file.
    names
        Names in it that are not known to be safe.

    Raises
    ------
    CheckpointError
        It names something else, or is not a model of tace==0.1.0.
    """
    with torch.serialization.safe_globals(cast(Any, stand_ins(names))):
        model = torch.load(path, map_location="cpu", weights_only=True)
    network = child(model, "readout_fn")
    if network is None or child(network, "descriptor") is None:
        raise CheckpointError(f"{path} is a pickled object, but no model of tace==0.1.0")
    return {
        "state_dict": dict(tensors(model)),
        "cfg": network.get("model_config") or configuration(network),
        "target_property": network.get("target_property"),
    }


def child(module: object, name: str) -> StandIn | None:
    """Return a submodule by name."""
    modules = module.get("_modules", {}) if isinstance(module, StandIn) else {}
    found = modules.get(name)
    return found if isinstance(found, StandIn) else None


def children(module: StandIn, name: str) -> list[StandIn]:
    """Return the entries of a list of submodules."""
    entries = child(module, name)
    return [] if entries is None else list(entries.get("_modules", {}).values())


def tensors(module: StandIn, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Return parameters and buffers of a tree of modules under the names of its state."""
    for kind in ("_parameters", "_buffers"):
        for name, tensor in module.get(kind, {}).items():
            if isinstance(tensor, Tensor):
                yield f"{prefix}{name}", tensor
    for name, submodule in module.get("_modules", {}).items():
        if isinstance(submodule, StandIn):
            yield from tensors(submodule, f"{prefix}{name}.")


def configuration(network: StandIn) -> dict[str, Any]:
    """Return the configuration of a model that does not carry it, from its parts' attributes."""
    descriptor = child(network, "descriptor")
    assert descriptor is not None
    interactions, products = children(descriptor, "interactions"), children(descriptor, "products")
    radial, angular = child(descriptor, "radial_embedding"), child(descriptor, "angular_embedding")
    assert radial is not None
    assert angular is not None
    first = interactions[0]
    return {
        "cutoff": radial.get("for_copy")["cutoff"],
        "max_neighbors": network.get("max_neighbors"),
        "num_layers": len(interactions),
        "lmax": [interaction.get("lmax_out") for interaction in interactions],
        "Lmax": [
            interaction.get("lmax_in") if index else max(product.get("ls_out"))
            for index, (interaction, product) in enumerate(zip(interactions, products, strict=True))
        ],
        "bias": first.get("bias"),
        "num_levels": network.get("num_levels"),
        "use_multi_head": network.get("use_multi_head"),
        "radial_basis": radial.get("for_copy"),
        "angular_basis": {key: angular.get(key) for key in ("norm", "traceless")},
        "radial_mlp": first.get("radial_mlp"),
        "inter": first.get("inter"),
        "prod": product_configuration(products),
        "readout_emlp": readout_configuration(network),
        "short_range": {"zbl": {"enable": child(network, "zbl") is not None}},
        "long_range": {"les": {"enable": child(network, "les") is not None}},
        "universal_embedding": network.get("universal_embedding"),
    }


def product_configuration(products: Sequence[StandIn]) -> dict[str, Any]:
    """Return the configuration of the products, with their paths written out."""
    if type(products[0]).__name__ == "PrecomputedSelfContraction":
        return {"correlation": 2, "precompute": True, "coupled_channel": False}
    coupled: dict[int, bool] = {}
    for product in products:
        coupled |= product.get("coupled_channel", {})
    return {
        "correlation": [product.get("correlation") for product in products],
        "coupled_channel": coupled,
        "paths": [product.get("paths_list_list") for product in products],
    }


def readout_configuration(network: StandIn) -> dict[str, Any]:
    """Return the configuration of the readouts."""
    last = children(network, "energy_readouts")[-1]
    kinds = {
        type(part).__name__
        for sequence in last.get("_modules", {}).values()
        for part in sequence.get("_modules", {}).values()
    }
    activations = kinds - {"LinearLayer"}
    return {
        "use_all_layer": network.get("use_all_layer"),
        "bias": bool(last.get("bias", False)),
        "act": "silu" if activations <= {"SiLU"} else ", ".join(sorted(activations)),
        "enable_uie_readout": child(network, "uie_readout") is not None,
    }
