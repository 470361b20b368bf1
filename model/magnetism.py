"""Non-collinear magnetic moments and a magnetic field in the message of every layer.

Moments m_i (Bohr magneton) and the field B (tesla) are axial vectors, odd in time: inversion leaves
them alone, time reversal turns them round. What is linear in them never reaches the energy; their
pairs are even in time and join the polar tensors of the message, so E(m, B) = E(-m, -B) exactly.

With m in units of 2 Bohr magneton, B of 100 T, and the spin index s kept apart from the components
of space, each atom has, channel by channel,

    a_i^s   = m_i^s (u[Z_i] + v[Z_i] / (1 + |m_i|^2))          own moment
    b_i^s   = B^s w[Z_i]                                       field
    T_i^{l,s} = (1/<n>) sum_j R_l(r_ij) Y_l(r_ij) a_j^s        neighbours' moments, l <= 2

Exchange (always): two channel mixtures p, q of (a, b, T^0) at l = 0 and of T^l above, contracted
over the spin index and coupled in space,

    sum_s (p^{l1,s} x q^{l2,s})_{l3},   l1 + l2 + l3 even, l1 <= l2, l3 <= 2.

These hold |m_i|^2 (Landau), m_i.m_j at any distance (Heisenberg), m_i.B (Zeeman) and, through atoms
between, m_j.m_k with the angle of the bonds (superexchange). Turning all spins and B, the atoms at
rest, changes nothing: the symmetry of magnetism without spin-orbit coupling.

Spin-orbit coupling ties the spin index to space. P and Q are mixtures of the axial vectors a, b,
T^0 and (T^2 x s)_1, V of the polar (T^1 x s)_1 = sum_j R r_ij x m_j:

    l = 0   P.Q                                  pseudo-dipolar exchange
    l = 1   ((P x Q) x m^1)_1 and P x V          Dzyaloshinskii-Moriya; spin-current polarisation
    l = 2   (P Q)_2 and ((P x Q) x m^2)_2        single-ion anisotropy

with m^l the message and x of l = 1 with l the Levi-Civita coupling, which brings the axial P x Q
back to natural parity. All terms of one degree are mixed over channels and added to the message
before the product, whose powers give the higher exchange terms (biquadratic, four spins, ...).
Everything is a smooth function of the moments (no |m| anywhere), so -dE/dm and its derivatives
exist at m = 0. The terms are those of Drautz, 10.1103/PhysRevB.102.024104, and of the spin
Hamiltonians they are named after, in the message of arXiv 2509.14961.
"""

import math
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tace_al.core.errors import ModelError
from tace_al.model import cartesian
from tace_al.model.embeddings import add_to_degrees, packed_vectors
from tace_al.model.radial import RadialNetwork

MOMENT_UNIT = 2.0
"""Bohr magneton: moments of the 3d metals and their oxides are 0.5 to 5."""

FIELD_UNIT = 100.0
"""Tesla: a moment of 1 Bohr magneton has 5.8 meV in it."""

L_MAX = 2
"""Largest degree built from moments; the product makes higher ones."""

PAIR_START = 0.2
"""An untrained network's moments perturb the message instead of ruling it."""


@final
class MagneticEmbedding(nn.Module):
    """What moments and a magnetic field add to the message of one layer.

    Parameters
    ----------
    channels, num_species, l_message
        Of the message.
    num_radial, radial_hidden
        Inputs and widths of the radial network.
    average_neighbours
        <n>, by which sums over neighbours are divided.
    spin_orbit
        Add the terms that tie spins to the lattice; needs l_message >= 2.
    """

    def __init__(
        self,
        *,
        channels: int,
        num_species: int,
        l_message: int,
        num_radial: int,
        radial_hidden: tuple[int, ...],
        average_neighbours: float,
        spin_orbit: bool,
    ) -> None:
        super().__init__()
        if spin_orbit and l_message < 2:
            raise ModelError(
                f"spin_orbit needs messages of degree 2, not {l_message}; use l_edge >= 2"
            )
        self.l_max = min(l_message, L_MAX)
        self.spin_orbit = spin_orbit
        self.paths = exchange_paths(self.l_max)
        norm = torch.tensor(1.0 / average_neighbours, dtype=torch.float64)
        self.register_buffer("inverse_neighbours", norm)
        self.inverse_neighbours: Tensor
        for l1, l2, l3 in dict.fromkeys(
            [*self.paths, *(SPIN_ORBIT_COUPLINGS if spin_orbit else ())]
        ):
            matrix = cartesian.coupling(l1, l2, l3).reshape(-1, 2 * l3 + 1).T
            name = f"coupling_{l1}{l2}{l3}"
            self.register_buffer(name, torch.tensor(matrix.copy()), persistent=False)
        self.moment_weight = nn.Parameter(torch.randn(num_species, 2, channels))
        self.field_weight = nn.Parameter(torch.randn(num_species, channels))
        self.radial = RadialNetwork(num_radial, radial_hidden, (self.l_max + 1) * channels)
        self.views = nn.ParameterList(
            nn.Parameter(torch.randn((3 if l == 0 else 1) * channels, 2 * channels))
            for l in range(self.l_max + 1)
        )
        terms = [sum(path[2] == l for path in self.paths) for l in range(self.l_max + 1)]
        if spin_orbit:
            self.axial = nn.Parameter(torch.randn(4 * channels, 2 * channels))
            self.polar = nn.Parameter(torch.randn(channels, channels))
            terms = [count + extra for count, extra in zip(terms, (1, 2, 2), strict=True)]
        self.mix = nn.ParameterList(
            nn.Parameter(torch.randn(count * channels, channels)) for count in terms
        )

    def forward(
        self,
        message: Float[Tensor, "atoms components channels"],
        *,
        moments: Float[Tensor, "atoms 3"],
        magnetic_field: Float[Tensor, "atoms 3"],
        species: Int[Tensor, " atoms"],
        sender: Int[Tensor, "atoms slots"],
        radial_basis: Float[Tensor, "atoms*slots radial"],
        harmonics: Float[Tensor, "atoms dim_edge slots"],
    ) -> Float[Tensor, "atoms components channels"]:
        """Return the message with the magnetic terms added.

        Parameters
        ----------
        message
            Before the product, atoms in any order.
        moments
            x, y, z in Bohr magneton; NaN where an atom has none, the same as zero.
        magnetic_field
            x, y, z in tesla at each atom; NaN where there is none, the same as zero.
        species
            Species index of each atom.
        sender
            Neighbour in each slot; in an empty slot any atom.
        radial_basis
            Of each slot, zero in empty ones.
        harmonics
            Of the edge in each slot.
        """
        weight = self.moment_weight.index_select(0, species).unsqueeze(2)  # (atoms, 2, 1, channels)
        moment = (packed_vectors(moments) / MOMENT_UNIT).unsqueeze(2)  # (atoms, 3, 1)
        saturation = 1.0 / (1.0 + (moment * moment).sum(dim=1, keepdim=True))
        own = moment * (weight[:, 0] + saturation * weight[:, 1])  # (atoms, 3, channels)
        field = (packed_vectors(magnetic_field) / FIELD_UNIT).unsqueeze(2)
        field = field * self.field_weight.index_select(0, species).unsqueeze(1)
        neighbours = self._neighbour_moments(own, sender, radial_basis, harmonics)
        terms = self._exchange(own, field, neighbours)
        if self.spin_orbit:
            coupled = self._spin_orbit(own, field, neighbours, message)
            terms = [first + second for first, second in zip(terms, coupled, strict=True)]
        added = {
            l: mixed(torch.cat(parts, dim=2), mix, PAIR_START)
            for l, (parts, mix) in enumerate(zip(terms, self.mix, strict=True))
        }
        return add_to_degrees(message, added)

    def _neighbour_moments(
        self, own: Tensor, sender: Tensor, radial_basis: Tensor, harmonics: Tensor
    ) -> list[Tensor]:
        """Return T^l, each (atoms, 2l + 1, spin, channels)."""
        (num_atoms, num_slots), channels = sender.shape, own.shape[2]
        source = own.index_select(0, sender.reshape(-1)).reshape(num_atoms, num_slots, 3, channels)
        weights = self.radial(radial_basis) * self.inverse_neighbours
        weights = weights.reshape(num_atoms, num_slots, self.l_max + 1, 1, channels)
        angular = cartesian.split_degrees(harmonics)
        sums = []
        for l in range(self.l_max + 1):
            carried = (weights[:, :, l] * source).reshape(num_atoms, num_slots, -1)
            sums.append((angular[l] @ carried).reshape(num_atoms, 2 * l + 1, 3, channels))
        return sums

    def _couple(self, l1: int, l2: int, l3: int, products: Tensor) -> Tensor:
        """Couple (atoms, 2 l1 + 1, 2 l2 + 1, channels) into (atoms, 2 l3 + 1, channels)."""
        return self.get_buffer(f"coupling_{l1}{l2}{l3}") @ products.flatten(1, 2)

    def _exchange(self, own: Tensor, field: Tensor, neighbours: list[Tensor]) -> list[list[Tensor]]:
        """Return the terms of each degree that are blind to a rotation of all spins."""
        scalar = torch.cat([own.unsqueeze(1), field.unsqueeze(1), neighbours[0]], dim=3)
        views = [
            mixed(tensor, view).chunk(2, dim=3)
            for tensor, view in zip([scalar, *neighbours[1:]], self.views, strict=True)
        ]
        terms: list[list[Tensor]] = [[] for _ in range(self.l_max + 1)]
        for l1, l2, l3 in self.paths:
            spin_products = views[l1][0].unsqueeze(2) * views[l2][1].unsqueeze(1)
            terms[l3].append(self._couple(l1, l2, l3, spin_products.sum(dim=3)))
        return terms

    def _spin_orbit(
        self, own: Tensor, field: Tensor, neighbours: list[Tensor], message: Tensor
    ) -> list[list[Tensor]]:
        """Return the terms of degrees 0, 1, 2 that tie spins to the lattice."""
        quadrupolar = self._couple(2, 1, 1, neighbours[2])
        axial = torch.cat([own, field, neighbours[0].squeeze(1), quadrupolar], dim=2)
        first, second = mixed(axial, self.axial).chunk(2, dim=2)
        polar = mixed(self._couple(1, 1, 1, neighbours[1]), self.polar)
        pairs = outer(first, second)
        cross = self._couple(1, 1, 1, pairs)
        dipoles = message[:, cartesian.degree_slice(1)]
        quadrupoles = message[:, cartesian.degree_slice(2)]
        return [
            [self._couple(1, 1, 0, pairs)],
            [
                self._couple(1, 1, 1, outer(cross, dipoles)),
                self._couple(1, 1, 1, outer(first, polar)),
            ],
            [
                self._couple(1, 1, 2, pairs),
                self._couple(1, 2, 2, outer(cross, quadrupoles)),
            ],
        ]


SPIN_ORBIT_COUPLINGS = ((1, 1, 0), (1, 1, 1), (1, 1, 2), (1, 2, 2), (2, 1, 1))
"""Couplings of spin-orbit terms; an odd sum goes through the Levi-Civita symbol."""


def exchange_paths(l_max: int) -> list[tuple[int, int, int]]:
    """Return the couplings of two neighbour sums, ordered; mirrored ones repeat.

    >>> exchange_paths(1)
    [(0, 0, 0), (0, 1, 1), (1, 1, 0)]
    """
    degrees = range(l_max + 1)
    return [
        (l1, l2, l3)
        for l1 in degrees
        for l2 in range(l1, l_max + 1)
        for l3 in degrees
        if cartesian.couples(l1, l2, l3)
    ]


def mixed(tensor: Tensor, weight: Tensor, start: float = 1.0) -> Tensor:
    """Return the tensor with its channels mixed, in units where variance is kept."""
    return tensor @ (weight * (start / math.sqrt(weight.shape[0])))


def outer(first: Tensor, second: Tensor) -> Tensor:
    """Return the products of all components, channel by channel."""
    return first.unsqueeze(2) * second.unsqueeze(1)
