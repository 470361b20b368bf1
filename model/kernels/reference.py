"""The sums over neighbours and their derivatives in PyTorch's own operators.

    A[i, (l1 l2; m2, p, m1), c] = sum_{e -> i} Y[e, l2 m2] W[e, p, c] h[sender(e), l1 m1, c]

Plain and memory-hungry: what the compiled kernels are tested against, and what runs where they are
not. Every tensor has a leading batch axis, of length 1 where it is shared; so have all results.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tace_al.model.cartesian import degree_slice
from tace_al.model.kernels.layout import EdgeList, SumLayout

Factors = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Block:
    """One pair of degrees: where its features, harmonics, weights and rows lie."""

    features: slice
    harmonics: slice
    weights: slice
    rows: slice
    shape: tuple[int, int, int]  # components m2, paths, components m1


def _blocks(layout: SumLayout) -> Iterator[_Block]:
    """Yield the pairs of degrees in the order of the rows."""
    path = row = 0
    for l1, l2, count in layout.pairs:
        shape = (2 * l2 + 1, count, 2 * l1 + 1)
        size = shape[0] * shape[1] * shape[2]
        yield _Block(
            features=degree_slice(l1),
            harmonics=degree_slice(l2),
            weights=slice(path, path + count),
            rows=slice(row, row + size),
            shape=shape,
        )
        path, row = path + count, row + size


def _used_edges(edges: EdgeList) -> tuple[Tensor, Tensor]:
    """Return the edges that end at an atom, and that atom."""
    counts = edges.last - edges.first
    atoms = torch.arange(len(counts), device=counts.device)
    receiver = torch.repeat_interleave(atoms, counts)
    before = torch.cumsum(counts, dim=0) - counts
    place = torch.arange(len(receiver), device=counts.device) - before[receiver]
    return edges.first[receiver] + place, receiver


def sums(
    factors: Factors, edges: EdgeList, layout: SumLayout
) -> Float[Tensor, "batch atoms rows channels"]:
    """Return A of h, W and Y: (batch, sources, dim_in, channels), (batch, edges, paths, channels)
    and (batch, edges, dim_edge).
    """
    features, weights, harmonics = factors
    used, receiver = _used_edges(edges)
    h, w, y = features[:, edges.sender[used]], weights[:, used], harmonics[:, used]
    parts = []
    for block in _blocks(layout):
        carried = w[:, :, block.weights, None] * h[:, :, None, block.features]
        part = y[:, :, block.harmonics, None, None, None] * carried.unsqueeze(2)
        parts.append(part.flatten(2, 4))  # (batch, edges, rows of the pair, channels)
    terms = torch.cat(parts, dim=2)
    result = terms.new_zeros(terms.shape[0], len(edges.first), *terms.shape[2:])
    return result.index_add(1, receiver, terms)


def gradients(
    cotangent: Float[Tensor, "#batch atoms rows channels"],
    factors: Factors,
    edges: EdgeList,
    layout: SumLayout,
) -> Factors:
    """Return the derivatives of sum(A G) by h, W and Y; G is the cotangent."""
    features, weights, harmonics = factors
    batch = max(given.shape[0] for given in (cotangent, *factors))
    used, receiver = _used_edges(edges)
    sender = edges.sender[used]
    h, w, y = features[:, sender], weights[:, used], harmonics[:, used]
    by_h = h.new_zeros(batch, *h.shape[1:])
    by_w = w.new_zeros(batch, *w.shape[1:])
    by_y = y.new_zeros(batch, *y.shape[1:])
    for block in _blocks(layout):
        g = cotangent[:, receiver, block.rows].unflatten(2, block.shape)
        source, weight = h[:, :, None, block.features], w[:, :, block.weights, None]
        u = (y[:, :, block.harmonics, None, None, None] * g).sum(dim=2)
        by_h[:, :, block.features] += (u * weight).sum(dim=2)
        by_w[:, :, block.weights] += (u * source).sum(dim=3)
        by_y[:, :, block.harmonics] += (g * (weight * source).unsqueeze(2)).sum(dim=(3, 4, 5))
    return (
        by_h.new_zeros(batch, *features.shape[1:]).index_add(1, sender, by_h),
        by_w.new_zeros(batch, *weights.shape[1:]).index_copy(1, used, by_w),
        by_y.new_zeros(batch, *harmonics.shape[1:]).index_copy(1, used, by_y),
    )


def second(
    cotangent: Tensor,
    factors: Factors,
    tangents: tuple[Tensor | None, Tensor | None, Tensor | None],
    edges: EdgeList,
    layout: SumLayout,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the derivatives of <dh, dS/dh> + <dW, dS/dW> + <dY, dS/dY> by G, h, W and Y.

    S = sum(A G) is linear in each of its four factors, so a derivative along a tangent is S with
    the tangent in place of the factor.

    Parameters
    ----------
    cotangent, factors
        G; h, W and Y.
    tangents
        dh, dW and dY in the same shapes; None for zero.
    edges, layout
        Edges and rows of the sums.
    """
    point = (cotangent, *factors)
    batch = max(given.shape[0] for given in (*point, *tangents) if given is not None)
    by_g, by_h, by_w, by_y = (given.new_zeros(batch, *given.shape[1:]) for given in point)
    h, w, y = factors
    dh, dw, dy = tangents
    if dh is not None:
        by_g = by_g + sums((dh, w, y), edges, layout)
        _, along_w, along_y = gradients(cotangent, (dh, w, y), edges, layout)
        by_w, by_y = by_w + along_w, by_y + along_y
    if dw is not None:
        by_g = by_g + sums((h, dw, y), edges, layout)
        along_h, _, along_y = gradients(cotangent, (h, dw, y), edges, layout)
        by_h, by_y = by_h + along_h, by_y + along_y
    if dy is not None:
        by_g = by_g + sums((h, w, dy), edges, layout)
        along_h, along_w, _ = gradients(cotangent, (h, w, dy), edges, layout)
        by_h, by_w = by_h + along_h, by_w + along_w
    return by_g, by_h, by_w, by_y
