"""Sums over neighbours: the definition, their derivatives, transforms, and both ways to compute."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from tace_al.model import cartesian
from tace_al.model.interaction import SpectralInteraction, message_paths
from tace_al.model.kernels import EdgeList, SumLayout, compiled, edge_sums, fused, native

RECEIVER = torch.tensor([0, 0, 0, 0, 0, 1, 1, 3, 3, 3])  # atom 2 has no neighbours
SENDER = torch.tensor([1, 2, 3, 1, 2, 0, 3, 0, 1, 0])
EDGES = EdgeList.sorted_by_receiver(SENDER, RECEIVER, 4)
LAYOUT = SumLayout.of_paths(message_paths(1, 2, 2))


@pytest.fixture(params=["as installed", "without a compiler"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run every test on the compiled kernels, if they compile here, and on the reference."""
    name: str = request.param
    if name == "without a compiler":
        monkeypatch.setattr(native, "takes", lambda tensor: False)
    return name


def factors(
    layout: SumLayout = LAYOUT,
    channels: int = 3,
    dtype: torch.dtype = torch.float64,
    edges: int = 10,
) -> list[Tensor]:
    """Return features, weights and harmonics at random."""
    generator = torch.Generator().manual_seed(1)
    shapes = ((4, layout.dim_in, channels), (edges, layout.num_paths, channels))
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for shape in (*shapes, (edges, layout.dim_edge))
    ]


def sums(features: Tensor, weights: Tensor, harmonics: Tensor) -> Tensor:
    return edge_sums(features, weights, harmonics, EDGES, LAYOUT)


def close(got: Tensor, expected: Tensor, tolerance: float = 1e-12) -> bool:
    return bool((got - expected).norm() <= tolerance * expected.norm())


def direct(features: Tensor, weights: Tensor, harmonics: Tensor, layout: SumLayout) -> Tensor:
    """Return the sums by their definition, number by number."""
    result = torch.zeros(4, layout.num_rows, features.shape[2], dtype=torch.float64)
    for edge, (receiver, sender) in enumerate(zip(RECEIVER, SENDER, strict=True)):
        row = path = 0
        for l1, l2, count in layout.pairs:
            for y in harmonics[edge, cartesian.degree_slice(l2)]:
                for weight in weights[edge, path : path + count]:
                    for source in features[sender, cartesian.degree_slice(l1)]:
                        result[receiver, row] += y * weight * source
                        row += 1
            path += count
    return result


@pytest.mark.parametrize("degrees", [(0, 0), (0, 3), (1, 2), (2, 3), (3, 4), (2, 6)])
def test_sums_are_what_they_say(degrees: tuple[int, int]) -> None:
    l_feature, l_edge = degrees
    layout = SumLayout.of_paths(message_paths(l_feature, l_edge, l_edge))
    given = [tensor.detach() for tensor in factors(layout, channels=9)]
    expected = direct(*given, layout)
    assert close(edge_sums(*given, EDGES, layout), expected)
    single = edge_sums(*(tensor.float() for tensor in given), EDGES, layout)
    assert close(single.double(), expected, 1e-6)


def test_rows_are_those_that_the_interaction_couples() -> None:
    torch.manual_seed(0)
    interaction = SpectralInteraction(
        l_feature=1, l_edge=2, channels=3, num_radial=4, radial_hidden=(5,), average_neighbours=7.0
    ).double()
    double = {"dtype": torch.float64}
    sender = torch.tensor([[1, 2, 0], [0, 0, 0], [0, 2, 0]])
    counts = torch.tensor([2, 1, 3])
    features, harmonics = torch.randn(3, 4, 3, **double), torch.randn(3, 9, 3, **double)
    basis = torch.randn(3, 3, 4, **double)
    filled = torch.arange(3) < counts.unsqueeze(1)
    basis, harmonics[:, 0] = basis * filled.unsqueeze(2), 1.0
    expected = interaction(features, harmonics, basis.reshape(9, 4), sender)

    degrees = cartesian.split_degrees(features)
    up = interaction.up / math.sqrt(3)
    sent = torch.cat([degree @ matrix for degree, matrix in zip(degrees, up, strict=True)], dim=1)
    weights = interaction.radial(basis.reshape(9, 4)).reshape(9, -1, 3)
    rows = harmonics.transpose(1, 2).reshape(9, 9)
    layout = SumLayout(pairs=tuple(interaction.pairs))
    assert layout == LAYOUT
    found = edge_sums(sent, weights, rows, EdgeList.of_slots(sender, counts), layout)
    coupled = interaction.couplings @ found / 7.0
    scalars = coupled[:, :2].reshape(3, -1) @ interaction.mix[0] / math.sqrt(6)
    assert torch.allclose(scalars, expected[:, 0], atol=1e-12)


def test_first_and_second_derivatives() -> None:
    edges = EdgeList.sorted_by_receiver(SENDER[:4], torch.tensor([0, 0, 1, 3]), 4)
    given = factors(channels=2, edges=4)

    def few(*point: Tensor) -> Tensor:
        return edge_sums(*point, edges, LAYOUT)

    assert torch.autograd.gradcheck(few, given)
    assert torch.autograd.gradgradcheck(few, given)


@pytest.mark.slow
def test_third_derivatives() -> None:
    edges = EdgeList.sorted_by_receiver(torch.tensor([1, 0, 1]), torch.tensor([0, 0, 1]), 2)
    features, weights, harmonics = factors(channels=2, edges=3)
    given = [features[:2].detach().requires_grad_(), weights, harmonics]

    def second(*point: Tensor) -> tuple[Tensor, ...]:
        total = edge_sums(*point, edges, LAYOUT).square().sum()
        first = torch.autograd.grad(total, point, create_graph=True)
        size = sum(gradient.square().sum() for gradient in first)
        return torch.autograd.grad(size, point, create_graph=True)

    assert torch.autograd.gradcheck(second, given)


@pytest.mark.parametrize("channels", [16, 5, 40])
def test_both_ways_agree_in_every_derivative(
    channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = derivatives_of_three_orders(channels)
    monkeypatch.setattr(native, "takes", lambda tensor: False)
    expected = derivatives_of_three_orders(channels)
    for got, reference in zip(found, expected, strict=True):
        assert close(got, reference, 1e-5)


def derivatives_of_three_orders(channels: int) -> list[Tensor]:
    """Return sums and their derivatives in float32."""
    given = factors(channels=channels, dtype=torch.float32)
    results = [sums(*given)]
    for _ in range(3):
        total = torch.stack([result.square().mean() for result in results[-3:]]).sum()
        results += torch.autograd.grad(total, given, create_graph=True)
    return results


def test_derivatives_asked_of_some_factors_alone() -> None:
    features, weights, harmonics = factors()
    features = features.detach()  # as in the first layer: species do not move
    first = torch.autograd.grad(
        sums(features, weights, harmonics).sum(), harmonics, create_graph=True
    )
    (mixed,) = torch.autograd.grad(first[0].square().sum(), weights)
    assert torch.isfinite(mixed).all() and mixed.abs().max() > 0.0


def test_vmap_over_any_factors_is_one_by_one() -> None:
    features, weights, harmonics = (tensor.detach() for tensor in factors())
    many_features = torch.stack([features, 2.0 * features, -features])
    many_weights = torch.stack([weights, weights.flip(0)], dim=1)

    def gradient(h: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        return torch.func.grad(lambda *point: sums(*point).square().sum(), argnums=(0, 1, 2))(
            h, w, harmonics
        )

    nested = torch.vmap(torch.vmap(gradient, in_dims=(None, 1)), in_dims=(0, None))
    for place, result in enumerate(nested(many_features, many_weights)):
        for i, h in enumerate(many_features):
            for j in range(2):
                assert close(result[i, j], gradient(h, many_weights[:, j])[place])


# PyTorch's own: its forward derivatives load scripted decompositions
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is:DeprecationWarning")
def test_forward_and_reverse_derivatives_agree() -> None:
    point = [tensor.detach() for tensor in factors()]
    tangents = [tensor.flip(0) for tensor in point]
    gradient = torch.func.grad(lambda *at: sums(*at).square().sum(), argnums=(0, 1, 2))
    forward = torch.func.jvp(gradient, tuple(point), tuple(tangents))[1]
    backward = torch.func.vjp(gradient, *point)[1](tuple(tangents))
    for got, expected in zip(forward, backward, strict=True):  # a Hessian is symmetric
        assert close(got, expected)


def test_edges_under_vmap_are_refused() -> None:
    given = factors()
    senders = torch.stack([SENDER, SENDER])
    with pytest.raises(TypeError, match="one list of edges"):
        torch.vmap(
            lambda sender: edge_sums(
                *given, EdgeList(sender=sender, first=EDGES.first, last=EDGES.last), LAYOUT
            )
        )(senders)


def test_tracing_keeps_the_operators() -> None:
    given = [tensor.detach() for tensor in factors()]
    gradient = torch.func.grad(lambda *at: sums(*at).square().sum(), argnums=(0, 1))
    traced = make_fx(gradient)(*given)
    names = [str(node.target) for node in traced.graph.nodes if "tace_al" in str(node.target)]
    assert names == ["tace_al.edge_sums.default", "tace_al.edge_sum_gradients.default"]
    for got, expected in zip(traced(*given), gradient(*given), strict=True):
        assert torch.equal(got, expected)


def test_fake_tensors_have_the_shapes() -> None:
    with FakeTensorMode() as mode:
        given = [mode.from_tensor(tensor.detach()).requires_grad_() for tensor in factors()]
        edges = EdgeList(sender=mode.from_tensor(SENDER), **ends(mode.from_tensor))
        found = edge_sums(*given, edges, LAYOUT)
        assert found.shape == (4, 45, 3)
        first = torch.autograd.grad(found.sum(), given, create_graph=True)
        second = torch.autograd.grad(first[1].sum(), given[2])
    assert [tensor.shape for tensor in first] == [tensor.shape for tensor in given]
    assert second[0].shape == given[2].shape


def ends(convert: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    return {"first": convert(EDGES.first), "last": convert(EDGES.last)}


def test_an_atom_does_not_know_the_batch_it_is_in() -> None:
    features, weights, harmonics = (tensor.detach() for tensor in factors(channels=24))
    together = sums(features, weights, harmonics)
    for atom, (start, stop) in enumerate(zip(EDGES.first, EDGES.last, strict=True)):
        alone = EdgeList.sorted_by_receiver(SENDER[start:stop], RECEIVER[start:stop] - atom, 1)
        single = edge_sums(features, weights[start:stop], harmonics[start:stop], alone, LAYOUT)
        assert torch.equal(single[0], together[atom])


def test_slots_without_edges_take_no_part() -> None:
    sender = torch.tensor([[1, 3, 2], [0, 2, 1]])
    edges = EdgeList.of_slots(sender, torch.tensor([2, 1]))
    given = factors(edges=6)
    found = edge_sums(*given, edges, LAYOUT)
    _, by_weights, by_harmonics = torch.autograd.grad(found.square().sum(), given)
    empty = torch.tensor([2, 4, 5])
    assert (by_weights[empty] == 0.0).all() and (by_harmonics[empty] == 0.0).all()
    assert (by_weights[[0, 1, 3]].abs().sum(dim=(1, 2)) > 0.0).all()


def test_no_edges_at_all() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    given = factors(edges=0)
    found = edge_sums(*given, EdgeList.sorted_by_receiver(nothing, nothing, 4), LAYOUT)
    assert found.shape == (4, 45, 3) and (found == 0.0).all()
    assert (torch.autograd.grad(found.sum(), given)[0] == 0.0).all()


def test_strided_factors_are_read_right() -> None:
    features, weights, harmonics = (tensor.detach() for tensor in factors())
    turned = harmonics.T.contiguous().T
    assert torch.equal(sums(features, weights, turned), sums(features, weights, harmonics))


def test_wrong_shapes_and_senders_are_told() -> None:
    features, weights, harmonics = factors()
    with pytest.raises(ValueError, match=r"`weights` has shape .*, expected \(10, 7, 3\)"):
        sums(features, weights[:, :5], harmonics)
    with pytest.raises(IndexError):
        sums(features[:2], weights, harmonics)


def test_overlapping_blocks_are_told() -> None:
    overlapping = EdgeList(sender=SENDER, first=EDGES.first, last=EDGES.last + 1)
    given = factors()
    if fused(given[0]):
        with pytest.raises(IndexError, match="overlap"):
            edge_sums(*given, overlapping, LAYOUT)
    else:
        assert compiled() is None or not native.takes(given[0])
