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
    config, layer = network.config, network.layers[index]
    paths, channels = our_paths(network, index), config.layer_channels[index]
    name = f"descriptor.interactions.{index}.radial_net.mlp."
    weights = [stored.take(f"{name}{2 * k}.weight") for k in range(len(config.radial_hidden) + 1)]
    applied = [weights[0] / math.sqrt(len(weights[0]))]
    applied += [weight * math.sqrt(2.0 / len(weight)) for weight in weights[1:]]
    *hidden, last = applied
    widths = [config.num_bessel, *config.radial_hidden]
    maps = [padded(weight, *shape) for weight, shape in zip(hidden, pairwise(widths), strict=True)]
    outputs = torch.zeros(widths[-1], len(paths), channels).double()
    blocks = last.reshape(len(last), len(layer.paths), -1)
    for number, path in enumerate(layer.paths):
        outputs[: len(last), paths.index(path), : blocks.shape[2]] = blocks[:, number]
    maps.append(outputs.flatten(1))
    gains = [BASIS_GAIN] + [SILU_GAIN] * len(hidden)
    return {
        f"interactions.{index}.radial.weights.{k}": storable(weight, len(weight)) / gain
        for k, (weight, gain) in enumerate(zip(maps, gains, strict=True))
    }


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
