"""The spectral product basis: symmetric powers of the message, up to body order nu + 1.

    B^1 = m,   B^n = all couplings of B^(n-1) with m,   n <= nu        (arXiv 2509.14961)
    out_i^{l3} = sum_paths W[Z_i, path, channel] B_path,   then a linear over channels

All factors are the same message, so most couplings repeat one another; only a linearly independent
subset is kept at each order (the span is that of the full basis). Each order is evaluated as the
few products of components that its couplings need, followed by one small matrix.

With `coupled` weights every path has a channel-mixing matrix of its own a species, W[Z_i, path],
and no linear follows: the paper's form, with `channels` times as many numbers.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tace_al.model import cartesian
from tace_al.model.kernels import ProductTable, fused, spectral_product
from tace_al.model.linear import DegreeLinear, SpeciesGroups

NUM_SAMPLES = 256
"""Random messages on which paths are compared: more than there are independent scalars of any order
(51 at l_max = 4, correlation 4)."""


class Path(NamedTuple):
    """A coupling of the order below (`parent`, degree l1) with the message's l2 into l3."""

    parent: int
    l1: int
    l2: int
    l3: int


@cache
def independent_paths(l_max: int, correlation: int) -> tuple[tuple[Path, ...], ...]:
    """Return, for each order n = 1..correlation, linearly independent paths of degree <= l_max.

    Independence is decided in float64 on random messages. Counts for l_max = 3: 4, 15, 49 and 144
    paths of order 1 to 4, out of 4, 23, 137 and 818 couplings.
    """
    generator = np.random.default_rng(0)
    message = generator.normal(size=(NUM_SAMPLES, cartesian.num_components(l_max)))
    orders = [tuple(Path(-1, 0, l, l) for l in range(l_max + 1))]
    values = [message[:, cartesian.degree_slice(l)] for l in range(l_max + 1)]
    for _ in range(1, correlation):
        accepted: list[Path] = []
        accepted_values: list[np.ndarray] = []
        for l3 in range(l_max + 1):
            candidates = [
                Path(parent, path.l3, l2, l3)
                for parent, path in enumerate(orders[-1])
                for l2 in range(l_max + 1)
                if cartesian.couples(path.l3, l2, l3)
            ]
            candidate_values = [
                bilinear(
                    values[path.parent],
                    message[:, cartesian.degree_slice(path.l2)],
                    cartesian.coupling(path.l1, path.l2, l3),
                )
                for path in candidates
            ]
            chosen = independent_subset(candidate_values)
            accepted += [candidates[index] for index in chosen]
            accepted_values += [candidate_values[index] for index in chosen]
        orders.append(tuple(accepted))
        values = accepted_values
    return tuple(orders)


def bilinear(first: np.ndarray, second: np.ndarray, coupling: np.ndarray) -> np.ndarray:
    """Return sum_ab first[s, a] second[s, b] coupling[a, b, c] for every sample s."""
    rows, columns, results = coupling.shape
    by_second = coupling.transpose(1, 0, 2).reshape(columns, rows * results)
    carried = (second @ by_second).reshape(len(second), rows, results)
    return np.einsum("sa,sac->sc", first, carried)


def independent_subset(candidates: Sequence[np.ndarray]) -> list[int]:
    """Return the indices of candidates that are no combination of the accepted ones before them.

    Gram-Schmidt in the given order, each candidate being its values on the same random samples; the
    accepted and refused ones differ by many orders of magnitude in what they leave over.
    """
    chosen: list[int] = []
    if not candidates:
        return chosen
    basis = np.zeros((len(candidates), candidates[0].size))
    for index, value in enumerate(candidates):
        rest = value.ravel() / np.linalg.norm(value)
        known = basis[: len(chosen)]
        for _ in range(2):  # twice is enough (Parlett 1980)
            rest = rest - known.T @ (known @ rest)
        size = np.linalg.norm(rest)
        if size > 1e-6:
            basis[len(chosen)] = rest / size
            chosen.append(index)
    return chosen


@final
class SpectralProduct(nn.Module):
    """Features of degree 0..l_out from messages of degree 0..l_in."""

    def __init__(
        self,
        *,
        l_in: int,
        l_out: int,
        correlation: int,
        channels: int,
        num_species: int,
        coupled: bool = False,
    ) -> None:
        super().__init__()
        self.l_out = l_out
        orders = needed_paths(l_in, l_out, correlation)
        self.correlation = correlation
        products = []
        for order in range(2, correlation + 1):
            first, second, matrix = sparse_products(
                _terms(orders[order - 2], orders[order - 1]), symmetric=order == 2
            )
            self.register_buffer(f"first_{order}", torch.tensor(first), persistent=False)
            self.register_buffer(f"second_{order}", torch.tensor(second), persistent=False)
            self.register_buffer(f"matrix_{order}", torch.tensor(matrix), persistent=False)
            products.append((first, second, matrix))
        rows, path_of_row, degrees_of_row = [], [], []
        offset = num_paths = 0
        for paths in orders:
            for path in paths:
                if path.l3 <= l_out:
                    for m in range(2 * path.l3 + 1):
                        rows.append(offset + m)
                        path_of_row.append(num_paths)
                        degrees_of_row.append(path.l3 * path.l3 + m)
                    num_paths += 1
                offset += 2 * path.l3 + 1
        counts = np.bincount(degrees_of_row)
        self.coupled: CoupledPaths | None = None
        if coupled:
            by_component = np.argsort(degrees_of_row, kind="stable")
            self.register_buffer("rows", torch.tensor(rows)[by_component], persistent=False)
            num_degree = [int(counts[l * l]) for l in range(l_out + 1)]
            self.coupled = CoupledPaths(num_degree, channels, num_species)
            return
        collect = torch.zeros(cartesian.num_components(l_out), len(rows), dtype=torch.float64)
        for row, component in enumerate(degrees_of_row):
            collect[component, row] = 1.0 / math.sqrt(counts[component])
        self.register_buffer("rows", torch.tensor(rows), persistent=False)
        self.register_buffer("path_of_row", torch.tensor(path_of_row), persistent=False)
        self.register_buffer("collect", collect, persistent=False)
        self.rows: Tensor
        self.path_of_row: Tensor
        self.collect: Tensor
        places = list(zip(rows, path_of_row, degrees_of_row, strict=True))
        norms = [1.0 / math.sqrt(counts[component]) for component in degrees_of_row]
        dim_in = cartesian.num_components(l_in)
        self._register_table(ProductTable.of(products, places, norms, dim_in))
        self.weight = nn.Parameter(torch.randn(num_species, num_paths, channels))
        self.linear = DegreeLinear(l_out, channels, channels)

    def _register_table(self, table: ProductTable) -> None:
        """Keep what the compiled kernel reads where dtypes and devices are changed."""
        self.register_buffer("table_terms", table.terms, persistent=False)
        self.register_buffer("table_rows", table.rows, persistent=False)
        self.register_buffer("table_coefficients", table.coefficients, persistent=False)
        self.table_terms: Tensor
        self.table_rows: Tensor
        self.table_coefficients: Tensor

    @property
    def table(self) -> ProductTable:
        """All of the product but its weights, as the compiled kernel reads it."""
        return ProductTable(
            terms=self.table_terms,
            rows=self.table_rows,
            coefficients=self.table_coefficients,
            dim_out=(self.l_out + 1) ** 2,
        )

    def forward(
        self, message: Float[Tensor, "*members atoms dim_in channels"], groups: SpeciesGroups
    ) -> Float[Tensor, "*members atoms dim_out channels"]:
        """Return the product features of atoms sorted by species."""
        if self.coupled is None and fused(message):
            return self.linear(spectral_product(message, self.weight, groups.species, self.table))
        orders = [message]
        for order in range(2, self.correlation + 1):
            first = orders[-1].index_select(-2, self.get_buffer(f"first_{order}"))
            second = message.index_select(-2, self.get_buffer(f"second_{order}"))
            orders.append(self.get_buffer(f"matrix_{order}") @ (first * second))
        basis = torch.cat(orders, dim=-2).index_select(-2, self.rows)  # (atoms, rows, channels)
        if self.coupled is not None:
            return self.coupled(basis, groups)
        weight = self.weight.index_select(-3, groups.species).index_select(-2, self.path_of_row)
        return self.linear(self.collect @ (basis * weight))


@final
class CoupledPaths(nn.Module):
    """out^l = sum_paths B_path^l W[Z, path]: one channel-mixing matrix a path and species."""

    def __init__(self, num_degree: Sequence[int], channels: int, num_species: int) -> None:
        super().__init__()
        self.sizes = [(2 * l + 1) * count for l, count in enumerate(num_degree)]
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(num_species, count * channels, channels))
            for count in num_degree
        )

    def forward(
        self, basis: Float[Tensor, "atoms rows channels"], groups: SpeciesGroups
    ) -> Float[Tensor, "atoms dim_out channels"]:
        """Return the features of atoms sorted by species; rows lie by (degree, component, path)."""
        degrees = []
        blocks = basis.split(self.sizes, dim=1)
        for l, (block, weight) in enumerate(zip(blocks, self.weights, strict=True)):
            matrices = weight / math.sqrt(weight.shape[1])
            rows = block.reshape(
                block.shape[0], 2 * l + 1, -1
            )  # (atoms, 2 l + 1, paths * channels)
            parts = zip(rows.split(list(groups.counts)), matrices, strict=True)
            degrees.append(torch.cat([part @ matrix for part, matrix in parts]))
        return torch.cat(degrees, dim=1)


def needed_paths(l_in: int, l_out: int, correlation: int) -> list[list[Path]]:
    """Return the independent paths of each order that reach an output of degree <= l_out."""
    orders = [list(paths) for paths in independent_paths(l_in, correlation)]
    for order in range(correlation - 1, 0, -1):
        above = orders[order + 1] if order + 1 < correlation else []
        used = {path.parent for path in above}
        kept = [i for i, path in enumerate(orders[order]) if path.l3 <= l_out or i in used]
        renumbered = {old: new for new, old in enumerate(kept)}
        orders[order] = [orders[order][old] for old in kept]
        if above:
            orders[order + 1] = [path._replace(parent=renumbered[path.parent]) for path in above]
    return orders


class Term(NamedTuple):
    """A block of results: factors that begin at two places of their axes, and what couples them."""

    first: int
    second: int
    coupling: np.ndarray


def _terms(below: list[Path], paths: list[Path]) -> list[Term]:
    """Return the blocks of one order, from the order below and the message."""
    starts = np.cumsum([0, *(2 * path.l3 + 1 for path in below)])
    return [
        Term(int(starts[path.parent]), path.l2**2, cartesian.coupling(path.l1, path.l2, path.l3))
        for path in paths
    ]


def sparse_products(
    terms: Sequence[Term], *, symmetric: bool
) -> tuple[list[int], list[int], np.ndarray]:
    """Return which components to multiply and the matrix that couples the products.

    `symmetric` says that both factors lie on the same axis: a product and its mirror are one.
    """
    entries: dict[tuple[int, int], dict[int, float]] = {}
    row = 0
    for term in terms:
        for a, b, c in zip(*np.nonzero(np.abs(term.coupling) > 1e-12), strict=True):
            pair = (term.first + int(a), term.second + int(b))
            if symmetric:
                pair = (min(pair), max(pair))
            column = entries.setdefault(pair, {})
            column[row + int(c)] = column.get(row + int(c), 0.0) + float(term.coupling[a, b, c])
        row += term.coupling.shape[2]
    matrix = np.zeros((row, len(entries)))
    for index, column in enumerate(entries.values()):
        for component, value in column.items():
            matrix[component, index] = value
    return [pair[0] for pair in entries], [pair[1] for pair in entries], matrix
