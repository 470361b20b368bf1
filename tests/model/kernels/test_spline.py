"""Splines of radial weights: how near they come, how smooth they are, and the sums they enter."""

import pytest
import torch
from torch import Tensor

from tace_al.model.interaction import message_paths
from tace_al.model.kernels import (
    EdgeList,
    RadialSpline,
    SumLayout,
    edge_sums,
    native,
    splined_edge_sums,
)
from tace_al.model.kernels.pieces import derivatives, piecewise
from tace_al.model.radial import BesselBasis, RadialNetwork, polynomial_cutoff

CUTOFF, CHANNELS = 5.0, 5
LAYOUT = SumLayout.of_paths(message_paths(1, 2, 2))
EDGES = EdgeList.sorted_by_receiver(
    torch.tensor([1, 2, 0, 2, 0, 1]), torch.tensor([0, 0, 1, 1, 2, 2]), 3
)


@pytest.fixture(params=["as installed", "without a compiler"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run every test on the compiled kernels, if they compile here, and on the reference."""
    name: str = request.param
    if name == "without a compiler":
        monkeypatch.setattr(native, "takes", lambda tensor: False)
    return name


def network(r: Tensor) -> Tensor:
    """Return the weights of a radial network with random parameters."""
    torch.manual_seed(3)
    weights = RadialNetwork(8, (16, 16), LAYOUT.num_paths * CHANNELS).double()
    basis = BesselBasis(8, CUTOFF).double()
    values: Tensor = weights(basis(r, polynomial_cutoff(r, CUTOFF)))
    return values.reshape(len(r), LAYOUT.num_paths, CHANNELS)


def spline(dtype: torch.dtype = torch.float64) -> RadialSpline:
    return RadialSpline.of(network, CUTOFF, dtype=dtype)


def arguments() -> tuple[Tensor, Tensor, Tensor]:
    """Return features, distances and harmonics at random; one edge is beyond the cutoff."""
    generator = torch.Generator().manual_seed(2)
    double = {"dtype": torch.float64, "generator": generator}
    r = 0.9 + 4.0 * torch.rand(6, **double)
    r[4] = 5.3
    features, harmonics = torch.randn(3, 4, CHANNELS, **double), torch.randn(6, 9, **double)
    return features.requires_grad_(), r.requires_grad_(), harmonics.requires_grad_()


def test_derivatives_are_those_of_the_function() -> None:
    r = torch.linspace(0.5, 4.0, 9, dtype=torch.float64)

    def waves(at: Tensor) -> Tensor:
        return torch.sin(at[:, None, None] * torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))

    values, first, second = derivatives(waves, r, 2)
    factor = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    assert torch.allclose(values, waves(r))
    assert torch.allclose(first, factor * torch.cos(r[:, None, None] * factor))
    assert torch.allclose(second, -(factor**2) * waves(r))


def test_splines_follow_the_network() -> None:
    r = torch.linspace(0.4, 5.2, 997, dtype=torch.float64)
    exact, slope = derivatives(network, r, 1)
    assert (spline()(r) - exact).abs().max() < 1e-7 * exact.abs().max()
    splined = spline()
    own = piecewise(splined.table, r, splined.spacing, slopes=True)
    assert (own - slope).abs().max() < 1e-5 * slope.abs().max()


def test_two_derivatives_are_continuous_where_pieces_meet() -> None:
    splined = spline()
    knots = splined.spacing * torch.arange(20, 60, dtype=torch.float64)
    below, above = (derivatives(splined, knots * (1.0 + side), 2) for side in (-1e-9, 1e-9))
    for left, right in zip(below, above, strict=True):
        assert (left - right).abs().max() < 1e-5 * right.abs().max()


def test_nothing_beyond_the_cutoff() -> None:
    r = torch.tensor([5.0, 5.1, 50.0], dtype=torch.float64)
    assert (spline()(r) == 0.0).all()


def test_a_rough_function_is_refused() -> None:
    with pytest.raises(ValueError, match="not smooth"):
        RadialSpline.of(
            lambda r: (r[:, None, None] - 2.3456).abs() + 0.0 * network(r),
            CUTOFF,
            dtype=torch.float64,
        )


def test_sums_are_those_of_the_splined_weights() -> None:
    features, r, harmonics = arguments()
    splined = spline()
    found = splined_edge_sums(features, splined, r, harmonics, EDGES, LAYOUT)
    expected = edge_sums(features, splined(r), harmonics, EDGES, LAYOUT)
    assert torch.allclose(found, expected, atol=1e-13)
    given = (features, r, harmonics)
    for got, wanted in zip(
        torch.autograd.grad(found.sin().sum(), given),
        torch.autograd.grad(expected.sin().sum(), given),
        strict=True,
    ):
        assert torch.allclose(got, wanted, atol=1e-12)


def test_second_derivatives_go_through_the_spline() -> None:
    splined = spline()

    def sums(*given: Tensor) -> Tensor:
        features, r, harmonics = given
        return splined_edge_sums(features, splined, r, harmonics, EDGES, LAYOUT).sum(dim=1)

    given = arguments()
    assert torch.autograd.gradcheck(sums, given, fast_mode=True)
    assert torch.autograd.gradgradcheck(sums, given, fast_mode=True)


def test_single_precision_slopes_are_as_good_as_the_numbers() -> None:
    features, r, harmonics = arguments()
    exact = edge_sums(features, network(r), harmonics, EDGES, LAYOUT).square().sum()
    (expected,) = torch.autograd.grad(exact, r)
    single = [tensor.detach().float().requires_grad_() for tensor in (features, r, harmonics)]
    found = splined_edge_sums(single[0], spline(torch.float32), single[1], single[2], EDGES, LAYOUT)
    (got,) = torch.autograd.grad(found.square().sum(), single[1])
    assert (got - expected).abs().max() < 2e-5 * expected.abs().max()


def test_tables_of_many_members_in_one_call() -> None:
    features, r, harmonics = (tensor.detach() for tensor in arguments())
    splined = spline()
    tables = torch.stack([splined.table, -0.5 * splined.table])

    def sums(table: Tensor) -> Tensor:
        member = RadialSpline(table=table, spacing=splined.spacing)
        return splined_edge_sums(features, member, r, harmonics, EDGES, LAYOUT)

    stacked = torch.vmap(sums)(tables)
    for table, got in zip(tables, stacked, strict=True):
        assert torch.allclose(got, sums(table), atol=1e-13)
