"""Muon steps along orthogonal factors, evenly in size, and finds what Adam is slow to find."""

import torch
from torch import nn

from tace_al.model.muon import Muon, is_matrix, orthogonal_factor


def test_the_factor_has_singular_values_near_one() -> None:
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(5, 16, 40, generator=generator)
    u, _, vt = torch.linalg.svd(matrices, full_matrices=False)
    factor = orthogonal_factor(matrices)
    sizes = torch.linalg.svdvals(factor)
    assert sizes.min() > 0.6
    assert sizes.max() < 1.3
    exact = u @ vt
    overlap = (factor * exact).sum(dim=(1, 2)) / (factor.norm(dim=(1, 2)) * exact.norm(dim=(1, 2)))
    assert overlap.min() > 0.97


def test_a_step_changes_entries_by_the_rate_whatever_the_shape_and_the_gradient() -> None:
    generator = torch.Generator().manual_seed(1)
    shapes = [(16, 40), (40, 16), (3, 2, 16, 16), (12, 12)]
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    for size, parameter in zip((1e-4, 1.0, 1e3, 5.0), parameters, strict=True):
        parameter.grad = size * torch.randn(parameter.shape, generator=generator)
    Muon(parameters, lr=0.01).step()
    for parameter in parameters:
        assert parameter.grad is not None
        assert 0.006 < parameter.detach().square().mean().sqrt() < 0.0115
        assert (parameter * parameter.grad).sum() < 0  # downhill


def test_matrices_of_a_stack_do_not_know_of_each_other() -> None:
    generator = torch.Generator().manual_seed(2)
    gradients = torch.randn(3, 2, 10, 16, generator=generator)
    stack = nn.Parameter(torch.zeros_like(gradients))
    lone = nn.Parameter(torch.zeros(16, 10))
    idle = nn.Parameter(torch.ones(8, 8))
    stack.grad, lone.grad = gradients, gradients[1, 1].T.clone()
    Muon([stack, lone, idle], lr=0.1).step()
    torch.testing.assert_close(stack[1, 1].T, lone)
    assert torch.equal(idle, torch.ones(8, 8))  # without a gradient nothing moves


def test_it_is_ahead_of_adam_where_directions_differ_in_size() -> None:
    generator = torch.Generator().manual_seed(3)
    target = torch.randn(16, 16, generator=generator)
    basis = torch.linalg.qr(torch.randn(16, 16, generator=generator))[0]
    metric = basis * torch.logspace(0, -2, 16)

    def left(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> float:
        for step in range(150):
            for group in optimizer.param_groups:
                group["lr"] = 0.1 * (1 - step / 150)
            optimizer.zero_grad()
            ((weight - target).T @ metric).square().sum().backward()
            optimizer.step()
        return float((weight.detach() - target).square().mean().sqrt())

    first, second = (nn.Parameter(torch.zeros(16, 16)) for _ in range(2))
    assert left(Muon([first], lr=0.1), first) < 0.5 * left(
        torch.optim.Adam([second], lr=0.1), second
    )


def test_what_is_no_matrix_is_told_apart() -> None:
    assert is_matrix(torch.zeros(3, 1, 64, 64))
    assert not is_matrix(torch.zeros(3, 64))
    assert not is_matrix(torch.zeros(64))
    assert not is_matrix(torch.zeros(64, 1))
