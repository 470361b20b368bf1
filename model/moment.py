"""The Tensor Moment Potential: reducible moments of a neighbourhood and their contractions.

    M_i^m = Lin_m (1/<n>) sum_j sum_paths f_path(r_ij) Sym(h_j^l o_k n_ij^(r)),  m = l + r - 2 k
    B^1 = M,   B^q = Sym(B^(q-1) o_k M),   out^l = sum W[Z_i, part, channel] part_l(B)

(arXiv 2509.14961 v1; moments and their contractions: Shapeev 2016, 10.1137/15M1054183). n^(r) is
the plain r-fold power of the direction, a symmetric tensor of rank r whose irreducible parts
r, r - 2, ... share one radial weight. Products are counted in contracted index pairs k, made
symmetric, and kept at rank <= l_max; traceless parts are taken only of results. In the first layer,
where h is a scalar, M^m = sum_j f_m(r_ij) h_j n_ij^(m).

B^q reaches body order q + 1. Contractions that are linear combinations of others are left out. The
rest is complete in this sense: when moments of all ranks share their radial function, it spans the
same space as the spectral basis, the whole symmetric power of the message
(`tests/model/test_moment.py`). Tensors are packed as in `tace_al.model.symmetric_tensor`.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tace_al.model import cartesian, symmetric_tensor
from tace_al.model.interaction import (
    PLAIN,
    InteractionOptions,
    LocalDensity,
    SplinedWeights,
    message_paths,
)
from tace_al.model.kernels import EdgeList
from tace_al.model.linear import DegreeLinear, SpeciesGroups
from tace_al.model.product import NUM_SAMPLES, Term, bilinear, independent_subset, sparse_products
from tace_al.model.radial import RadialNetwork
from tace_al.model.symmetric_tensor import rank_size, rank_start


@final
class MomentInteraction(nn.Module):
    """Moments of rank 0..l_edge from features of degree 0..l_feature.

    A path is one (l1, r, m): features of degree l1, directions to the power r, a moment of rank m;
    k = (l1 + r - m)/2 index pairs are contracted, so the same triples occur as in the spectral
    message. Rank 0 and rank 1 (y, z, x) of the result lie where degrees 0 and 1 of spectral
    messages do.
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
        options: InteractionOptions = PLAIN,
    ) -> None:
        super().__init__()
        width = options.channels_out or channels
        num_species = options.num_species if options.species_radial else 0
        assert num_species or not options.species_radial, "species_radial needs num_species"
        paths = message_paths(l_feature, l_edge, l_edge)
        self.pairs = [
            (l1, power, sum(path[:2] == (l1, power) for path in paths))
            for l1, power in dict.fromkeys(path[:2] for path in paths)
        ]
        self.paths_per_rank = [sum(path[2] == m for path in paths) for m in range(l_edge + 1)]
        norm = torch.tensor(1.0 / average_neighbours, dtype=torch.float64)
        self.register_buffer("inverse_neighbours", norm)  # in the state, as in the spectral message
        self.inverse_neighbours: Tensor
        powers = symmetric_tensor.powers_from_harmonics(l_edge)
        self.register_buffer("powers", torch.tensor(powers), persistent=False)
        self.powers: Tensor
        couplings = torch.tensor(moment_couplings(paths, l_edge))
        self.register_buffer("couplings", couplings, persistent=False)
        self.couplings: Tensor
        self.radial = RadialNetwork(
            num_radial, radial_hidden, len(paths) * width, num_species=num_species
        )
        self.up = nn.Parameter(torch.randn(l_feature + 1, channels, width))
        self.mix = nn.ParameterList(
            nn.Parameter(torch.randn(count * width, width)) for count in self.paths_per_rank
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
        features: Float[Tensor, "sources dim_in channels_in"],
        harmonics: Float[Tensor, "atoms dim_edge slots"],
        radial_basis: Float[Tensor, "atoms*slots radial"],
        sender: Int[Tensor, "atoms slots"],
        *,
        pairs: Int[Tensor, " atoms*slots"] | None = None,
        edges: EdgeList | None = None,
        splined: SplinedWeights | None = None,
    ) -> Float[Tensor, "atoms dim_moments channels"]:
        """Return the moments of every atom; arguments as those of `SpectralInteraction`."""
        num_atoms, num_slots = sender.shape
        channels = self.up.shape[2]
        up = self.up / math.sqrt(features.shape[2])
        sources = [
            (degree @ matrix).index_select(0, sender.reshape(-1))
            for degree, matrix in zip(cartesian.split_degrees(features), up, strict=True)
        ]
        ranks = range(len(self.paths_per_rank))
        powers = (self.powers @ harmonics).split([rank_size(rank) for rank in ranks], dim=1)
        weights = self.radial(radial_basis, pairs).reshape(num_atoms, num_slots, -1, 1, channels)
        counts = [count for _, _, count in self.pairs]
        sums = []
        for (l1, power, _), weight in zip(self.pairs, weights.split(counts, dim=2), strict=True):
            source = sources[l1].reshape(num_atoms, num_slots, 1, 2 * l1 + 1, channels)
            carried = (weight * source).reshape(num_atoms, num_slots, -1)
            total = powers[power] @ carried if power > 0 else carried.sum(dim=1)
            sums.append(total.reshape(num_atoms, -1, channels))
        coupled = (self.couplings * self.inverse_neighbours) @ torch.cat(sums, dim=1)
        sizes = [count * rank_size(rank) for rank, count in enumerate(self.paths_per_rank)]
        moments = []
        for rank, (block, mix) in enumerate(
            zip(coupled.split(sizes, dim=1), self.mix, strict=True)
        ):
            block = block.reshape(num_atoms, rank_size(rank), -1)  # (atoms, size, paths * channels)
            moments.append(block @ (mix / math.sqrt(mix.shape[0])))
        message = torch.cat(moments, dim=1)
        if self.density is None:
            return message
        density = self.density(radial_basis, pairs, sender, self.inverse_neighbours)
        return message / density[:, None, None]


def moment_couplings(
    paths: Sequence[tuple[int, int, int]], rank_max: int
) -> Float[np.ndarray, "rows components"]:
    """Return the matrix that contracts the sums of all paths (l1, r, m) into moments.

    Columns follow the sums: for each (l1, r) the components of the power, then its paths, then m1.
    Rows lie ordered by (rank m, component, path).
    """
    columns: dict[tuple[int, int, int], np.ndarray] = {}
    width = 0
    for pair in dict.fromkeys(path[:2] for path in paths):
        members = [path for path in paths if path[:2] == pair]
        shape = (rank_size(pair[1]), len(members), 2 * pair[0] + 1)
        places = width + np.arange(math.prod(shape)).reshape(shape)
        width += places.size
        columns.update({path: places[:, index] for index, path in enumerate(members)})
    blocks = []
    for rank in range(rank_max + 1):
        members = [path for path in paths if path[2] == rank]
        block = np.zeros((rank_size(rank), len(members), width))
        for index, path in enumerate(members):
            l1, power, _ = path
            contraction = symmetric_tensor.feature_contraction(l1, power, (l1 + power - rank) // 2)
            block[:, index, columns[path]] = contraction.transpose(2, 1, 0)
        blocks.append(block.reshape(-1, width))
    return np.concatenate(blocks)


class MomentPath(NamedTuple):
    """A tensor of the order below (`parent`, of rank `first`) and a moment, k pairs contracted."""

    parent: int
    first: int
    second: int
    pairs: int

    @property
    def rank(self) -> int:
        """Rank of the result."""
        return self.first + self.second - 2 * self.pairs


class MomentOrder(NamedTuple):
    """The contractions of one order, and the (path, degree l) of parts to be read from them."""

    paths: tuple[MomentPath, ...]
    parts: tuple[tuple[int, int], ...]


@cache
def independent_moments(l_max: int, correlation: int) -> tuple[MomentOrder, ...]:
    """Return linearly independent contractions of rank <= l_max and their independent parts.

    As in `tace_al.model.product.independent_paths`, on random moments of rank 0..l_max. Parts of
    low rank come first: a trace is read from a higher one only where nothing lower spans it.
    """
    ranks = range(l_max + 1)
    generator = np.random.default_rng(0)
    packed = generator.normal(size=(NUM_SAMPLES, rank_start(l_max + 1)))
    moments = [packed[:, rank_start(rank) : rank_start(rank + 1)] for rank in ranks]
    paths = [MomentPath(-1, 0, rank, 0) for rank in ranks]
    values = moments
    orders = [MomentOrder(tuple(paths), _independent_parts(paths, values, l_max))]
    for _ in range(1, correlation):
        accepted: list[MomentPath] = []
        accepted_values: list[np.ndarray] = []
        for rank in ranks:
            candidates = [
                MomentPath(parent, path.rank, second, (path.rank + second - rank) // 2)
                for parent, path in enumerate(paths)
                for second in ranks
                if cartesian.couples(path.rank, second, rank)  # 0 <= k <= both ranks
            ]
            candidate_values = [
                bilinear(
                    values[path.parent],
                    moments[path.second],
                    symmetric_tensor.moment_contraction(*path[1:]),
                )
                for path in candidates
            ]
            chosen = independent_subset(candidate_values)
            accepted += [candidates[index] for index in chosen]
            accepted_values += [candidate_values[index] for index in chosen]
        paths, values = accepted, accepted_values
        orders.append(MomentOrder(tuple(paths), _independent_parts(paths, values, l_max)))
    return tuple(orders)


def _independent_parts(
    paths: Sequence[MomentPath], values: Sequence[np.ndarray], l_max: int
) -> tuple[tuple[int, int], ...]:
    """Return the (path, l) whose irreducible parts are independent, by degree."""
    parts = []
    for l in range(l_max + 1):
        candidates = [
            index for index, path in enumerate(paths) if path.rank >= l and (path.rank - l) % 2 == 0
        ]
        read = [
            values[index] @ symmetric_tensor.irreducible_part(paths[index].rank, l).T
            for index in candidates
        ]
        parts += [(candidates[index], l) for index in independent_subset(read)]
    return tuple(parts)


def needed_moments(l_max: int, l_out: int, correlation: int) -> list[MomentOrder]:
    """Return the contractions that parts of degree <= l_out are read from, and those parts."""
    orders = list(independent_moments(l_max, correlation))
    above: tuple[MomentPath, ...] = ()
    for number in range(correlation - 1, -1, -1):
        paths, parts = orders[number]
        parts = tuple(part for part in parts if part[1] <= l_out)
        kept = sorted({index for index, _ in parts} | {path.parent for path in above})
        place = {old: new for new, old in enumerate(kept)}
        if number + 1 < correlation:
            renumbered = tuple(path._replace(parent=place[path.parent]) for path in above)
            orders[number + 1] = MomentOrder(renumbered, orders[number + 1].parts)
        above = tuple(paths[index] for index in kept)
        orders[number] = MomentOrder(above, tuple((place[index], l) for index, l in parts))
    return orders


@final
class MomentProduct(nn.Module):
    """Features of degree 0..l_out from the moments of rank 0..l_in of `MomentInteraction`."""

    def __init__(
        self, *, l_in: int, l_out: int, correlation: int, channels: int, num_species: int
    ) -> None:
        super().__init__()
        self.correlation = correlation
        orders = needed_moments(l_in, l_out, correlation)
        extract = np.zeros((0, rank_start(l_in + 1)))
        for index, l in orders[0].parts:
            rank = orders[0].paths[index].rank
            part = np.zeros((2 * l + 1, rank_start(l_in + 1)))
            part[:, rank_start(rank) : rank_start(rank + 1)] = symmetric_tensor.irreducible_part(
                rank, l
            )
            extract = np.concatenate([extract, part])
        self.register_buffer("extract", torch.tensor(extract), persistent=False)
        self.extract: Tensor
        starts = {index: rank_start(path.rank) for index, path in enumerate(orders[0].paths)}
        self.num_kept: list[int] = []  # rows of each order that the next one multiplies again
        for number, order in enumerate(orders[1:], start=2):
            above = orders[number].paths if number < correlation else ()
            terms, starts, kept = _order_terms(order, starts, {path.parent for path in above})
            first, second, matrix = sparse_products(terms, symmetric=number == 2)
            self.register_buffer(f"first_{number}", torch.tensor(first), persistent=False)
            self.register_buffer(f"second_{number}", torch.tensor(second), persistent=False)
            self.register_buffer(f"matrix_{number}", torch.tensor(matrix), persistent=False)
            self.num_kept.append(kept)
        degrees = [l for order in orders for _, l in order.parts]
        path_of_row = [part for part, l in enumerate(degrees) for _ in range(2 * l + 1)]
        component = [l * l + m for l in degrees for m in range(2 * l + 1)]
        collect = torch.zeros(cartesian.num_components(l_out), len(component), dtype=torch.float64)
        counts = np.bincount(component)
        for row, place in enumerate(component):
            collect[place, row] = 1.0 / math.sqrt(counts[place])
        self.register_buffer("path_of_row", torch.tensor(path_of_row), persistent=False)
        self.register_buffer("collect", collect, persistent=False)
        self.path_of_row: Tensor
        self.collect: Tensor
        self.weight = nn.Parameter(torch.randn(num_species, len(degrees), channels))
        self.linear = DegreeLinear(l_out, channels, channels)

    def forward(
        self, message: Float[Tensor, "atoms dim_moments channels"], groups: SpeciesGroups
    ) -> Float[Tensor, "atoms dim_out channels"]:
        """Return the product features of atoms sorted by species."""
        parts = [self.extract @ message]
        below = message
        for order, kept in enumerate(self.num_kept, start=2):
            first = below.index_select(1, self.get_buffer(f"first_{order}"))
            second = message.index_select(1, self.get_buffer(f"second_{order}"))
            result = self.get_buffer(f"matrix_{order}") @ (first * second)
            below, read = result.split([kept, result.shape[1] - kept], dim=1)
            parts.append(read)
        basis = torch.cat(parts, dim=1)  # (atoms, rows, channels)
        weight = self.weight.index_select(0, groups.species).index_select(1, self.path_of_row)
        return self.linear(self.collect @ (basis * weight))


def _order_terms(
    order: MomentOrder, starts: dict[int, int], multiplied: set[int]
) -> tuple[list[Term], dict[int, int], int]:
    """Return the blocks of one order: tensors that are `multiplied` again, then parts.

    `starts` says where the tensors of the order below begin; also returned are the same for this
    order, and the rows that its tensors take.
    """
    contractions = [symmetric_tensor.moment_contraction(*path[1:]) for path in order.paths]
    terms: list[Term] = []
    own_starts: dict[int, int] = {}
    kept = 0
    for index in sorted(multiplied):
        path = order.paths[index]
        own_starts[index] = kept
        kept += rank_size(path.rank)
        terms.append(Term(starts[path.parent], rank_start(path.second), contractions[index]))
    for index, l in order.parts:
        path = order.paths[index]
        coupling = contractions[index] @ symmetric_tensor.irreducible_part(path.rank, l).T
        terms.append(Term(starts[path.parent], rank_start(path.second), coupling))
    return terms, own_starts, kept
