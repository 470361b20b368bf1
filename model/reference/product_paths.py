"""The reference's product paths expressed in ours.

Its product basis takes every coupling of every tensor of order n - 1 with the message,

    B^n_p = 3^(-k/2) D_l3 (B^(n-1)_parent o_k m^l2),    l1, l2, l3 <= l_max,  l1 + l2 + l3 even,

137 paths at n = 3, l_max = 3, most of them combinations of others, as all factors are one message.
Ours are independent (49), so that for every path  B^ref_p = sum_q M_qp B_q  with one matrix M an
order and degree. It is found by least squares on random messages, in float64; what is left over
tells a path that ours do not span, such as one of wrong parity.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tace_al.core.errors import CheckpointError
from tace_al.model import cartesian
from tace_al.model.linear import SpeciesGroups
from tace_al.model.product import SpectralProduct

NUM_MESSAGES = 200
TOLERANCE = 1e-9
"""Of the size of a path; paths that are spanned leave 1e-13."""

_COMPARISONS = {
    None: lambda first, second: True,
    "<": lambda first, second: first < second,
    "<=": lambda first, second: first <= second,
    ">": lambda first, second: first > second,
    ">=": lambda first, second: first >= second,
    "==": lambda first, second: first == second,
    "!=": lambda first, second: first != second,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceProduct:
    """Which paths one layer of the reference has.

    Parameters
    ----------
    l_max
        Largest degree of the message.
    outputs
        Degrees of the result.
    correlation
        Highest order.
    l1l2, l3l1
        Comparisons that a path's degrees must pass, such as "<="; None for all.
    left_out
        Indices of second-order paths that it leaves out.
    couplings
        (l1, l2, l3) of each order from the second on, where they are known; None to follow from the
        rest.
    """

    l_max: int
    outputs: Sequence[int]
    correlation: int
    l1l2: str | None = None
    l3l1: str | None = None
    left_out: Sequence[int] = ()
    couplings: Sequence[Sequence[tuple[int, int, int]]] | None = None


def allowed(comparison: str | None, first: int, second: int) -> bool:
    """Tell whether two degrees pass a comparison of the reference's configuration."""
    if comparison not in _COMPARISONS:
        raise CheckpointError(f"the reference's path restriction '{comparison}' is unknown here")
    return bool(_COMPARISONS[comparison](first, second))


def reference_couplings(product: ReferenceProduct) -> list[list[tuple[int, int, int]]]:
    """Return the (l1, l2, l3) of each order from the second on, in the reference's order."""
    if product.couplings is not None:
        return [list(order) for order in product.couplings]
    orders = []
    degrees = set(range(product.l_max + 1))
    for _ in range(2, product.correlation + 1):
        orders.append(
            [
                (l1, l2, l3)
                for l1 in sorted(degrees)
                for l2 in range(product.l_max + 1)
                for l3 in range(abs(l1 - l2), min(product.l_max, l1 + l2) + 1, 2)
                if allowed(product.l1l2, l1, l2) and allowed(product.l3l1, l3, l1)
            ]
        )
        degrees = {l3 for _, _, l3 in orders[-1]}
    wanted = set(product.outputs)
    for index in reversed(range(len(orders))):
        orders[index] = [path for path in orders[index] if path[2] in wanted]
        wanted = {l for l1, l2, _ in orders[index] for l in (l1, l2)}
    if product.left_out and orders:
        orders[0] = [p for i, p in enumerate(orders[0]) if i not in set(product.left_out)]
    return orders


def reference_values(
    product: ReferenceProduct, message: np.ndarray
) -> list[dict[int, list[np.ndarray]]]:
    """Return, for each order and degree, the values of all paths, (messages, 2l + 1) each."""
    parts = {l: message[:, cartesian.degree_slice(l)] for l in range(product.l_max + 1)}
    orders: list[dict[int, list[np.ndarray]]] = [{l: [part] for l, part in parts.items()}]
    for couplings in reference_couplings(product):
        values: dict[int, list[np.ndarray]] = {l: [] for l in parts}
        for l1, l2, l3 in couplings:
            k = (l1 + l2 - l3) // 2
            matrix = cartesian.contraction(l1, l2, l3) * 3.0 ** (-k / 2)
            for parent in orders[-1][l1]:
                values[l3].append(np.einsum("sa,sb,abc->sc", parent, parts[l2], matrix))
        orders.append(values)
    return orders


def our_values(
    product: SpectralProduct, message: Float[Tensor, "messages components"]
) -> list[Float[Tensor, "rows paths"]]:
    """Return, for each output degree, the values of our paths on messages of one channel.

    A coupled product of one channel is linear in its weights, so each is probed alone. Rows are
    messages x components; the product's own 1/sqrt(paths) is taken out.
    """
    groups = SpeciesGroups(
        species=torch.zeros(len(message), dtype=torch.int64), counts=[len(message)]
    )
    weights = {name: weight.detach() for name, weight in product.named_parameters()}
    results = []
    for l, (name, weight) in enumerate(weights.items()):
        values = []
        for path in range(weight.numel()):
            probe = {key: torch.zeros_like(other) for key, other in weights.items()}
            probe[name].view(-1)[path] = math.sqrt(weight.numel())
            output = torch.func.functional_call(product, probe, (message.unsqueeze(2), groups))
            values.append(output[:, cartesian.degree_slice(l), 0].reshape(-1))
        results.append(torch.stack(values, dim=1))
    return results


def precomputed_values(
    couplings: Mapping[tuple[int, int], np.ndarray], message: np.ndarray
) -> list[dict[int, list[np.ndarray]]]:
    """Return the same for a product that is stored as couplings of full 3^l tensors.

    Parameters
    ----------
    couplings
        By (n, l): (3^l, inputs, ..., inputs, paths) with n axes of all degrees end to end, each
        3^l long; the first axis is left out where l = 0.
    message
        Packed, of random numbers.
    """
    l_max = math.isqrt(message.shape[1]) - 1
    parts = (message[:, cartesian.degree_slice(l)] for l in range(l_max + 1))
    full = np.concatenate([part @ cartesian.packing(l).T for l, part in enumerate(parts)], axis=1)
    orders: list[dict[int, list[np.ndarray]]] = [{} for _ in range(max(n for n, _ in couplings))]
    for (n, l), matrix in couplings.items():
        inputs, num_paths = matrix.shape[-2], matrix.shape[-1]
        values = matrix.reshape(3**l, *[inputs] * n, num_paths)
        values = np.einsum("w...ik,si->sw...k", values, full[:, :inputs])
        for _ in range(n - 1):
            values = np.einsum("sw...ik,si->sw...k", values, full[:, :inputs])
        packed = np.einsum("swk,wc->ksc", values, cartesian.packing(l))
        orders[n - 1][l] = list(packed)
    return orders


def path_projections(
    theirs: Callable[[np.ndarray], list[dict[int, list[np.ndarray]]]],
    *,
    l_in: int,
    l_out: int,
    correlation: int,
) -> dict[tuple[int, int], Float[Tensor, "our_paths reference_paths"]]:
    """Return M^T for each order n and output degree l, by (n, l).

    Parameters
    ----------
    theirs
        Gives the values of the reference's paths, by order and degree, on packed messages.
    l_in, l_out, correlation
        Of our product, at least as large as the reference's.

    Raises
    ------
    CheckpointError
        A path is no combination of ours.
    """
    product = SpectralProduct(
        l_in=l_in, l_out=l_out, correlation=correlation, channels=1, num_species=1, coupled=True
    ).double()
    message = np.random.default_rng(0).normal(size=(NUM_MESSAGES, cartesian.num_components(l_in)))
    ours = our_values(product, torch.from_numpy(message))
    return {
        (order, l): project(ours[l], np.stack(values[l]))
        for order, values in enumerate(theirs(message), start=1)
        for l in range(l_out + 1)
        if values.get(l)
    }


def project(
    ours: Float[Tensor, "rows our_paths"], theirs: np.ndarray
) -> Float[Tensor, "our_paths reference_paths"]:
    """Return the coefficients of `theirs` (paths, messages, components) in our paths."""
    target = torch.from_numpy(theirs.reshape(len(theirs), -1).T.copy())
    scale = ours.norm(dim=0)  # paths of high order have large values
    solution = torch.linalg.lstsq(ours / scale, target, driver="gelsd").solution
    left = (ours / scale) @ solution - target
    if bool((left.norm(dim=0) > TOLERANCE * target.norm(dim=0).max()).any()):
        raise CheckpointError(
            "the product of this checkpoint has paths that natural-parity couplings do not span "
            "(pseudo-tensors among ordinary features); it is not symmetric under inversion and "
            "is not imported"
        )
    return solution / scale.unsqueeze(1)
