"""One layer of the network: an interaction, what conditions add to its message, and a product.

Three kinds go together: the "spectral" and the "spatial" product read the spectral message, the
"moment" product reads reducible moments. Conditions are added in irreducible parts of degree 0, 1
and 2, in which a moment message is opened and closed again.
"""

from functools import partial
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tace_al.model import symmetric_tensor
from tace_al.model.cartesian import num_components
from tace_al.model.config import Product, TaceConfig
from tace_al.model.embeddings import ElectricFieldEmbedding
from tace_al.model.inputs import NetworkInputs
from tace_al.model.interaction import InteractionOptions, SpectralInteraction
from tace_al.model.linear import SpeciesLinear
from tace_al.model.magnetism import MagneticEmbedding
from tace_al.model.moment import MomentInteraction, MomentProduct
from tace_al.model.open_radial import OpenBasis
from tace_al.model.product import SpectralProduct
from tace_al.model.radial import RadialBasis, radial_basis
from tace_al.model.spatial_product import SpatialProduct

_INTERACTIONS: dict[str, type[SpectralInteraction] | type[MomentInteraction]] = {
    "spectral": SpectralInteraction,
    "spatial": SpectralInteraction,
    "moment": MomentInteraction,
}
_PRODUCTS: dict[str, type[SpatialProduct] | type[MomentProduct]] = {
    "spatial": SpatialProduct,
    "moment": MomentProduct,
}


def widths(config: TaceConfig, layer: int) -> tuple[int, int]:
    """Return the channels of a layer's input and output."""
    channels = config.layer_channels
    return channels[max(layer - 1, 0)], channels[layer]


def make_basis(config: TaceConfig) -> RadialBasis | OpenBasis:
    """Return the radial functions, called as `basis(r, envelope)`."""
    basis = radial_basis(
        config.radial_basis, config.num_bessel, config.cutoff, decay=config.radial_decay
    )
    return basis if config.radial_envelope == "basis" else OpenBasis(basis)


def make_interaction(config: TaceConfig, layer: int) -> SpectralInteraction | MomentInteraction:
    """Return the interaction of a layer."""
    channels_in, channels_out = widths(config, layer)
    return _INTERACTIONS[config.layer_products[layer]](
        l_feature=0 if layer == 0 else config.layer_degrees[layer - 1],
        l_edge=config.l_edge,
        channels=channels_in,
        num_radial=config.num_bessel,
        radial_hidden=config.radial_hidden,
        average_neighbours=config.average_neighbours,
        options=InteractionOptions(
            channels_out=channels_out,
            num_species=len(config.elements),
            species_radial=config.species_radial,
            density_normalisation=config.density_normalisation,
            bias=config.bias,
            open_radial=config.radial_envelope == "weights",
        ),
    )


def make_product(
    config: TaceConfig, layer: int
) -> SpectralProduct | SpatialProduct | MomentProduct:
    """Return the product of a layer."""
    kind = config.layer_products[layer]
    make = (
        partial(SpectralProduct, coupled=config.product_weights == "coupled")
        if kind == "spectral"
        else _PRODUCTS[kind]
    )
    return make(
        l_in=config.l_edge,
        l_out=config.layer_degrees[layer],
        correlation=config.correlation,
        channels=config.layer_channels[layer],
        num_species=len(config.elements),
    )


def make_residual(config: TaceConfig, layer: int) -> SpeciesLinear | nn.Identity:
    """Return the residual connection of a layer; the identity stands for none."""
    channels_in, channels_out = widths(config, layer)
    if config.residual == "message":
        return SpeciesLinear(
            config.layer_degrees[layer], channels_out, len(config.elements), bias=config.bias
        )
    if layer == 0 and not config.first_layer_residual:
        return nn.Identity()
    l_feature = 0 if layer == 0 else config.layer_degrees[layer - 1]
    return SpeciesLinear(
        min(l_feature, config.layer_degrees[layer]),
        channels_in,
        len(config.elements),
        channels_out=channels_out,
        bias=config.bias,
    )


@final
class MessageConditions(nn.Module):
    """What an electric field, moments and a magnetic field add to the message of a layer."""

    def __init__(self, config: TaceConfig, layer: int) -> None:
        super().__init__()
        channels, num_species = config.layer_channels[layer], len(config.elements)
        self.electric = (
            ElectricFieldEmbedding(channels, num_species)
            if "electric_field" in config.embeddings
            else None
        )
        self.magnetic = (
            MagneticEmbedding(
                channels=channels,
                num_species=num_species,
                l_message=config.l_edge,
                num_radial=config.num_bessel,
                radial_hidden=config.radial_hidden,
                average_neighbours=config.average_neighbours,
                spin_orbit=config.spin_orbit,
            )
            if "magnetic_moments" in config.embeddings
            else None
        )
        opened = _opened(config.layer_products[layer], config.l_edge)
        self.register_buffer("opened", opened, persistent=False)
        self.opened: Tensor | None

    def forward(
        self,
        message: Float[Tensor, "atoms components channels"],
        inputs: NetworkInputs,
        radial_basis: Float[Tensor, "rows radial"],
        harmonics: Float[Tensor, "atoms dim_edge slots"],
    ) -> Float[Tensor, "atoms components channels"]:
        """Return the message with the conditions' parts added."""
        species, conditions = inputs.groups.species, inputs.conditions
        before = message if self.opened is None else self.opened @ message
        after = before
        if self.electric is not None:
            after = self.electric(after, conditions["electric_field"], species)
        if self.magnetic is not None:
            moments = conditions["magnetic_moments"]
            absent = torch.full_like(moments, torch.nan)
            after = self.magnetic(
                after,
                moments=moments,
                magnetic_field=conditions.get("magnetic_field", absent),
                species=species,
                sender=inputs.sender,
                radial_basis=radial_basis,
                harmonics=harmonics,
            )
        return after if self.opened is None else message + self.opened.T @ (after - before)


def _opened(product: Product, l_edge: int) -> Float[Tensor, "components size"] | None:
    """Return the matrix from moments to their parts of degree l = rank, None if they are parts."""
    if product != "moment":
        return None
    matrix = torch.zeros(
        num_components(l_edge), symmetric_tensor.rank_start(l_edge + 1), dtype=torch.float64
    )
    for l in range(l_edge + 1):
        columns = slice(symmetric_tensor.rank_start(l), symmetric_tensor.rank_start(l + 1))
        part = symmetric_tensor.irreducible_part(l, l)
        matrix[l * l : (l + 1) ** 2, columns] = torch.tensor(part)
    return matrix
