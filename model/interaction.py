"""The spectral message: neighbours' features coupled with harmonics of the edge, summed.

    m_i^{l3} = Lin_{l3} (1/<n>) sum_j sum_paths R_path(r_ij) (h_j^{l1} x Y_{l2}(r_ij))_{l3}

(arXiv 2509.14961). A path is one allowed (l1, l2, l3) of natural parity. The mixing linear, paths
times channels to channels, comes after the sum over neighbours.
"""

import math
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tace_al.model import cartesian
from tace_al.model.radial import RadialNetwork


def message_paths(l_feature: int, l_edge: int, l_message: int) -> list[tuple[int, int, int]]:
    """Return the allowed (l1, l2, l3), ordered by l3."""
    return [
        (l1, l2, l3)
        for l3 in range(l_message + 1)
        for l1 in range(l_feature + 1)
        for l2 in range(l_edge + 1)
        if cartesian.couples(l1, l2, l3)
    ]


@final
class SpectralInteraction(nn.Module):
    """Messages of degree 0..l_message from features of degree 0..l_feature.

    The coupled components lie ordered by (l3, m3, path), so that the mixing linear of a degree
    reads [2 l3 + 1, paths x channels] without moving anything.
    """

    def __init__(
        self,
        *,
        l_feature: int,
        l_edge: int,
        channels: int,
        num_radial: int,
        radial_hidden: tuple[int, ...],
        average_neighbours: float,
    ) -> None:
        super().__init__()
        self.l_message = l_edge
        norm = torch.tensor(1.0 / average_neighbours, dtype=torch.float64)
        self.register_buffer("inverse_neighbours", norm)  # in the state: members of a committee
        self.inverse_neighbours: Tensor  # may differ in it
        paths = message_paths(l_feature, l_edge, l_edge)
        self.paths_per_degree = [
            sum(path[2] == l3 for path in paths) for l3 in range(self.l_message + 1)
        ]
        dim_in, dim_edge = cartesian.num_components(l_feature), cartesian.num_components(l_edge)
        blocks, path_of_component = [], []
        for l3 in range(self.l_message + 1):
            chosen = [(index, path) for index, path in enumerate(paths) if path[2] == l3]
            for m3 in range(2 * l3 + 1):
                for index, (l1, l2, _) in chosen:
                    block = torch.zeros(dim_edge, dim_in, dtype=torch.float64)
                    coupling = torch.tensor(cartesian.coupling(l1, l2, l3)[:, :, m3].T.copy())
                    block[cartesian.degree_slice(l2), cartesian.degree_slice(l1)] = coupling
                    blocks.append(block)
                    path_of_component.append(index)
        self.dim_in, self.dim_out = dim_in, len(blocks)
        stacked = torch.stack(blocks, dim=1).reshape(dim_edge, self.dim_out * dim_in)
        self.register_buffer("couplings", stacked, persistent=False)
        self.register_buffer("path_of_component", torch.tensor(path_of_component), persistent=False)
        self.couplings: Tensor
        self.path_of_component: Tensor
        self.num_paths = len(paths)
        self.radial = RadialNetwork(num_radial, radial_hidden, self.num_paths * channels)
        self.up = nn.Parameter(torch.randn(l_feature + 1, channels, channels))
        self.mix = nn.ParameterList(
            nn.Parameter(torch.randn(count * channels, channels)) for count in self.paths_per_degree
        )

    def forward(
        self,
        features: Float[Tensor, "atoms dim_in channels"],
        harmonics: Float[Tensor, "edges dim_edge"],
        radial_basis: Float[Tensor, "edges radial"],
        sender: Int[Tensor, " edges"],
        receiver: Int[Tensor, " edges"],
    ) -> Float[Tensor, "atoms dim_message channels"]:
        """Return the messages of every atom."""
        num_atoms, _, channels = features.shape
        up = self.up / math.sqrt(channels)
        features = torch.cat(
            [features[:, cartesian.degree_slice(l)] @ up[l] for l in range(self.up.shape[0])],
            dim=1,
        )
        weights = self.radial(radial_basis).reshape(-1, self.num_paths, channels)
        geometry = (harmonics @ self.couplings).reshape(-1, self.dim_out, self.dim_in)
        coupled = geometry @ features.index_select(0, sender)  # (edges, dim_out, channels)
        coupled = coupled * weights.index_select(1, self.path_of_component)
        summed = torch.zeros(
            num_atoms, self.dim_out, channels, dtype=coupled.dtype, device=coupled.device
        ).index_add(0, receiver, coupled)
        summed = summed * self.inverse_neighbours
        messages, start = [], 0
        for l3, (count, mix) in enumerate(zip(self.paths_per_degree, self.mix, strict=True)):
            stop = start + count * (2 * l3 + 1)
            block = summed[:, start:stop].reshape(num_atoms, 2 * l3 + 1, count * channels)
            messages.append(block @ (mix / math.sqrt(mix.shape[0])))
            start = stop
        return torch.cat(messages, dim=1)
