"""The radial basis vanishes at the cutoff with two derivatives; the network adds nothing there."""

import math

import pytest
import torch

from tace_al.core.errors import ConfigError
from tace_al.model.radial import (
    BASIS_GAIN,
    SILU_GAIN,
    BesselBasis,
    ChebyshevBasis,
    GaussianBasis,
    RadialBasis,
    RadialNetwork,
    polynomial_cutoff,
    radial_basis,
    species_pairs,
)

CUTOFF = 5.0
KINDS = ["bessel", "chebyshev", "gaussian"]


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


def basis_derivatives(basis: RadialBasis, r: float, power: int) -> list[torch.Tensor]:
    """Return the basis and its first and second derivatives at r, from autograd."""

    def at(x: torch.Tensor) -> torch.Tensor:
        return basis(x.reshape(1), polynomial_cutoff(x.reshape(1), CUTOFF, power))[0]

    x = torch.tensor(r, dtype=torch.float64)
    first = torch.func.jacrev(at)
    return [at(x), first(x), torch.func.jacrev(first)(x)]


@pytest.mark.parametrize("power", [3, 5, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_every_basis_is_twice_differentiable_at_the_cutoff(kind: str, power: int) -> None:
    basis = radial_basis(kind, 8, CUTOFF).double()
    for step in (1e-3, 1e-5):
        value, first, second = basis_derivatives(basis, CUTOFF - step, power)
        assert value.abs().max() < 10 * step**3
        assert first.abs().max() < 10 * step**2
        assert second.abs().max() < 10 * step
    for beyond in (CUTOFF, CUTOFF + 1e-6, 20 * CUTOFF):
        assert all(bool((d == 0).all()) for d in basis_derivatives(basis, beyond, power))


@pytest.mark.parametrize("kind", KINDS)
def test_the_hessian_of_the_basis_is_that_of_finite_differences(kind: str) -> None:
    basis, step = radial_basis(kind, 6, CUTOFF).double(), 1e-4
    for r in (0.7, 2.3, 4.9):
        ends = [basis_derivatives(basis, r + sign * step, 5)[1] for sign in (1, -1)]
        second = basis_derivatives(basis, r, 5)[2]
        assert torch.allclose((ends[0] - ends[1]) / (2 * step), second, atol=1e-6)


def test_chebyshev_functions_are_cosines_of_multiples() -> None:
    r = torch.linspace(0.1, CUTOFF, 50, dtype=torch.float64)
    basis = ChebyshevBasis(7, CUTOFF)
    angle = torch.arccos(2 * r / CUTOFF - 1)
    expected = torch.stack([torch.cos(n * angle) for n in range(7)], dim=1)
    assert torch.allclose(basis(r, torch.ones_like(r)) / basis.gain, expected, atol=1e-12)


def test_gaussians_sit_one_width_apart() -> None:
    r = torch.tensor([0.0, 1.0, 5.0], dtype=torch.float64)
    basis = GaussianBasis(6, CUTOFF).double()
    values = basis(r, torch.ones_like(r)) / basis.gain
    assert values[1, 1].item() == pytest.approx(1.0)
    assert values[1, 0].item() == pytest.approx(math.exp(-0.5))
    assert values[2, 3].item() == pytest.approx(math.exp(-2.0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_functions", [1, 8])
def test_all_bases_are_of_one_size(kind: str, num_functions: int) -> None:
    generator = torch.Generator().manual_seed(0)
    r = CUTOFF * torch.rand(20_000, generator=generator, dtype=torch.float64) ** (1 / 3)
    envelope = polynomial_cutoff(r, CUTOFF)
    size = radial_basis(kind, num_functions, CUTOFF).double()(r, envelope).square().mean().sqrt()
    bessel = BesselBasis(num_functions, CUTOFF)(r, envelope).square().mean().sqrt()
    assert size.item() == pytest.approx(bessel.item(), rel=0.05)


def test_an_unknown_basis_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'gaussian'"):
        radial_basis("gausian", 8, CUTOFF)


def pair_network(num_species: int = 3) -> RadialNetwork:
    torch.manual_seed(1)
    return RadialNetwork(8, (16, 16), 5, num_species=num_species).double()


def test_pairs_name_receiver_and_sender() -> None:
    species, sender = torch.tensor([0, 1, 2]), torch.tensor([[1, 2], [0, 0], [2, 1]])
    assert species_pairs(species, sender, 3).tolist() == [1, 2, 3, 3, 8, 7]


def test_each_ordered_pair_of_species_has_its_own_radial_weights() -> None:
    network = pair_network()
    basis = torch.ones(9, 8, dtype=torch.float64)
    weights = network(basis, torch.arange(9))
    assert torch.pdist(weights).min() > 1e-3
    assert torch.equal(network(basis[:1], torch.tensor([4])), weights[4:5])


@pytest.mark.parametrize("kind", KINDS)
def test_species_dependent_weights_vanish_at_the_cutoff_twice_differentiably(kind: str) -> None:
    network, basis = pair_network(), radial_basis(kind, 8, CUTOFF).double()

    def at(x: torch.Tensor) -> torch.Tensor:
        values = basis(x.expand(9), polynomial_cutoff(x.expand(9), CUTOFF))
        return network(values, torch.arange(9))

    first = torch.func.jacrev(at)
    for step in (1e-3, 1e-5):
        x = torch.tensor(CUTOFF - step, dtype=torch.float64)
        assert at(x).abs().max() < 1e3 * step**3
        assert first(x).abs().max() < 3e3 * step**2
        assert torch.func.jacrev(first)(x).abs().max() < 1e4 * step
    assert not at(torch.tensor(CUTOFF, dtype=torch.float64)).any()


def test_a_network_without_species_keeps_its_weights_and_numbers() -> None:
    """Checkpoints of plain networks have these weights and no others."""
    torch.manual_seed(2)
    network = RadialNetwork(4, (6,), 3)
    torch.manual_seed(2)
    first, second = torch.randn(4, 6), torch.randn(6, 3)
    assert [name for name, _ in network.named_parameters()] == ["weights.0", "weights.1"]
    assert torch.equal(network.weights[0], first)
    assert torch.equal(network.weights[1], second)
    basis = torch.rand(5, 4)
    hidden = torch.nn.functional.silu(basis @ (first * (BASIS_GAIN / 2.0)))
    assert torch.equal(network(basis), hidden @ (second * (SILU_GAIN / math.sqrt(6))))
