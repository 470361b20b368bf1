"""Force Jacobians: an analytic spring, and kernels that cannot be batched."""

import pytest
import torch

from tace_al.model.hessian import force_jacobian


def test_harmonic_pair_has_the_analytic_frequency() -> None:
    """A spring between two atoms: six zero modes and sqrt(k / mu)."""
    spring, length = 5.0, 1.1
    positions = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, length]], dtype=torch.float64)
    positions.requires_grad_()
    distance = (positions[1] - positions[0]).norm()
    energy = 0.5 * spring * (distance - length) ** 2
    (gradient,) = torch.autograd.grad(energy, positions, create_graph=True)
    block = force_jacobian(-gradient, positions, chunk=4)
    expected = torch.zeros(2, 3, 2, 3, dtype=torch.float64)
    expected[:, 2, :, 2] = spring * torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    torch.testing.assert_close(block, expected)


class Unbatchable(torch.autograd.Function):
    """x^3 whose derivative leaves torch, as that of a hand-written kernel may."""

    calls = 0

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        Unbatchable.calls += 1
        return torch.from_numpy(3.0 * x.detach().numpy() ** 2 * gradient.numpy())


def test_falls_back_to_single_rows() -> None:
    positions = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64, requires_grad=True)
    block = force_jacobian(Unbatchable.apply(positions), positions)
    assert Unbatchable.calls == 4  # one refused, then row by row
    torch.testing.assert_close(block.reshape(3, 3), -torch.diag(3.0 * positions[0].detach() ** 2))


def test_rows_come_in_the_order_asked_for() -> None:
    positions = torch.arange(6.0, dtype=torch.float64).reshape(2, 3).requires_grad_()
    forces = -(positions**2) * positions.sum()
    full = force_jacobian(forces, positions)
    part = force_jacobian(forces, positions, torch.tensor([1, 0]), chunk=2)
    torch.testing.assert_close(part, full[[1, 0]])


def test_forces_that_depend_on_nothing() -> None:
    positions = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    assert not force_jacobian(torch.zeros(2, 3, dtype=torch.float64), positions).any()


def test_an_empty_chunk_is_refused() -> None:
    positions = torch.zeros(1, 3, requires_grad=True)
    with pytest.raises(ValueError, match="chunk"):
        force_jacobian(2.0 * positions, positions, chunk=0)
