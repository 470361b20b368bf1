"""The product kernel: the polynomial, its derivatives, `torch.func`, and both ways to compute."""

from dataclasses import replace

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from tace_al.model.kernels import ProductTable, fused, native, spectral_product
from tace_al.model.kernels.product_table import product_by_terms
from tace_al.model.linear import SpeciesGroups
from tace_al.model.product import SpectralProduct

SPECIES = torch.tensor([0, 0, 2, 2, 2])  # of three; nothing is of the second


def table_of(l_in: int, l_out: int, correlation: int) -> ProductTable:
    product = SpectralProduct(
        l_in=l_in, l_out=l_out, correlation=correlation, channels=1, num_species=1
    )
    return product.table


TABLE = table_of(2, 1, 3)


@pytest.fixture(params=["as installed", "without a compiler"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run every test on the compiled kernel, if it compiles here, and without it."""
    name: str = request.param
    if name == "without a compiler":
        monkeypatch.setattr(native, "takes", lambda tensor: False)
    return name


def factors(
    dim_in: int = 9, paths: int = 17, channels: int = 3, atoms: int = 5
) -> tuple[Tensor, Tensor]:
    """Return messages and weights at random, in float64."""
    generator = torch.Generator().manual_seed(1)
    message = torch.randn(atoms, dim_in, channels, generator=generator, dtype=torch.float64)
    weight = torch.randn(3, paths, channels, generator=generator, dtype=torch.float64)
    return message.requires_grad_(), weight.requires_grad_()


def product(message: Tensor, weight: Tensor) -> Tensor:
    return spectral_product(message, weight, SPECIES, TABLE)


def scalar(message: Tensor, weight: Tensor) -> Tensor:
    return product(message, weight).square().sum()


def close(got: Tensor, expected: Tensor, tolerance: float = 1e-12) -> bool:
    return bool((got - expected).norm() <= tolerance * expected.norm())


def test_a_polynomial_done_by_hand() -> None:
    """x2 = 2 m0 m1 - m1^2, x3 = 3 x2 m0;  out0 = W0 m1 / 2 + W1 x3, out1 = W2 x2."""
    table = ProductTable(
        terms=torch.tensor([[0, 0, 1], [0, 1, 1], [1, 2, 0]], dtype=torch.int32),
        rows=torch.tensor([[1, 0, 0], [3, 1, 0], [2, 2, 1]], dtype=torch.int32),
        coefficients=torch.tensor([2.0, -1.0, 3.0, 0.5, 1.0, 1.0], dtype=torch.float64),
        dim_out=2,
    )
    message, weight = (given.detach() for given in factors(dim_in=2, paths=3))
    found = spectral_product(message, weight, SPECIES, table)
    (m0, m1), (w0, w1, w2) = message.unbind(1), weight[SPECIES].unbind(1)
    x2 = 2.0 * m0 * m1 - m1 * m1
    assert close(found[:, 0], 0.5 * w0 * m1 + w1 * 3.0 * x2 * m0)
    assert close(found[:, 1], w2 * x2)


@pytest.mark.parametrize("degrees", [(0, 0, 3), (1, 1, 1), (2, 0, 3), (3, 2, 3), (3, 1, 4)])
@pytest.mark.parametrize("channels", [16, 5, 40])
def test_the_kernel_is_the_sum_over_terms(degrees: tuple[int, int, int], channels: int) -> None:
    table = table_of(*degrees)
    paths = int(table.rows[:, 1].max()) + 1
    given = factors((degrees[0] + 1) ** 2, paths, channels)
    results, expected = (
        derivatives(lambda *point, of=of: of(*point, SPECIES, table), given)
        for of in (spectral_product, product_by_terms)
    )
    for got, reference in zip(results, expected, strict=True):
        assert close(got, reference)


def derivatives(function, given: tuple[Tensor, Tensor], orders: int = 2) -> list[Tensor]:
    """Return a function's values and derivatives by both factors, one order after the other."""
    results = [function(*given)]
    for _ in range(orders):
        total = torch.stack([result.square().mean() for result in results[-3:]]).sum()
        results += torch.autograd.grad(total, given, create_graph=True)
    return results


def test_single_precision() -> None:
    given = factors(channels=64)
    single = tuple(factor.detach().float().requires_grad_() for factor in given)
    table = replace(TABLE, coefficients=TABLE.coefficients.float())
    found = derivatives(lambda *point: spectral_product(*point, SPECIES, table), single, 3)
    for got, expected in zip(found, derivatives(product, given, 3), strict=True):
        assert got.dtype == torch.float32
        assert close(got.double(), expected, 1e-5)


def test_derivatives_of_four_orders() -> None:
    given = factors(channels=2)
    expected = derivatives(lambda *at: product_by_terms(*at, SPECIES, TABLE), given, 4)
    for got, reference in zip(derivatives(product, given, 4), expected, strict=True):
        assert close(got, reference)


def test_first_and_second_derivatives_are_those_of_differences() -> None:
    table, species = table_of(1, 1, 3), torch.tensor([0, 2])
    paths = int(table.rows[:, 1].max()) + 1
    given = factors(4, paths, channels=2, atoms=2)

    def small(message: Tensor, weight: Tensor) -> Tensor:
        return spectral_product(message, weight, species, table)

    assert torch.autograd.gradcheck(small, given)
    assert torch.autograd.gradgradcheck(small, given)


@pytest.mark.slow
def test_third_derivatives_are_those_of_differences() -> None:
    table, species = table_of(1, 0, 3), torch.tensor([2])
    paths = int(table.rows[:, 1].max()) + 1
    given = factors(4, paths, channels=2, atoms=1)

    def second(*point: Tensor) -> tuple[Tensor, ...]:
        total = spectral_product(*point, species, table).square().sum()
        first = torch.autograd.grad(total, point, create_graph=True)
        size = sum(gradient.square().sum() for gradient in first)
        return torch.autograd.grad(size, point, create_graph=True)

    assert torch.autograd.gradcheck(second, given)


def test_derivatives_asked_of_one_factor_alone() -> None:
    message, weight = factors()
    (force,) = torch.autograd.grad(product(message, weight).sum(), message, create_graph=True)
    (mixed,) = torch.autograd.grad(force.square().sum(), weight)  # training on forces
    (by_weight,) = torch.autograd.grad(product(message.detach(), weight).sum(), weight)
    assert mixed.abs().max() > 0.0 and by_weight.abs().max() > 0.0
    assert (mixed[1] == 0.0).all() and (by_weight[1] == 0.0).all()  # no atom is of that species


def test_a_committee_is_one_by_one() -> None:
    """Weights and messages stacked along a member axis; weights alone; messages alone."""
    messages = torch.stack([scale * factors()[0].detach() for scale in (1.0, -2.0)])
    weights = torch.stack([factors()[1].detach(), factors()[1].detach().flip(0)], dim=2)
    gradient = torch.func.grad(scalar, argnums=(0, 1))
    for in_dims in [(0, 2), (None, 2), (0, None)]:
        given = [
            tensor if dim is not None else tensor.select(axis, 0)
            for tensor, dim, axis in zip((messages, weights), in_dims, (0, 2), strict=True)
        ]
        found = torch.vmap(product, in_dims=in_dims)(*given)
        found_gradients = torch.vmap(gradient, in_dims=in_dims)(*given)
        for i in range(2):
            one = [
                tensor if dim is None else tensor.select(dim, i)
                for tensor, dim in zip(given, in_dims, strict=True)
            ]
            assert close(found[i], product(*one))
            for got, expected in zip(found_gradients, gradient(*one), strict=True):
                assert close(got[i], expected)


def test_forces_of_a_committee_through_autograd() -> None:
    """vmap inside, autograd outside, as stacked members are evaluated."""
    messages = torch.stack([factors()[0].detach(), 2.0 * factors()[0].detach()]).requires_grad_()
    weights = torch.stack([factors()[1].detach(), factors()[1].detach().flip(0)])
    (found,) = torch.autograd.grad(torch.vmap(scalar)(messages, weights).sum(), messages)
    for got, message, weight in zip(found, messages.detach(), weights, strict=True):
        assert close(got, torch.func.grad(scalar)(message, weight))


def test_the_layer_is_the_same_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer = SpectralProduct(l_in=2, l_out=1, correlation=3, channels=3, num_species=3).double()
    groups = SpeciesGroups(species=SPECIES, counts=[2, 0, 3])
    given = (factors()[0], layer.weight)
    found = derivatives(lambda message, weight: layer(message, groups), given, 3)
    monkeypatch.setattr(native, "takes", lambda tensor: False)
    expected = derivatives(lambda message, weight: layer(message, groups), given, 3)
    for got, reference in zip(found, expected, strict=True):
        assert close(got, reference)


def test_members_on_a_leading_axis() -> None:
    """Without vmap: what a member gets is its own, to the last bit."""
    stacked = [torch.stack([given, given.flip(0)]).detach() for given in factors()]
    point = [given.requires_grad_() for given in stacked]
    found = derivatives(product, point, 3)
    for member in range(2):
        own = [given[member].detach().requires_grad_() for given in stacked]
        assert torch.equal(found[0][member], product(*own))
        results = torch.autograd.grad(scalar(*own), own)
        for got, expected in zip(torch.autograd.grad(scalar(*point), point), results, strict=True):
            assert torch.equal(got[member], expected)
    expected = derivatives(lambda *at: product_by_terms(*at, SPECIES, TABLE), point, 3)
    for got, reference in zip(found, expected, strict=True):
        assert close(got, reference)


def test_species_under_vmap_are_refused(way: str) -> None:
    message, weight = factors()
    if fused(message):
        with pytest.raises(TypeError, match="one list of atoms"):
            torch.vmap(lambda species: spectral_product(message, weight, species, TABLE))(
                torch.stack([SPECIES, SPECIES])
            )


def test_hessians_row_by_row_under_vmap() -> None:
    message, weight = factors(channels=2, atoms=5)
    (gradient,) = torch.autograd.grad(scalar(message, weight), message, create_graph=True)
    rows = torch.eye(message.numel(), dtype=torch.float64).reshape(-1, *message.shape)

    def row(direction: Tensor) -> Tensor:
        return torch.autograd.grad(gradient, message, direction, retain_graph=True)[0]

    hessian = torch.vmap(row)(rows).reshape(90, 90)
    assert close(hessian, torch.stack([row(direction) for direction in rows]).reshape(90, 90))
    assert close(hessian, hessian.T)
    nested = torch.vmap(torch.vmap(row))(rows.reshape(9, 10, *message.shape)).reshape(90, 90)
    assert close(nested, hessian)


# PyTorch's own: its forward derivatives load scripted decompositions
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is:DeprecationWarning")
def test_forward_and_reverse_derivatives_agree() -> None:
    point = tuple(given.detach() for given in factors())
    tangents = tuple(given.flip(0) for given in point)

    def gradient(*at: Tensor) -> tuple[Tensor, ...]:
        return torch.func.grad(scalar, argnums=(0, 1))(*at)

    along = torch.func.jvp(scalar, point, tangents)[1]
    expected = sum((g * t).sum() for g, t in zip(gradient(*point), tangents, strict=True))
    assert close(along, expected)

    def forward(*at: Tensor) -> tuple[Tensor, ...]:
        return torch.func.jvp(gradient, at, tangents)[1]

    def reverse(*at: Tensor) -> tuple[Tensor, ...]:
        return torch.func.vjp(gradient, *at)[1](tangents)  # a Hessian is symmetric

    second, third = (torch.func.jvp(way, point, tangents) for way in (forward, reverse))
    for found, reference in zip((*second[0], *second[1]), (*third[0], *third[1]), strict=True):
        assert close(found, reference)


def test_tracing_keeps_the_operators(way: str) -> None:
    point = tuple(given.detach() for given in factors())
    gradient = torch.func.grad(scalar, argnums=(0, 1))
    traced = make_fx(gradient)(*point)
    names = [str(node.target) for node in traced.graph.nodes if "tace_al" in str(node.target)]
    expected = ["tace_al.spectral_product.default", "tace_al.spectral_product_gradients.default"]
    assert names == (expected if fused(point[0]) else [])
    for got, reference in zip(traced(*point), gradient(*point), strict=True):
        assert close(got, reference)


def test_fake_tensors_have_the_shapes() -> None:
    with FakeTensorMode() as mode:
        given = [mode.from_tensor(factor.detach()).requires_grad_() for factor in factors()]
        if not fused(given[0]):  # term by term the table is read, and it has no numbers
            return
        species, *table = (mode.from_tensor(tensor) for tensor in (SPECIES, *tuple(TABLE)[:3]))
        names = ("terms", "rows", "coefficients")
        unknown = replace(TABLE, **dict(zip(names, table, strict=True)))
        found = spectral_product(*given, species, unknown)
        assert found.shape == (5, 4, 3)
        first = torch.autograd.grad(found.sum(), given, create_graph=True)
        second = torch.autograd.grad(first[0].sum(), given)
    for tensors in (first, second):
        assert [tensor.shape for tensor in tensors] == [factor.shape for factor in given]


def test_an_atom_does_not_know_the_batch_it_is_in() -> None:
    message, weight = (given.detach() for given in factors(channels=24))
    together = product(message, weight)
    for atom in range(5):
        alone = spectral_product(message[atom : atom + 1], weight, SPECIES[atom : atom + 1], TABLE)
        assert torch.equal(alone[0], together[atom])


def test_no_atoms_and_strided_messages() -> None:
    message, weight = (given.detach() for given in factors())
    nothing = spectral_product(message[:0], weight, SPECIES[:0], TABLE)
    assert nothing.shape == (0, 4, 3)
    turned = message.transpose(0, 2).contiguous().transpose(0, 2)
    assert torch.equal(product(turned, weight), product(message, weight))


def test_what_does_not_fit_is_told() -> None:
    message, weight = factors()
    for other in (weight[..., :2], weight.expand(2, 3, 17, 3)):
        with pytest.raises((ValueError, TypeCheckError)):  # the latter where shapes are checked
            product(message, other)
    with pytest.raises(ValueError, match="in one dtype"):
        product(message, weight.float())
    with pytest.raises(IndexError):
        product(message, weight[:2])
    with pytest.raises(IndexError):
        product(message[:, :4], weight)
