"""A reference checkpoint's configuration in our terms.

What the reference chooses layer by layer (degrees, orders, widths) becomes the largest of all
layers in our one configuration; the weights of what a layer lacks are zero.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ase.data import chemical_symbols
from torch import Tensor

from tace_al.core.errors import CheckpointError
from tace_al.model.config import FIDELITY, TaceConfig
from tace_al.model.reference.checkpoint import ReferenceCheckpoint
from tace_al.model.reference.product_paths import ReferenceProduct, allowed
from tace_al.model.reference.refusals import (
    INVARIANT_NAMES,
    enabled_embeddings,
    reads_species,
    refuse_unsupported,
)

DEFAULTS: dict[str, Any] = {
    "num_layers": 2,
    "lmax": 3,
    "Lmax": 2,
    "radial_basis": {"radial_basis": "j0"},
    "radial_mlp": {"hidden": [64, 64, 64]},
    "angular_basis": {},
    "inter": {},
    "prod": {"correlation": 3},
    "readout_emlp": {},
}
"""What the reference takes where a configuration says nothing."""

LENGTH_OFFSET = 1e-9
"""Angstrom, added by the reference to every distance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceLayer:
    """One layer of the reference.

    Parameters
    ----------
    l_feature
        Largest degree of the features it reads.
    paths
        (l1, l2, l3) of its messages, in the reference's order.
    product
        Paths of its product basis.
    precomputed
        The product is stored as generalised couplings.
    """

    l_feature: int
    paths: tuple[tuple[int, int, int], ...]
    product: ReferenceProduct
    precomputed: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceNetwork:
    """A checked checkpoint.

    Parameters
    ----------
    config
        Our configuration of the same network.
    layers
        Its layers.
    levels
        Row of E0, scale, shift and readout that each of our heads takes.
    harmonics_scaled
        Harmonics carry (2l-1)!!/l!.
    coupled
        Output degrees whose product weights mix channels.
    invariants
        Its invariant embeddings in their order, by its names.
    field_factor
        What it multiplies electric fields with.
    """

    config: TaceConfig
    layers: tuple[ReferenceLayer, ...]
    levels: tuple[int, ...]
    harmonics_scaled: bool
    coupled: frozenset[int]
    invariants: tuple[str, ...]
    field_factor: float


def check_settings(
    checkpoint: ReferenceCheckpoint, *, head_names: Sequence[str] = ()
) -> ReferenceNetwork:
    """Return the network of a checkpoint in our terms.

    Parameters
    ----------
    checkpoint
        What was read.
    head_names
        Names for its levels; "default", or "level_0", "level_1", ..., when empty.

    Raises
    ------
    CheckpointError
        Something in it is not imported; the message says what.
    """
    checkpoint = replace(checkpoint, config={**DEFAULTS, **checkpoint.config})
    config = checkpoint.config
    refuse_unsupported(checkpoint)
    num_layers = int(config["num_layers"])
    l_max = per_layer(config["lmax"], num_layers)
    l_hidden = per_layer(config["Lmax"], num_layers)
    inter, prod = config["inter"], config["prod"]
    correlation = per_layer(prod.get("correlation", 3), num_layers)
    layers = []
    for layer in range(num_layers):
        last = layer == num_layers - 1
        l_feature = 0 if layer == 0 else l_hidden[layer]
        product = ReferenceProduct(
            l_max=l_max[layer],
            outputs=(0,) if last else tuple(range(l_hidden[layer] + 1)),
            correlation=correlation[layer],
            l1l2=per_layer(prod.get("l1l2"), num_layers)[layer],
            l3l1=per_layer(prod.get("l3l1"), num_layers)[layer],
            left_out=tuple(prod.get("filter_idx") or ()),
            couplings=written_paths(prod, layer),
        )
        restriction = per_layer(inter.get("l1l2"), num_layers)[layer]
        layers.append(
            ReferenceLayer(
                l_feature=l_feature,
                paths=message_couplings(l_feature, l_max[layer], restriction, inter),
                product=product,
                precomputed=bool(prod.get("precompute", False)),
            )
        )
    heads, levels = heads_of(checkpoint, head_names)
    return ReferenceNetwork(
        config=our_config(checkpoint, layers, heads),
        layers=tuple(layers),
        levels=levels,
        harmonics_scaled=bool(config["angular_basis"].get("norm", True)),
        coupled=coupled_degrees(config, max(l_max)),
        invariants=tuple(enabled_embeddings(config, "invariant")),
        field_factor=field_factor(config),
    )


def per_layer(value: Any, num_layers: int) -> list[Any]:
    """Return one value a layer from one for all or one a layer."""
    return list(value) if isinstance(value, list | tuple) else [value] * num_layers


def message_couplings(
    l_feature: int, l_max: int, restriction: str | None, inter: Mapping[str, Any]
) -> tuple[tuple[int, int, int], ...]:
    """Return the (l1, l2, l3) of one layer's messages in the reference's order."""
    left_out = [tuple(path)[:3] for path in inter.get("filter_combs") or []]
    return tuple(
        (l1, l2, l3)
        for l1 in range(l_feature + 1)
        for l2 in range(l_max + 1)
        for l3 in range(abs(l1 - l2), min(l_max, l1 + l2) + 1, 2)
        if allowed(restriction, l1, l2) and (l1, l2, l3) not in left_out
    )


def written_paths(prod: Mapping[str, Any], layer: int) -> list[list[tuple[int, int, int]]] | None:
    """Return the paths of one product where the configuration lists them (`whole_model`)."""
    if prod.get("paths") is None:
        return None
    return [[(l1, l2, l3) for l1, l2, l3, _ in order] for order in prod["paths"][layer]]


def heads_of(
    checkpoint: ReferenceCheckpoint, head_names: Sequence[str]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the names of our heads and the level of the reference that each reads.

    Levels that only enter by their embedding share one readout there; here each has a copy.
    """
    num_levels = int(checkpoint.config.get("num_levels", 1))
    levels = tuple(range(num_levels))
    if "level" in enabled_embeddings(checkpoint.config, "invariant"):
        table = checkpoint.state["descriptor.uie_embedding.embeddings.level.weight"]
        levels = levels if num_levels > 1 else (0,) * len(table)
    if head_names and len(head_names) != len(levels):
        raise CheckpointError(
            f"{len(head_names)} names are given for the {len(levels)} levels of this checkpoint"
        )
    if head_names:
        return tuple(head_names), levels
    if len(levels) == 1:
        return ("default",), levels
    return tuple(f"level_{index}" for index in range(len(levels))), levels


def our_config(
    checkpoint: ReferenceCheckpoint, layers: Sequence[ReferenceLayer], heads: tuple[str, ...]
) -> TaceConfig:
    """Return our configuration of the reference's network."""
    config, state = checkpoint.config, checkpoint.state
    after_product = state["descriptor.products.0.linear.linears.0.weight"]
    channels = max(after_product.shape)
    embeddings = [INVARIANT_NAMES[name] for name in enabled_embeddings(config, "invariant")]
    embeddings += enabled_embeddings(config, "equivariant")
    conditions = tuple(name for name in embeddings if name != FIDELITY)
    return TaceConfig(
        elements=tuple(chemical_symbols[z] for z in state["atomic_numbers"].tolist()),
        cutoff=float(config["cutoff"]),
        num_layers=len(layers),
        channels=channels,
        l_edge=max(layer.product.l_max for layer in layers),
        l_hidden=max((max(layer.product.outputs) for layer in layers), default=0),
        correlation=max(layer.product.correlation for layer in layers),
        num_bessel=len(state["descriptor.radial_embedding.radial_fn.bessel_weights"]),
        radial_hidden=radial_widths(state, len(layers)),
        cutoff_power=int(state["descriptor.radial_embedding.cutoff_fn.p"]),
        product_weights="coupled" if coupled_degrees(config, 0) else "channel",
        radial_envelope="basis" if config["radial_basis"].get("apply_cutoff", True) else "weights",
        species_radial=reads_species(config),
        residual="message",
        bias=bool(config.get("bias", False)),
        average_neighbours=float(state["descriptor.interactions.0.avg_num_neighbors"]),
        zbl=False,
        heads=heads,
        readout_width=readout_width(state, int(config.get("num_levels", 1))),
        embeddings=tuple(embeddings),
        embedding_activation="silu",
        embedding_width=after_product.shape[1],
        required_conditions=conditions,
        site_gate="lone",
        length_offset=LENGTH_OFFSET,
        dtype="float64",
    )


def radial_widths(state: Mapping[str, Tensor], num_layers: int) -> tuple[int, ...]:
    """Return the widths of the radial networks, the largest of all layers."""
    widths = []
    for layer in range(num_layers):
        prefix = f"descriptor.interactions.{layer}.radial_net.mlp."
        weights = [tensor for name, tensor in state.items() if name.startswith(prefix)]
        linear = [weight for weight in weights if weight.dim() == 2]  # no biases, no layer norms
        widths.append([weight.shape[1] for weight in linear[:-1]])
    return tuple(max(column) for column in zip(*widths, strict=True))


def readout_width(state: Mapping[str, Tensor], levels: int) -> int:
    """Return the hidden width of one level's last readout."""
    name = "mlp_1" if levels > 1 else "mlp"
    last = [key for key in state if key.startswith("energy_readouts.")][-1].split(".")[1]
    hidden = [key for key in state if key.startswith(f"energy_readouts.{last}.")]
    if len(hidden) != 2:
        raise CheckpointError(
            "the last readout of this checkpoint is not one hidden layer; that is not imported"
        )
    return state[f"energy_readouts.{last}.{name}.0.weight"].shape[1] // levels


def coupled_degrees(config: Mapping[str, Any], l_max: int) -> frozenset[int]:
    """Return the output degrees of the product whose path weights mix channels."""
    coupled = config["prod"].get("coupled_channel", True)
    if config["prod"].get("precompute", False):
        return frozenset()
    if not isinstance(coupled, Mapping):
        return frozenset(range(l_max + 1)) if coupled else frozenset()
    return frozenset(int(l) for l, mixes in coupled.items() if mixes)


def field_factor(config: Mapping[str, Any]) -> float:
    """Return what electric fields are multiplied with."""
    equivariant = (config.get("universal_embedding") or {}).get("equivariant") or {}
    return float((equivariant.get("electric_field") or {}).get("normalizer", 1.0))
