"""The spatial product: Gaunt products by couplings, exact on a sufficient grid and only there."""

import itertools

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from tace_al.core.errors import ConfigError
from tace_al.model import cartesian
from tace_al.model.linear import SpeciesGroups
from tace_al.model.product import independent_paths, independent_subset
from tace_al.model.spatial_product import SpatialProduct, sphere_transforms
from tace_al.model.sphere_quadrature import exact_grid, product_grid, sphere_harmonics

Degrees = dict[int, np.ndarray]


def gaunt_product(first: Degrees, second: Degrees, l_max: int) -> Degrees:
    """Return the parts <= l_max of the product of two functions on the sphere, by couplings.

    C(Y_l1(n), Y_l2(n)) = a Y_l3(n) with one number a, and a is the weight of the path.
    """
    pole = np.array([[0.0, 0.0, 1.0]])
    harmonics = sphere_harmonics(max([*first, *second, l_max]), pole)[0]
    product = {l: np.zeros((first[0].shape[0], 2 * l + 1)) for l in range(l_max + 1)}
    for l1, a in first.items():
        for l2, b in second.items():
            for l3 in range(l_max + 1):
                if cartesian.couples(l1, l2, l3):
                    coupling = cartesian.coupling(l1, l2, l3)
                    left = harmonics[cartesian.degree_slice(l1)]
                    right = harmonics[cartesian.degree_slice(l2)]
                    at_pole = np.einsum("a,b,abc->c", left, right, coupling)
                    gaunt = at_pole[l3] / np.sqrt(2 * l3 + 1)  # Y_l(z) = sqrt(2l + 1) at m = 0
                    product[l3] += gaunt * np.einsum("sa,sb,abc->sc", a, b, coupling)
    return product


def degrees_of(message: np.ndarray, l_max: int) -> Degrees:
    """Return the degrees of packed messages (samples, components)."""
    return {l: message[:, cartesian.degree_slice(l)] for l in range(l_max + 1)}


@pytest.mark.parametrize(
    ("l_in", "l_out", "correlation"), [(1, 1, 5), (2, 2, 3), (3, 3, 2), (4, 2, 3), (3, 1, 4)]
)
def test_powers_on_the_sphere_are_symmetric_powers_by_couplings(
    l_in: int, l_out: int, correlation: int
) -> None:
    generator = np.random.default_rng(0)
    factors = generator.normal(size=(correlation, 4, cartesian.num_components(l_in)))
    grid = exact_grid(correlation * l_in + l_out)
    values, back = sphere_transforms(grid, l_in=l_in, l_out=l_out, correlation=correlation)
    on_sphere = values @ factors[0].T
    expected = degrees_of(factors[0], l_in)
    for order in range(2, correlation + 1):
        on_sphere = on_sphere * (values @ factors[order - 1].T)
        found = (back[order - 2] @ on_sphere).T
        reached = l_out + (correlation - order) * l_in  # what later orders still need
        reached = min(reached, order * l_in)
        expected = gaunt_product(expected, degrees_of(factors[order - 1], l_in), reached)
        for l in range(l_out + 1):
            part, reference = found[:, cartesian.degree_slice(l)], expected[l]
            factor = np.sum(part * reference) / np.sum(reference**2)  # the normalisation
            assert factor > 0
            assert np.allclose(part, factor * reference, atol=1e-11)


def turn(rotation: np.ndarray, l_max: int) -> np.ndarray:
    """Return the matrix that turns packed tensors of degree 0..l_max: Y(R n) = D Y(n)."""
    directions = np.random.default_rng(0).normal(size=(80, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    before = sphere_harmonics(l_max, directions)
    after = sphere_harmonics(l_max, directions @ rotation.T)
    return np.linalg.lstsq(before, after, rcond=None)[0].T


def equivariance_error(product: SpatialProduct, l_in: int, sign: int = 1) -> float:
    """Return the largest relative error of turning before or after the product."""
    torch.manual_seed(1)
    message = torch.randn(4, (l_in + 1) ** 2, product.channels, dtype=torch.float64)
    groups = SpeciesGroups(species=torch.tensor([0, 0, 1, 1]), counts=[2, 2])
    rotation = Rotation.random(random_state=1).as_matrix() * sign
    turned = product(torch.tensor(turn(rotation, l_in)) @ message, groups)
    expected = torch.tensor(turn(rotation, product.l_out)) @ product(message, groups)
    return float(((turned - expected).abs().max() / expected.abs().max()).detach())


@pytest.mark.parametrize("rule", ["gauss-legendre", "equal-angle"])
@pytest.mark.parametrize(("l_in", "l_out", "correlation"), [(2, 1, 3), (3, 3, 3), (3, 0, 4)])
def test_the_product_turns_and_inverts_with_its_message(
    l_in: int, l_out: int, correlation: int, rule: str
) -> None:
    torch.manual_seed(0)
    product = SpatialProduct(
        l_in=l_in,
        l_out=l_out,
        correlation=correlation,
        channels=3,
        num_species=2,
        rule=rule,  # type: ignore[arg-type]
    ).double()
    assert equivariance_error(product, l_in) < 1e-10
    assert equivariance_error(product, l_in, sign=-1) < 1e-10


@pytest.mark.parametrize("grid", [(6, 13), (7, 12), (4, 8)])
def test_a_coarse_grid_is_refused_and_would_break_symmetry(grid: tuple[int, int]) -> None:
    shape = {"l_in": 3, "l_out": 3, "correlation": 3}
    size = {"channels": 3, "num_species": 2}
    with pytest.raises(ConfigError, match="at least 7 latitudes and 13 longitudes"):
        SpatialProduct(**shape, **size, grid=grid)
    torch.manual_seed(0)
    product = SpatialProduct(**shape, **size).double()
    values, back = sphere_transforms(product_grid(*grid), **shape)
    product.to_points = torch.tensor(values)
    for order, matrix in enumerate(back, start=2):
        setattr(product, f"from_points_{order}", torch.tensor(matrix))
    assert equivariance_error(product, 3) > 1e-4


def test_every_exact_grid_gives_the_same_product() -> None:
    results = []
    message = torch.randn(2, 9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    groups = SpeciesGroups(species=torch.tensor([0, 1]), counts=[1, 1])
    for options in ({}, {"grid": (9, 14)}, {"rule": "equal-angle"}, {"grid": (4, 8)}):
        torch.manual_seed(0)
        product = SpatialProduct(
            l_in=2, l_out=1, correlation=3, channels=3, num_species=2, **options
        )
        results.append(product.double()(message, groups))
    assert all(torch.allclose(result, results[0], atol=1e-11) for result in results)


@pytest.mark.parametrize("mixing", [True, False])
def test_outputs_start_near_unit_size(mixing: bool) -> None:
    torch.manual_seed(0)
    product = SpatialProduct(
        l_in=3, l_out=1, correlation=3, channels=64, num_species=1, channel_mixing=mixing
    ).double()
    message = torch.randn(200, 16, 64, dtype=torch.float64)
    groups = SpeciesGroups(species=torch.zeros(200, dtype=torch.int64), counts=[200])
    scalars, vectors = product(message, groups).detach().split([1, 3], dim=1)
    assert 0.3 < float(scalars.std()) < 3.0
    assert 0.3 < float(vectors.std()) < 3.0


def test_order_one_is_the_message_and_needs_no_sphere() -> None:
    torch.manual_seed(0)
    product = SpatialProduct(l_in=2, l_out=1, correlation=1, channels=3, num_species=1).double()
    message = torch.randn(2, 9, 3, dtype=torch.float64)
    groups = SpeciesGroups(species=torch.tensor([0, 0]), counts=[2])
    assert torch.allclose(product(3.0 * message, groups), 3.0 * product(message, groups))


def test_weights_belong_to_a_species() -> None:
    torch.manual_seed(0)
    product = SpatialProduct(l_in=1, l_out=1, correlation=2, channels=2, num_species=2).double()
    message = torch.randn(1, 4, 2, dtype=torch.float64).expand(2, 4, 2)
    groups = SpeciesGroups(species=torch.tensor([0, 1]), counts=[1, 1])
    first, second = product(message, groups)
    assert not torch.allclose(first, second)


def test_derivatives_of_any_order_and_functional_calls() -> None:
    torch.manual_seed(0)
    product = SpatialProduct(l_in=1, l_out=1, correlation=3, channels=2, num_species=1).double()
    message = torch.randn(1, 4, 2, dtype=torch.float64, requires_grad=True)
    groups = SpeciesGroups(species=torch.tensor([0]), counts=[1])
    assert torch.autograd.gradgradcheck(lambda m: product(m, groups), (message,))
    weights = {name: torch.stack([p, 2 * p]) for name, p in product.named_parameters()}

    def energy(weights: dict[str, torch.Tensor], message: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(product, weights, (message, groups))[:, 0].sum()

    gradients = torch.func.vmap(torch.func.grad(energy, argnums=1), in_dims=(0, None))(
        weights, message.detach()
    )
    assert gradients.shape == (2, 1, 4, 2)


def test_the_rank_is_that_of_multisets_of_degrees() -> None:
    """All functions of order 2 are reached; of the 49 of order 3 at l <= 3, 35 are."""
    grid = exact_grid(12)
    harmonics = sphere_harmonics(3, grid.directions)
    message = np.random.default_rng(0).normal(size=(256, 16))
    parts = [part @ harmonics[:, degree_slice].T for part, degree_slice in degree_parts(message, 3)]
    for order, expected in ((2, [4, 3, 5, 3]), (3, [8, 9, 9, 9])):
        found: list[list[np.ndarray]] = [[] for _ in range(4)]
        for degrees in itertools.combinations_with_replacement(range(4), order):
            product = np.prod([parts[l] for l in degrees], axis=0) * grid.weights @ harmonics
            for l, (part, _) in enumerate(degree_parts(product, 3)):
                if np.linalg.norm(part) > 1e-9:
                    found[l].append(part)
        assert [len(independent_subset(values)) for values in found] == expected
    spectral = independent_paths(3, 3)[1]
    assert [sum(path.l3 == l for path in spectral) for l in range(4)] == [4, 3, 5, 3]


def degree_parts(message: np.ndarray, l_max: int) -> list[tuple[np.ndarray, slice]]:
    """Return the degrees of packed messages and where they lie."""
    slices = [cartesian.degree_slice(l) for l in range(l_max + 1)]
    return [(message[:, place], place) for place in slices]
