"""The spectral product basis written as a list of multiplications.

x_r = sum_terms c x_a x_b,   a, b before r;  the first x are the components of the message
out[d] = sum_rows c W[Z, path] x_node
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class ProductTable:
    """What to multiply; no named tuple, whose tensors `torch.func` would take for arguments.

    Parameters
    ----------
    terms
        (row, a, b) of each term, int32, rows ascending; rows count from the first x behind the
        message, a and b from the first of all.
    rows
        (node, path, component): which x, which weight, which component of the output, int32.
    coefficients
        c of the terms, then of the rows.
    dim_out
        Components of the output.
    """

    terms: Int[Tensor, "terms 3"]
    rows: Int[Tensor, "rows 3"]
    coefficients: Float[Tensor, " terms_and_rows"]
    dim_out: int

    def __iter__(self) -> Iterator[Any]:
        """Yield the fields in order."""
        return iter((self.terms, self.rows, self.coefficients, self.dim_out))

    @classmethod
    def of(
        cls,
        orders: Sequence[tuple[Sequence[int], Sequence[int], np.ndarray]],
        rows: Sequence[tuple[int, int, int]],
        norms: Sequence[float],
        dim_in: int,
    ) -> "ProductTable":
        """Return the table, its coefficients in float64.

        Parameters
        ----------
        orders
            For each order from the second up the components of the order below and of the message
            that are multiplied, and the matrix from the products to the order's components.
        rows
            (node, path, component) of each row; nodes count through message and orders.
        norms
            Factor of each row.
        dim_in
            Components of the message.
        """
        terms, coefficients = [], []
        below, offset = 0, 0
        for first, second, matrix in orders:
            for row, product in zip(*np.nonzero(matrix), strict=True):
                terms.append((offset + int(row), below + first[product], second[product]))
                coefficients.append(float(matrix[row, product]))
            below, offset = dim_in + offset, offset + matrix.shape[0]
        assert all(max(a, b) < dim_in + row for row, a, b in terms)
        return cls(
            terms=torch.tensor(terms, dtype=torch.int32).reshape(-1, 3),
            rows=torch.tensor(rows, dtype=torch.int32).reshape(-1, 3),
            coefficients=torch.tensor([*coefficients, *norms], dtype=torch.float64),
            dim_out=1 + max(component for _, _, component in rows),
        )


def product_by_terms(
    message: Float[Tensor, "*batch atoms dim_in channels"],
    weight: Float[Tensor, "*batch species paths channels"],
    species: Int[Tensor, " atoms"],
    table: ProductTable,
) -> Float[Tensor, "*batch atoms dim_out channels"]:
    """Return the product term by term in PyTorch's operators: slow, and differentiable for ever."""
    coefficients = table.coefficients.tolist()
    nodes = list(message.unbind(dim=-2))
    for (row, a, b), c in zip(table.terms.tolist(), coefficients, strict=False):
        product = c * nodes[a] * nodes[b]
        place = message.shape[-2] + row
        if place < len(nodes):
            nodes[place] = nodes[place] + product
        else:
            nodes.append(product)
    own = weight.index_select(-3, species)
    outputs = [torch.zeros_like(nodes[0] * own[..., 0, :])] * table.dim_out
    rest = coefficients[len(table.terms) :]
    for (node, path, component), c in zip(table.rows.tolist(), rest, strict=True):
        outputs[component] = outputs[component] + c * own[..., path, :] * nodes[node]
    return torch.stack(outputs, dim=-2)
