"""The spectral message: neighbours' features coupled with harmonics of the edge, summed.

    m_i^{l3} = Lin_{l3} (1/<n>) sum_j sum_paths R_path(r_ij) (h_j^{l1} x Y_{l2}(r_ij))_{l3}

(arXiv 2509.14961). A path is one allowed (l1, l2, l3) of natural parity. The mixing linear, paths
times channels to channels, comes after the sum over neighbours, and so does the coupling:

    A_i = sum_j Y_{l2}(r_ij) R_path(r_ij) h_j^{l1},   m_i^{l3} = Lin_{l3} C_{l1 l2 l3} A_i / <n>

With every atom given the same number of edge slots, the sum is one small matrix product per atom,
(2 l2 + 1, slots) x (slots, components and channels), and nothing as large as edges x components x
channels is scattered or coupled.

Options (`docs/theory/interaction_options.md`): radial weights that know the pair of species, a
learned density in place of the constant <n>, and another width out than in. In the first layer,
where features depend on species alone, rows of `features` may be species instead of atoms: hand
over the embedding table and, as `sender`, the species of each sender.
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tace_al.model import cartesian
from tace_al.model.kernels import (
    EdgeList,
    RadialSpline,
    SumLayout,
    edge_sums,
    fused,
    splined_edge_sums,
)
from tace_al.model.linear import mix_channels
from tace_al.model.open_radial import OpenRadialNetwork
from tace_al.model.radial import RadialNetwork

DENSITY_WIDTH = 16


def message_paths(l_feature: int, l_edge: int, l_message: int) -> list[tuple[int, int, int]]:
    """Return the allowed (l1, l2, l3), ordered by (l1, l2, l3)."""
    return [
        (l1, l2, l3)
        for l1 in range(l_feature + 1)
        for l2 in range(l_edge + 1)
        for l3 in range(l_message + 1)
        if cartesian.couples(l1, l2, l3)
    ]


def message_couplings(
    paths: list[tuple[int, int, int]], l_message: int
) -> Float[Tensor, "components rows"]:
    """Return the matrix that couples the sums of all paths into messages.

    Columns follow the sums: for each (l1, l2) its components m2, then its paths, then m1. Rows lie
    ordered by (l3, m3, path), so that the mixing linear of a degree reads [2 l3 + 1, paths x
    channels] without moving anything.
    """
    column: dict[tuple[tuple[int, int, int], int, int], int] = {}
    for l1, l2 in dict.fromkeys(path[:2] for path in paths):
        for m2 in range(2 * l2 + 1):
            for path in paths:
                for m1 in range(2 * l1 + 1):
                    if path[:2] == (l1, l2):
                        column[path, m1, m2] = len(column)
    rows = []
    for l3 in range(l_message + 1):
        for m3 in range(2 * l3 + 1):
            for path in paths:
                if path[2] == l3:
                    row = torch.zeros(len(column), dtype=torch.float64)
                    coupling = cartesian.coupling(*path)[:, :, m3]
                    for m1 in range(2 * path[0] + 1):
                        for m2 in range(2 * path[1] + 1):
                            row[column[path, m1, m2]] = float(coupling[m1, m2])
                    rows.append(row)
    return torch.stack(rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class SplinedWeights:
    """Radial weights read from a spline.

    Parameters
    ----------
    spline
        Weights of every path and channel as functions of the distance.
    distances
        Length of each edge in Angstrom.
    """

    spline: RadialSpline
    distances: Float[Tensor, "*members edges"]


@dataclass(frozen=True, kw_only=True, slots=True)
class InteractionOptions:
    """What an interaction does beyond the plain message.

    Parameters
    ----------
    channels_out
        Channels of radial weights and messages; 0 for as many as the features have.
    num_species
        Species of the model; read by `species_radial` only.
    species_radial
        Radial weights depend on the species of receiver and sender.
    density_normalisation
        Messages are divided by a learned density instead of <n> alone.
    bias
        Neighbours send a constant besides, in degree 0.
    open_radial
        The radial basis is an `OpenBasis`: the envelope multiplies the radial weights.
    """

    channels_out: int = 0
    num_species: int = 0
    species_radial: bool = False
    density_normalisation: bool = False
    bias: bool = False
    open_radial: bool = False


PLAIN = InteractionOptions()


@final
class LocalDensity(nn.Module):
    """A smooth, learned count of neighbours: what a message is divided by, in units of <n>.

        d_i = softplus(a) + softplus(b) (1/<n>) sum_j tanh(q(r_ij)^2)

    (the idea of the density blocks of MACE, arXiv 2206.07697). q is a small radial network, so d_i
    is as smooth at the cutoff as the basis; softplus(a) keeps it above zero without neighbours.
    """

    def __init__(self, num_radial: int, num_species: int) -> None:
        super().__init__()
        self.radial = RadialNetwork(num_radial, (DENSITY_WIDTH,), 1, num_species=num_species)
        start = torch.tensor([0.5, 1.0])  # d_i is about 1 where an atom has <n> neighbours
        self.offset_and_slope = nn.Parameter(torch.log(torch.expm1(start)))

    def forward(
        self,
        radial_basis: Float[Tensor, "edges radial"],
        pairs: Int[Tensor, " edges"] | None,
        sender: Int[Tensor, "atoms slots"],
        inverse_neighbours: Tensor,
    ) -> Float[Tensor, " atoms"]:
        """Return d_i."""
        contributions = torch.tanh(self.radial(radial_basis, pairs).square())
        count = contributions.reshape(sender.shape).sum(dim=1) * inverse_neighbours
        offset, slope = nn.functional.softplus(self.offset_and_slope).unbind()
        return offset + slope * count


@final
class SpectralInteraction(nn.Module):
    """Messages of degree 0..l_message from features of degree 0..l_feature."""

    def __init__(
        self,
        *,
        l_feature: int,
        l_edge: int,
        channels: int,
        num_radial: int,
        radial_hidden: tuple[int, ...],
        average_neighbours: float,
        options: InteractionOptions = PLAIN,
    ) -> None:
        super().__init__()
        width = options.channels_out or channels
        num_species = options.num_species if options.species_radial else 0
        assert num_species or not options.species_radial, "species_radial needs num_species"
        paths = message_paths(l_feature, l_edge, l_edge)
        self.num_paths = len(paths)
        self.layout = SumLayout.of_paths(paths)
        self.pairs = [
            (l1, l2, sum(path[:2] == (l1, l2) for path in paths))
            for l1, l2 in dict.fromkeys(path[:2] for path in paths)
        ]
        self.paths_per_degree = [sum(path[2] == l3 for path in paths) for l3 in range(l_edge + 1)]
        norm = torch.tensor(1.0 / average_neighbours, dtype=torch.float64)
        self.register_buffer("inverse_neighbours", norm)  # in the state: members of a committee
        self.inverse_neighbours: Tensor  # may differ in it
        self.register_buffer("couplings", message_couplings(paths, l_edge), persistent=False)
        self.couplings: Tensor
        network = OpenRadialNetwork if options.open_radial else RadialNetwork
        self.radial = network(
            num_radial, radial_hidden, self.num_paths * width, num_species=num_species
        )
        self.up = nn.Parameter(torch.randn(l_feature + 1, channels, width))
        self.up_bias = nn.Parameter(torch.zeros(width)) if options.bias else None
        self.mix = nn.ParameterList(
            nn.Parameter(torch.randn(count * width, width)) for count in self.paths_per_degree
        )
        self.density = (
            LocalDensity(num_radial, num_species) if options.density_normalisation else None
        )

    def scale_radial_inputs(self, factor: float) -> None:
        """Multiply the first radial weights, so that a basis of another size enters as this one."""
        networks = [self.radial] if self.density is None else [self.radial, self.density.radial]
        with torch.no_grad():
            for network in networks:
                network.weights[0].mul_(factor)

    def forward(
        self,
        features: Float[Tensor, "*members sources dim_in channels_in"],
        harmonics: Float[Tensor, "*members atoms dim_edge slots"],
        radial_basis: Float[Tensor, "*members atoms*slots radial"] | None,
        sender: Int[Tensor, "atoms slots"],
        *,
        pairs: Int[Tensor, " atoms*slots"] | None = None,
        edges: EdgeList | None = None,
        splined: SplinedWeights | None = None,
    ) -> Float[Tensor, "*members atoms dim_message channels"]:
        """Return the messages of every atom; empty slots have a radial basis of zero.

        Parameters
        ----------
        features
            Features of the rows that `sender` names: atoms, or species in the first layer.
        harmonics
            Y_l of each edge slot.
        radial_basis
            Radial functions under the envelope, row by row of the slots; None beside `splined`.
        sender
            Row of `features` that each slot reads.
        pairs
            Species of both ends (`tace_al.model.radial.species_pairs`); read by `species_radial`.
        edges
            The slots as blocks of edges, `sender` among them; None for the padded form.
        splined
            Radial weights in place of the network's.
        """
        up = self.up / math.sqrt(features.shape[-1])
        degrees = zip(cartesian.split_degrees(features), up.unbind(-3), strict=True)
        sent = [mix_channels(degree, matrix) for degree, matrix in degrees]
        if self.up_bias is not None:
            sent[0] = sent[0] + self.up_bias
        blocks = edges if edges is not None and fused(features) else None
        if blocks is not None and splined is not None:
            sums = splined_edge_sums(
                torch.cat(sent, dim=-2),
                splined.spline,
                splined.distances,
                _by_edge(harmonics),
                blocks,
                self.layout,
            )
        else:
            weights = self._weights(radial_basis, pairs, splined)
            sums = (
                self._slot_sums(sent, harmonics, weights, sender)
                if blocks is None
                else edge_sums(
                    torch.cat(sent, dim=-2), weights, _by_edge(harmonics), blocks, self.layout
                )
            )
        message = self._mixed(sums)
        if self.density is None:
            return message
        density = self.density(radial_basis, pairs, sender, self.inverse_neighbours)
        return message / density[:, None, None]

    def _weights(
        self,
        radial_basis: Float[Tensor, "*members edges radial"] | None,
        pairs: Int[Tensor, " edges"] | None,
        splined: SplinedWeights | None,
    ) -> Float[Tensor, "*members edges paths channels"]:
        """Return the radial weights of every edge."""
        if splined is not None:
            return splined.spline(splined.distances)
        assert radial_basis is not None
        weights = self.radial(radial_basis, pairs)
        return weights.unflatten(-1, (self.num_paths, self.up.shape[-1]))

    def _slot_sums(
        self,
        sent: list[Float[Tensor, "*members sources _ channels"]],
        harmonics: Float[Tensor, "*members atoms dim_edge slots"],
        weights: Float[Tensor, "*members atoms*slots paths channels"],
        sender: Int[Tensor, "atoms slots"],
    ) -> Float[Tensor, "*members atoms rows channels"]:
        """Return the sums over neighbours as one small matrix product an atom and path."""
        sources = [degree.index_select(-3, sender.reshape(-1)) for degree in sent]
        angular = cartesian.split_degrees(harmonics)
        by_slot = weights.unflatten(-3, sender.shape).unsqueeze(-2)
        counts = [count for _, _, count in self.pairs]
        sums = []
        for (l1, l2, _), weight in zip(self.pairs, by_slot.split(counts, dim=-3), strict=True):
            source = sources[l1].unflatten(-3, sender.shape).unsqueeze(-3)
            carried = (weight * source).flatten(-3)  # (atoms, slots, paths * (2 l1 + 1) * channels)
            total = angular[l2] @ carried if l2 > 0 else carried.sum(dim=-2)  # Y_0 = 1
            sums.append(total.reshape(*carried.shape[:-2], -1, weights.shape[-1]))
        return torch.cat(sums, dim=-2)

    def _mixed(
        self, sums: Float[Tensor, "*members atoms rows channels"]
    ) -> Float[Tensor, "*members atoms dim_message channels"]:
        """Return the sums coupled into degrees, their paths mixed."""
        coupled = self.couplings @ sums
        sizes = [count * (2 * l + 1) for l, count in enumerate(self.paths_per_degree)]
        messages = []
        for l, (block, mix) in enumerate(zip(coupled.split(sizes, dim=-2), self.mix, strict=True)):
            block = block.reshape(
                *sums.shape[:-2], 2 * l + 1, -1
            )  # (.., 2 l + 1, paths * channels)
            scale = self.inverse_neighbours[..., None, None] / math.sqrt(mix.shape[-2])
            messages.append(mix_channels(block, mix * scale))
        return torch.cat(messages, dim=-2)


def _by_edge(
    harmonics: Float[Tensor, "*members atoms dim_edge slots"],
) -> Float[Tensor, "*members atoms*slots dim_edge"]:
    """Return the harmonics of slot after slot."""
    return harmonics.transpose(-2, -1).flatten(-3, -2)
