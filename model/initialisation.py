"""Starting weights measured on the training set: every layer begins at a known size.

Two layers of third powers make an untrained energy a polynomial of ninth degree in the messages:
messages twice too large make forces hundreds of times too large (for one seed of water at a cutoff
of 5 Angstrom 74 eV/Angstrom, 7 with the sizes below). Sizes depend on bond lengths, coordination
and cutoff, so they are measured layer by layer (as in arXiv 1511.06422): first the radial functions
are brought to the size the radial networks expect, then the messages, then what the products make
of them.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tace_al.data.graph import AtomicGraph, batch_graphs
from tace_al.model.interaction import SpectralInteraction
from tace_al.model.moment import MomentInteraction, MomentProduct
from tace_al.model.product import SpectralProduct
from tace_al.model.radial import BASIS_GAIN
from tace_al.model.spatial_product import SpatialProduct
from tace_al.model.tace import Tace

MESSAGE_SIZE = 0.15
"""Root mean square of the components of messages at the start: second and third powers begin
smaller than what is linear, and grow as far as the data ask for. Acetylacetone with stretched
bonds, trained on less stretched ones: 33 meV/Angstrom, 35 with 0.5 and 39 with 0.05."""
FEATURE_SIZE = 1.0
"""Root mean square of the components of what a product adds to the features."""
SAMPLE = 32
"""Structures to measure on."""


def scale_to_data(model: Tace, graphs: Sequence[AtomicGraph]) -> None:
    """Scale the weights of an untrained model so that its layers have unit size on `graphs`."""
    bonded = [graph for graph in graphs if graph.sender.shape[0]]
    if not bonded:
        return
    step = max(1, len(bonded) // SAMPLE)
    batch = batch_graphs(bonded[::step][:SAMPLE])
    with torch.no_grad():
        size = float(model.radial_functions(batch).square().mean().sqrt())
        for interaction, product in zip(model.interactions, model.products, strict=True):
            assert isinstance(interaction, SpectralInteraction | MomentInteraction)
            interaction.scale_radial_inputs(1.0 / (BASIS_GAIN * max(size, 1e-6)))
            factor = MESSAGE_SIZE / _size(model, interaction, batch)
            for weight in interaction.mix:
                weight.mul_(factor)
            factor = FEATURE_SIZE / _size(model, product, batch)
            for weight in _last_weights(product):
                weight.mul_(factor)


def _last_weights(product: nn.Module) -> list[nn.Parameter]:
    """Return the weights that a product's output is proportional to."""
    if isinstance(product, SpectralProduct) and product.coupled is not None:
        return list(product.coupled.weights)
    assert isinstance(product, SpectralProduct | SpatialProduct | MomentProduct)
    return [product.linear.weight]


def _size(model: Tace, part: nn.Module, batch: AtomicGraph) -> float:
    """Return the root mean square of what a part of the network puts out on a batch."""
    sizes: list[float] = []

    def measure(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
        sizes.append(max(float(output.double().square().mean().sqrt()), 1e-6))

    handle = part.register_forward_hook(measure)
    try:
        model.evaluate(batch, ())
    finally:
        handle.remove()
    return sizes[-1]
