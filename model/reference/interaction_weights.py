"""The reference's interactions as ours.

A packed tensor is U^T times the reference's full one. Its harmonics are sqrt(c_l / (2l+1)) times
ours, its couplings 3^(-k/2) times the bare contraction, where ours have unit variance; both factors
go into the mixing linear. Its self connection is a species-dependent linear of the message.

Where one layer of the reference has fewer channels, degrees or paths than our one configuration for
all layers, the weights of what it lacks are zero.
"""

import math
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from tace_al.model import cartesian
from tace_al.model.interaction import message_paths
from tace_al.model.radial import BASIS_GAIN, SILU_GAIN
from tace_al.model.reference.settings import ReferenceNetwork
from tace_al.model.reference.stored_weights import StoredWeights, padded, storable

RESIDUAL_NORM = math.sqrt(2.0)
"""Our layers divide the sum of product and residual by this."""

Path = tuple[int, int, int]


def our_paths(network: ReferenceNetwork, index: int) -> list[Path]:
    """Return the message paths of one of our layers."""
    config = network.config
    l_feature = 0 if index == 0 else config.l_hidden
    return message_paths(l_feature, config.l_edge, config.l_edge)


def interaction_state(
    stored: StoredWeights, network: ReferenceNetwork, index: int
) -> dict[str, Tensor]:
    """Return the first linear and the mixing linears of one interaction."""
    config, layer = network.config, network.layers[index]
    ours, theirs = f"interactions.{index}.", f"descriptor.interactions.{index}."
    channels, paths = config.layer_channels[index], our_paths(network, index)
    up = []
    for l in range(layer.l_feature + 1):
        weight = stored.take(f"{theirs}linear_up.linears.{l}.weight")
        up.append(padded(storable(weight / math.sqrt(len(weight)), channels), channels, channels))
    state = {f"{ours}up": torch.stack(up)}
    if config.bias:
        state[f"{ours}up_bias"] = stored.take(f"{theirs}linear_up.linears.0.bias")
    state[f"{ours}inverse_neighbours"] = 1.0 / stored.take(f"{theirs}avg_num_neighbors")
    for l3 in range(config.l_edge + 1):
        mix = torch.zeros(sum(path[2] == l3 for path in paths), channels, channels).double()
        given = [path for path in layer.paths if path[2] == l3]
        if given:
            weight = stored.take(f"{theirs}tc.linear_downs.{l3}.weight")
            blocks = (weight / math.sqrt(len(weight))).reshape(len(given), -1, weight.shape[1])
            places = {path: place for place, path in enumerate(p for p in paths if p[2] == l3)}
            for path, block in zip(given, blocks, strict=True):
                factor = coupling_factor(path, scaled=network.harmonics_scaled)
                mix[places[path]] = padded(block * factor, channels, channels)
        flat = mix.flatten(0, 1)
        state[f"{ours}mix.{l3}"] = storable(flat, len(flat))
    return state


def coupling_factor(path: Path, *, scaled: bool) -> float:
    """Return the reference's coupling of features with harmonics in units of ours.

    Parameters
    ----------
    path
        (l1, l2, l3).
    scaled
        Its harmonics carry c_l = (2l-1)!!/l!.
    """
    l1, l2, l3 = path
    k = (l1 + l2 - l3) // 2
    bare = float(np.linalg.norm(cartesian.contraction(l1, l2, l3))) / math.sqrt(2 * l3 + 1)
    c = cartesian.harmonic_norm(l2)
    return 3.0 ** (-k / 2) * bare * math.sqrt((c if scaled else 1.0 / c) / (2 * l2 + 1))


def radial_state(stored: StoredWeights, network: ReferenceNetwork, index: int) -> dict[str, Tensor]:
    """Return the radial network of one interaction, its outputs in the order of our paths."""
    config = network.config
    name, ours = f"descriptor.interactions.{index}.radial_net.mlp.", f"interactions.{index}.radial."
    widths = [config.num_bessel, *config.radial_hidden]
    step = 3 if config.species_radial else 2  # linear, (layer norm,) SiLU
    places = [step * k for k in range(len(widths))]
    weights = [stored.take(f"{name}{place}.weight") for place in places]
    applied = [weights[0] / math.sqrt(len(weights[0]))]
    applied += [weight * math.sqrt(2.0 / len(weight)) for weight in weights[1:]]
    state = {}
    if config.species_radial:
        tables = species_tables(stored, network, index, applied[0][config.num_bessel :])
        state[f"{ours}species"] = tables
        applied[0] = applied[0][: config.num_bessel]
    *hidden, last = applied
    maps = [padded(weight, *shape) for weight, shape in zip(hidden, pairwise(widths), strict=True)]
    maps.append(by_our_paths(padded(last, widths[-1], last.shape[1]), network, index))
    gains = [BASIS_GAIN] + [SILU_GAIN] * len(hidden)
    for k, (weight, gain) in enumerate(zip(maps, gains, strict=True)):
        state[f"{ours}weights.{k}"] = storable(weight, len(weight)) / gain
    if config.radial_envelope == "weights":
        state |= open_radial_state(stored, network, index, places)
    return state


def open_radial_state(
    stored: StoredWeights, network: ReferenceNetwork, index: int, places: list[int]
) -> dict[str, Tensor]:
    """Return biases and layer norms of a radial network under an outer envelope."""
    name, ours = f"descriptor.interactions.{index}.radial_net.mlp.", f"interactions.{index}.radial."
    channels, paths = network.config.layer_channels[index], our_paths(network, index)
    widths = [*network.config.radial_hidden, len(paths) * channels]
    state = {f"{ours}biases.{k}": torch.zeros(width).double() for k, width in enumerate(widths)}
    for k, place in enumerate(places):
        if f"{name}{place}.bias" in stored:
            bias = stored.take(f"{name}{place}.bias")
            last = k == len(widths) - 1
            state[f"{ours}biases.{k}"] = (
                by_our_paths(bias.unsqueeze(0), network, index)[0] if last else bias
            )
        if f"{name}{place + 1}.weight" in stored:
            for part in ("weight", "bias"):
                state[f"{ours}norms.{k}.{part}"] = stored.take(f"{name}{place + 1}.{part}")
    return state


def by_our_paths(outputs: Tensor, network: ReferenceNetwork, index: int) -> Tensor:
    """Return (rows, paths * channels) of the reference in our order of paths, zero elsewhere."""
    layer, paths = network.layers[index], our_paths(network, index)
    result = torch.zeros(len(outputs), len(paths), network.config.layer_channels[index]).double()
    blocks = outputs.reshape(len(outputs), len(layer.paths), -1)
    for number, path in enumerate(layer.paths):
        result[:, paths.index(path), : blocks.shape[2]] = blocks[:, number]
    return result.flatten(1)


def species_tables(
    stored: StoredWeights, network: ReferenceNetwork, index: int, maps: Tensor
) -> Tensor:
    """Return what receivers and senders add in the first radial layer, (2, species, width).

    `maps` are the rows of the first linear that read their embeddings: senders', then receivers'.
    """
    num_species = len(network.config.elements)
    tables = torch.zeros(2, num_species, maps.shape[1]).double()
    for table, name in ((1, "source_embedding"), (0, "target_embedding")):
        name = f"descriptor.interactions.{index}.{name}.mlp.0.weight"
        if name in stored:
            embedding = stored.take(name) / math.sqrt(num_species)
            tables[table] = embedding @ maps[: embedding.shape[1]]
            maps = maps[embedding.shape[1] :]
    return tables


def residual_state(
    stored: StoredWeights, network: ReferenceNetwork, index: int
) -> dict[str, Tensor]:
    """Return the linear of the message that is added to the product; zero where there is none.

    Its bias gathers every constant that the reference adds to the features of a species.
    """
    config, layer = network.config, network.layers[index]
    channels, num_species = config.layer_channels[index], len(config.elements)
    maps = torch.zeros(num_species, config.layer_degrees[index] + 1, channels, channels).double()
    for l in layer.product.outputs:
        name = f"descriptor.interactions.{index}.scs.{l}.weights"
        if name in stored:
            weight = stored.take(name).transpose(1, 2)  # (species, in, out)
            applied = weight * (RESIDUAL_NORM / math.sqrt(weight.shape[1]))
            maps[:, l] = padded(applied, num_species, channels, channels)
    state = {f"residuals.{index}.weight": storable(maps, channels)}
    if config.bias:
        constants = RESIDUAL_NORM * species_constants(stored, network, index)
        state[f"residuals.{index}.bias"] = constants
    return state


def species_constants(stored: StoredWeights, network: ReferenceNetwork, index: int) -> Tensor:
    """Return what one layer adds to the l = 0 features, whatever the message, (species, channels).

    Biases of the product of each order go through the linear after it; the last layer's linear and
    self connections have their own.
    """
    product = f"descriptor.products.{index}."
    linear = stored.look(f"{product}linear.linears.0.weight")
    constants = torch.zeros(len(network.config.elements), linear.shape[1]).double()
    for order in range(1, network.layers[index].product.correlation + 1):
        name = f"{product}linears.{order}.0.bias"
        if name in stored:
            constants = constants + stored.take(name) @ linear / math.sqrt(len(linear))
    for name in (
        f"{product}linear.linears.0.bias",
        f"descriptor.interactions.{index}.scs.0.bias",
    ):
        if name in stored:
            constants = constants + stored.take(name)
    return constants
