"""The compiled whole of a plain network, for evaluation (`tace_al.model.kernels.NetworkKernel`).

Its weights with every constant factor multiplied in: 1/sqrt(n) of linear maps, 1/<n> of messages,
sqrt(1/2) where product and residual are joined.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from tace_al.model.interaction import SpectralInteraction
from tace_al.model.kernels import NetworkKernel, RadialSpline
from tace_al.model.kernels.network import MAX_LAYERS, HeadWeights, LayerShape, LayerWeights
from tace_al.model.linear import SpeciesLinear
from tace_al.model.product import SpectralProduct
from tace_al.model.radial import SILU_GAIN
from tace_al.model.radial_splines import SplineKeeper
from tace_al.model.tace import TORCH_DTYPES, Tace


class Compiled(NamedTuple):
    """What stands in for modules where a finished network is evaluated.

    Parameters
    ----------
    splines
        Radial weights of every layer of each member, or nothing for any of them.
    network
        All members as a whole, None where there is no such kernel for them.
    """

    splines: list[tuple[RadialSpline, ...]]
    network: NetworkKernel | None


@final
class CompiledKeeper:
    """`Compiled` networks of one shape, made at the first use and again when weights have changed.

    Parameters
    ----------
    models
        The networks.
    heads
        Names of the heads that answer; the first by default, of several networks one.

    Attributes
    ----------
    threads
        How many share the structures of a call of the whole network; may be set.
    """

    def __init__(self, models: Sequence[Tace], heads: Sequence[str] = ()) -> None:
        self.threads = 1
        self._models, self._heads, self._splines = tuple(models), tuple(heads), SplineKeeper(models)
        self._weights = [
            tensor
            for model in self._models
            for tensor in (*model.parameters(), *model.buffers())
            if tensor.is_floating_point()
        ]
        self._compiled = Compiled([() for _ in models], None)
        self._made_from: list[tuple[int, int]] = []

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and other processes make their own: a kernel holds addresses."""
        return CompiledKeeper, (self._models, self._heads)

    def current(self) -> Compiled:
        """Return what belongs to the weights as they are now."""
        state = [(weight.data_ptr(), weight._version) for weight in self._weights]
        if state != self._made_from:
            splines = self._splines.current()
            kernel = network_kernel(self._models, splines, heads=self._heads)
            # in this order: another thread must not take the former ones for those of `state`
            self._compiled = Compiled(splines, kernel)
            self._made_from = state
        if self._compiled.network is not None:
            self._compiled.network.threads = self.threads
        return self._compiled


def network_kernel(
    models: Sequence[Tace],
    splines: Sequence[Sequence[RadialSpline]],
    *,
    heads: Sequence[str] = (),
) -> NetworkKernel | None:
    """Return the compiled whole of networks of one shape; None where it does not serve.

    Parameters
    ----------
    models
        Networks of one shape, on the CPU.
    splines
        Of every layer of each network (`tace_al.model.radial_splines`), or nothing.
    heads
        Names of the heads that answer; the first by default, of several networks one.
    """
    model = models[0]
    config = model.config
    serves = model.takes_members and config.site_gate == "smooth"
    if not serves or not all(splines) or config.num_layers > MAX_LAYERS:
        return None
    names = tuple(heads) or config.heads[:1]
    assert len(models) == 1 or len(names) == 1
    return NetworkKernel(
        model.geometry,
        [_shape(model, layer) for layer in range(config.num_layers)],
        [
            [_layer(member, layer, spline) for layer, spline in enumerate(own)]
            for member, own in zip(models, splines, strict=True)
        ],
        [[_head(member, name) for name in names] for member in models],
        dtype=TORCH_DTYPES[config.dtype],
        head=names[0],
    )


def _parts(model: Tace, layer: int) -> tuple[SpectralInteraction, SpectralProduct]:
    """Return the interaction and the product of a layer."""
    interaction, product = model.interactions[layer], model.products[layer]
    assert isinstance(interaction, SpectralInteraction)
    assert isinstance(product, SpectralProduct)
    return interaction, product


def _reads(model: Tace, layer: int) -> int:
    """Return what the residual matrices read: nothing, the layer's input (1), the message (2)."""
    if model.config.residual == "message":
        return 2
    return 1 if layer else 0  # what the first layer's input gives is a constant of species


def _shape(model: Tace, layer: int) -> LayerShape:
    """Return the shape of a layer."""
    config = model.config
    interaction, product = _parts(model, layer)
    residual = model.residuals[layer]
    table = product.table
    return LayerShape(
        channels_in=config.layer_channels[max(layer - 1, 0)],
        channels=config.layer_channels[layer],
        degree_in=config.layer_degrees[layer - 1] if layer else 0,
        degree_out=config.layer_degrees[layer],
        layout=interaction.layout,
        paths_of_degree=tuple(interaction.paths_per_degree),
        couplings=interaction.couplings,
        terms=table.terms,
        product_rows=table.rows,
        residual=_reads(model, layer),
        residual_degree=residual.weight.shape[1] - 1 if isinstance(residual, SpeciesLinear) else 0,
    )


def _head(model: Tace, name: str) -> HeadWeights:
    """Return a head's weights in float64."""
    readouts = model.head(name)
    hidden, out = readouts.hidden.detach().double(), readouts.out.detach().double()
    return HeadWeights(
        linear=[
            weight.detach().double()[:, 0] / math.sqrt(weight.shape[0])
            for weight in readouts.linear
        ],
        hidden=hidden / math.sqrt(hidden.shape[0]),
        out=out[:, 0] * (SILU_GAIN / math.sqrt(out.shape[0])),
        constants=torch.stack([readouts.e0, readouts.scale, readouts.shift]),
    )


def _layer(model: Tace, layer: int, spline: RadialSpline) -> LayerWeights:
    """Return the weights of a layer in float64."""
    interaction, product = _parts(model, layer)
    embedding = model.embedding.detach().double()
    up = interaction.up.detach().double() / math.sqrt(interaction.up.shape[1])
    up_bias = None if interaction.up_bias is None else interaction.up_bias.detach().double()
    sent = None if layer else embedding @ up[0]
    if sent is not None and up_bias is not None:
        sent = sent + up_bias
    residual, constant = _residual(model, layer, embedding)
    joined = math.sqrt(0.5) if isinstance(model.residuals[layer], SpeciesLinear) else 1.0
    width = up.shape[2]
    linear = product.linear.weight.detach().double()
    return LayerWeights(
        sent=sent,
        up=up if layer else None,
        up_bias=up_bias if layer else None,
        spline=spline,
        mix=[
            (
                mix.detach().double() * interaction.inverse_neighbours / math.sqrt(mix.shape[0])
            ).unflatten(0, (-1, width))
            for mix in interaction.mix
        ],
        coefficients=product.table.coefficients.double(),
        product=product.weight.detach().double(),
        linear=linear * (joined / math.sqrt(linear.shape[1])),
        residual=residual,
        constant=constant,
    )


def _residual(model: Tace, layer: int, embedding: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Return the residual's matrices and its constants of species, joined."""
    residual = model.residuals[layer]
    if not isinstance(residual, SpeciesLinear):
        return None, None
    joined = math.sqrt(0.5)
    matrices = residual.weight.detach().double() * (joined / math.sqrt(residual.weight.shape[2]))
    bias = None if residual.bias is None else residual.bias.detach().double() * joined
    if _reads(model, layer):
        return matrices, bias
    constant = torch.einsum("sc,scd->sd", embedding, matrices[:, 0])
    return None, constant if bias is None else constant + bias
