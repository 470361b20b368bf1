"""The reference's product weights as ours, path by path (`product_paths`).

    out^l = [ sum_n sum_p W_n[Z, p] B^ref_p ] L,   B^ref_p = sum_q M_qp B_q

W mixes channels (coupled) or weights each alone (channel-wise), per species or for all; L is one
linear for all species. Coupled weights take L in; channel-wise ones leave it to our linear.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from tace_al.model.product import needed_paths
from tace_al.model.reference.interaction_weights import RESIDUAL_NORM
from tace_al.model.reference.product_paths import (
    path_projections,
    precomputed_values,
    reference_values,
)
from tace_al.model.reference.settings import ReferenceNetwork
from tace_al.model.reference.stored_weights import StoredWeights, padded, storable


def product_state(
    stored: StoredWeights, network: ReferenceNetwork, index: int
) -> dict[str, Tensor]:
    """Return the path weights of one product, and the linear after channel-wise ones."""
    config, outputs = network.config, network.layers[index].product.outputs
    channels, num_species = config.layer_channels[index], len(config.elements)
    degrees = path_degrees(network, index)
    projections = path_projections(
        reference_paths(stored, network, index),
        l_in=config.l_edge,
        l_out=config.layer_degrees[index],
        correlation=config.correlation,
    )
    by_degree: dict[int, Tensor] = {}
    linears: dict[int, Tensor] = {}
    for l in outputs:
        linear = stored.take(f"descriptor.products.{index}.linear.linears.{l}.weight")
        linears[l] = linear * (RESIDUAL_NORM / math.sqrt(len(linear)))
        terms = [
            torch.einsum("qp,zp...->zq...", matrix, path_weights(stored, network, index, order, l))
            for (order, degree), matrix in projections.items()
            if degree == l
        ]
        by_degree[l] = torch.stack(terms).sum(dim=0)
    if config.product_weights == "coupled":
        return {
            f"products.{index}.coupled.weights.{l}": coupled(
                by_degree.get(l), linears.get(l), (num_species, degrees.count(l), channels)
            )
            for l in range(config.layer_degrees[index] + 1)
        }
    weight = torch.zeros(num_species, len(degrees), channels).double()
    for l, numbers in by_degree.items():
        places = [place for place, degree in enumerate(degrees) if degree == l]
        rows = storable(numbers, len(places))
        weight[:, places] = padded(rows, num_species, len(places), channels)
    linear = torch.zeros(config.layer_degrees[index] + 1, channels, channels).double()
    for l, matrix in linears.items():
        linear[l] = padded(storable(matrix, channels), channels, channels)
    return {f"products.{index}.weight": weight, f"products.{index}.linear.weight": linear}


def reference_paths(
    stored: StoredWeights, network: ReferenceNetwork, index: int
) -> Callable[[np.ndarray], list[dict[int, list[np.ndarray]]]]:
    """Return what gives the values of one product's paths on messages."""
    layer = network.layers[index]
    if not layer.precomputed:
        return partial(reference_values, layer.product)
    couplings = {
        (order, l): stored.take(contraction_name(index, l, f"U_matrix_{order}")).numpy()
        for order in range(1, layer.product.correlation + 1)
        for l in layer.product.outputs
    }
    return partial(precomputed_values, couplings)


def contraction_name(index: int, l: int, name: str) -> str:
    """Return the name of a tensor of a precomputed product."""
    return f"descriptor.products.{index}.symmetric_contractions.contractions.{l}.{name}"


def path_degrees(network: ReferenceNetwork, index: int) -> list[int]:
    """Return the degree of each weighted path of one of our products, in its order."""
    config, l_out = network.config, network.config.layer_degrees[index]
    orders = needed_paths(config.l_edge, l_out, config.correlation)
    return [path.l3 for order in orders for path in order if path.l3 <= l_out]


def coupled(numbers: Tensor | None, linear: Tensor | None, shape: tuple[int, int, int]) -> Tensor:
    """Return the stored matrices of all paths of one degree.

    Parameters
    ----------
    numbers
        (species, paths, channels[, channels]) of our paths; None for a degree without any.
    linear
        What follows them.
    shape
        Number of species, paths and channels.
    """
    num_species, num_paths, channels = shape
    if numbers is None or linear is None:
        return torch.zeros(num_species, num_paths * channels, channels).double()
    if numbers.dim() == 3:
        numbers = torch.diag_embed(numbers)
    matrices = padded(numbers @ linear, num_species, num_paths, channels, channels)
    return storable(matrices.flatten(1, 2), num_paths * channels)


def path_weights(
    stored: StoredWeights, network: ReferenceNetwork, index: int, order: int, l: int
) -> Tensor:
    """Return what the reference applies to its paths of one order and degree.

    (species, paths, channels), or (species, paths, channels, channels) from in to out if coupled.
    """
    num_species, layer = len(network.config.elements), network.layers[index]
    if layer.precomputed:
        name = "weights_max" if order == layer.product.correlation else f"weights.{order - 1}"
        weight = stored.take(contraction_name(index, l, name))
        return weight.expand(num_species, *weight.shape[1:])
    name = f"descriptor.products.{index}.linears.{order}.{l}.weight"
    for_all = name in stored  # one for all species: "weight", not "weights"
    weight = stored.take(name if for_all else f"{name}s")
    if l not in network.coupled:  # (species, channels, paths)
        weight = weight.unsqueeze(0) if for_all else weight
        applied = weight.transpose(1, 2) / math.sqrt(weight.shape[2])
    else:  # (paths * channels in, channels out) for all, (species, out, paths * in) otherwise
        weight = weight.unsqueeze(0) if for_all else weight.transpose(1, 2)
        blocks = weight.reshape(len(weight), -1, weight.shape[2], weight.shape[2])
        applied = blocks / math.sqrt(weight.shape[1])
    return applied.expand(num_species, *applied.shape[1:])
