"""The radial basis vanishes at the cutoff with two derivatives; the network adds nothing there."""

import math

import pytest
import torch

from tace_al.model.radial import (
    BASIS_GAIN,
    SILU_GAIN,
    BesselBasis,
    RadialNetwork,
    polynomial_cutoff,
)

CUTOFF = 5.0


def derivatives(r: float) -> list[float]:
    """Return f_c and its first three derivatives at r."""
    x = torch.tensor(r, dtype=torch.float64, requires_grad=True)
    value = polynomial_cutoff(x, CUTOFF)
    found = [value.item()]
    for _ in range(3):
        (value,) = torch.autograd.grad(value, x, create_graph=True)
        found.append(value.item())
    return found


def test_the_cutoff_function_is_one_at_zero_and_smooth_at_the_end() -> None:
    assert polynomial_cutoff(torch.zeros(1), CUTOFF).item() == 1.0
    value, first, second, third = derivatives(CUTOFF * (1 - 1e-7))
    assert abs(value) < 1e-14
    assert abs(first) < 1e-11
    assert abs(second) < 1e-5
    assert abs(third) > 1e-2  # the polynomial of p = 5 is C^2, not C^3
    assert derivatives(CUTOFF * 1.5) == [0.0] * 4


def test_the_cutoff_function_falls_monotonically() -> None:
    r = torch.linspace(0, CUTOFF, 200, dtype=torch.float64)
    assert (polynomial_cutoff(r, CUTOFF).diff() < 1e-12).all()


def test_bessel_functions_are_orthonormal_on_the_sphere() -> None:
    """Integral of b_n b_m r^2 dr over the ball is delta_nm (without the envelope)."""
    r = torch.linspace(1e-6, CUTOFF, 4001, dtype=torch.float64)
    values = BesselBasis(6, CUTOFF)(r, torch.ones_like(r))
    overlap = torch.trapezoid(
        values[:, :, None] * values[:, None] * r[:, None, None] ** 2, r, dim=0
    )
    assert torch.allclose(overlap, torch.eye(6, dtype=torch.float64), atol=1e-5)


def test_the_network_is_zero_where_the_basis_is() -> None:
    torch.manual_seed(0)
    network = RadialNetwork(8, (16, 16), 5)
    assert torch.equal(network(torch.zeros(2, 8)), torch.zeros(2, 5))


def test_the_network_keeps_unit_variance() -> None:
    torch.manual_seed(0)
    outputs = RadialNetwork(64, (64, 64, 64), 64)(torch.randn(2000, 64) / BASIS_GAIN)
    assert outputs.std().item() == pytest.approx(1.0, abs=0.3)
    assert pytest.approx(1.0, abs=0.01) == SILU_GAIN * math.sqrt(
        torch.nn.functional.silu(torch.randn(400_000)).square().mean().item()
    )
