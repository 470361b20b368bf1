"""Radial weights as pieces of degree 5 on an even grid, in PyTorch's own operators.

Between r = k spacing and (k + 1) spacing, W = sum_n c_kn t^n with t = r / spacing - k. Values,
slopes and second derivatives agree where pieces meet, so that Hessians are continuous, which those
of cubic pieces are not. Beyond the last piece W is zero.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Table = Float[Tensor, "pieces 6 paths channels"]


def derivatives(
    function: Callable[[Float[Tensor, " points"]], Float[Tensor, "points paths channels"]],
    r: Float[Tensor, " points"],
    order: int,
) -> list[Float[Tensor, "points paths channels"]]:
    """Return W and its first derivatives by r, each point by itself.

    sum(W u) has the derivative sum_pc u dW/dr by r, and that the derivative dW/dr by u: reverse
    differentiation twice, because SiLU has no forward derivative beyond the first.
    """
    with torch.enable_grad():
        r = r.detach().requires_grad_()
        found = [function(r)]
        for _ in range(order):
            u = torch.ones_like(found[-1], requires_grad=True)
            (by_r,) = torch.autograd.grad((found[-1] * u).sum(), r, create_graph=True)
            (slope,) = torch.autograd.grad(by_r.sum(), u, create_graph=True)
            found.append(slope)
    return [values.detach() for values in found]


def hermite_pieces(
    function: Callable[[Float[Tensor, " points"]], Float[Tensor, "points paths channels"]],
    end: float,
    num_pieces: int,
) -> Table:
    """Return the pieces between 0 and `end` through values and exact derivatives of a function.

    Parameters
    ----------
    function
        Of distances in Angstrom, float64.
    end
        Angstrom.
    num_pieces
        Of one length.
    """
    spacing = end / num_pieces
    r = spacing * torch.arange(num_pieces + 1, dtype=torch.float64)
    r[0] = 1e-3 * spacing  # radial bases divide by r
    values, first, second = derivatives(function, r, 2)
    first, second = first * spacing, second * spacing**2
    v, s, a = values[:-1], first[:-1], second[:-1]
    rise = values[1:] - v - s - a / 2  # what the second-order series misses at the other end,
    rise_of_slope = first[1:] - s - a  # of the value, the slope
    rise_of_bend = second[1:] - a  # and the second derivative
    third = 10 * rise - 4 * rise_of_slope + rise_of_bend / 2
    fourth = -15 * rise + 7 * rise_of_slope - rise_of_bend
    fifth = 6 * rise - 3 * rise_of_slope + rise_of_bend / 2
    return torch.stack([v, s, a / 2, third, fourth, fifth], dim=1)


def piecewise(
    table: Table, distances: Float[Tensor, " edges"], spacing: float, *, slopes: bool = False
) -> Float[Tensor, "edges paths channels"]:
    """Return W, or dW/dr in 1/Angstrom, at distances in Angstrom; differentiable."""
    x = distances / spacing
    k = x.detach().clamp(0, table.shape[0] - 1).long()
    t = (x - k)[:, None, None]
    coefficients = (table[k] * (x < table.shape[0])[:, None, None, None]).unbind(dim=1)
    if slopes:
        coefficients = tuple(n * c / spacing for n, c in enumerate(coefficients))[1:]
    total = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        total = total * t + coefficient
    return total
