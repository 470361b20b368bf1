"""Muon: gradient descent that turns a matrix by the same amount in every direction.

The average gradient M = U S V^T of a weight matrix is replaced by its orthogonal factor U V^T
(K. Jordan et al., kellerjordan.github.io/posts/muon, 2024; J. Bernstein and L. Newhouse,
arXiv 2409.20325: steepest descent where a step is measured by its spectral norm). Few directions
dominate M; the others, which Adam leaves behind, are what a force field learns last. The factor is
approached by five odd polynomials of Newton-Schulz kind,

    X <- a X + (b X X^T + c (X X^T)^2) X,    X = M / |M|,

whose coefficients take singular values into 0.7 .. 1.2: exact ones are not needed. A step changes
an entry by the learning rate in the root mean square, as one of Adam does, so both share one rate.
Matrices are the last two axes of a parameter; axes before them count matrices (degrees, species).
What has no two axes as long as `SMALLEST_SIDE`, such as tables of species, is left to Adam.
"""

import math
from collections.abc import Iterator, Sequence
from typing import final

import torch
from torch import Tensor, nn

SMALLEST_SIDE = 8
"""Rows and columns that make a matrix."""
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b and c above."""
ITERATIONS = 5
EPSILON = 1e-8
"""Of Adam, and what a gradient of zero is divided by."""


def orthogonal_factor(matrices: Tensor) -> Tensor:
    """Return about U V^T of (count, rows, columns) matrices U S V^T, rows <= columns."""
    a, b, c = COEFFICIENTS
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + EPSILON)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def is_matrix(parameter: Tensor) -> bool:
    """Return whether a parameter is one of matrices, or a stack of them."""
    return parameter.dim() >= 2 and min(parameter.shape[-2:]) >= SMALLEST_SIDE


@final
class Muon(torch.optim.Optimizer):
    """Muon for matrices.

    Parameters
    ----------
    parameters
        Each with two last axes of `SMALLEST_SIDE` or more.
    lr
        Root mean square change of an entry in one step.
    momentum
        Of the moving average of gradients; half of each step looks ahead of it, after Nesterov.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], *, lr: float, momentum: float = 0.95
    ) -> None:
        assert all(is_matrix(parameter) for parameter in parameters)
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step along the orthogonal factors of the averaged gradients."""
        assert closure is None
        for group in self.param_groups:
            given = [parameter for parameter in group["params"] if parameter.grad is not None]
            if given:
                directions = self._averaged(given, group["momentum"])
                for parameters, factors in _factors(given, directions):
                    torch._foreach_add_(parameters, factors, alpha=-group["lr"])

    def _averaged(self, parameters: Sequence[nn.Parameter], momentum: float) -> Sequence[Tensor]:
        """Return the averages of gradients, brought up to date and looking ahead."""
        gradients = []
        for parameter in parameters:
            assert parameter.grad is not None
            gradients.append(parameter.grad)
            if not self.state[parameter]:
                self.state[parameter]["average"] = torch.zeros_like(parameter)
        averages = [self.state[parameter]["average"] for parameter in parameters]
        torch._foreach_lerp_(averages, gradients, 1.0 - momentum)
        ahead: Sequence[Tensor] = torch._foreach_lerp(gradients, averages, momentum)
        return ahead


def _factors(
    parameters: Sequence[nn.Parameter], directions: Sequence[Tensor]
) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Yield parameters with what to subtract from them, all of one shape of matrix at once."""
    shapes: dict[tuple[int, ...], list[int]] = {}
    for index, direction in enumerate(directions):
        shapes.setdefault(tuple(sorted(direction.shape[-2:])), []).append(index)
    for (_, long), members in shapes.items():
        flat = [directions[index].reshape(-1, *directions[index].shape[-2:]) for index in members]
        wide = [x if x.shape[1] <= x.shape[2] else x.mT for x in flat]
        factors = orthogonal_factor(torch.cat(wide)) * math.sqrt(long)
        own: list[Tensor] = [parameters[index] for index in members]
        parts = factors.split([len(x) for x in wide])
        yield (
            own,
            [
                (part if x.shape[1] <= x.shape[2] else part.mT).reshape(parameter.shape)
                for part, x, parameter in zip(parts, flat, own, strict=True)
            ],
        )
