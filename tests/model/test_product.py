"""The product basis: complete, free of repeats, and equal to the sum over full 3^l tensors."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from tace_al.model import cartesian
from tace_al.model.linear import SpeciesGroups
from tace_al.model.product import SpectralProduct, independent_paths, needed_paths
from tace_al.model.sphere_quadrature import sphere_harmonics


def all_paths(l_max: int, correlation: int) -> list[int]:
    """Return how many couplings each order has when none is left out."""
    degrees, counts = list(range(l_max + 1)), [l_max + 1]
    for _ in range(1, correlation):
        degrees = [
            l3
            for l1 in degrees
            for l2 in range(l_max + 1)
            for l3 in range(l_max + 1)
            if cartesian.couples(l1, l2, l3)
        ]
        counts.append(len(degrees))
    return counts


def symmetric_multiplicities(l_max: int, order: int) -> list[int]:
    """Return how often each l <= l_max of natural parity occurs in the symmetric power.

    By weights: as many states of parity (-1)^l have m = l as irreducible parts reach at least l, so
    the difference between m = l and m = l + 1 counts the parts of degree l.
    """
    weights = [(l, m) for l in range(l_max + 1) for m in range(-l, l + 1)]
    table: dict[tuple[int, int, int], int] = {(0, 0, 0): 1}  # (factors, m, parity)
    for l, m in weights:
        grown: dict[tuple[int, int, int], int] = {}
        for (factors, total, parity), count in table.items():
            for power in range(order - factors + 1):
                key = (factors + power, total + power * m, (parity + power * l) % 2)
                grown[key] = grown.get(key, 0) + count
        table = grown
    return [
        table.get((order, l, l % 2), 0) - table.get((order, l + 1, l % 2), 0)
        for l in range(l_max + 1)
    ]


@pytest.mark.parametrize(("l_max", "correlation"), [(1, 4), (2, 4), (3, 4), (4, 3), (5, 3)])
def test_the_basis_is_complete_and_free_of_repeats(l_max: int, correlation: int) -> None:
    """Each degree occurs as often as in the symmetric power of the message, no more, no less."""
    for order, paths in enumerate(independent_paths(l_max, correlation), start=1):
        found = [sum(path.l3 == l for path in paths) for l in range(l_max + 1)]
        assert found == symmetric_multiplicities(l_max, order)


def test_most_couplings_of_the_full_basis_repeat_one_another() -> None:
    assert all_paths(3, 4) == [4, 23, 137, 818]
    assert [len(paths) for paths in independent_paths(3, 4)] == [4, 15, 49, 144]


def test_only_paths_that_reach_an_output_are_kept() -> None:
    orders = needed_paths(2, 0, 3)
    assert all(path.l3 == 0 for path in orders[-1])
    parents = {path.parent for path in orders[-1]}
    assert all(path.l3 == 0 or index in parents for index, path in enumerate(orders[1]))
    assert max(parents) < len(orders[1])
    for path in orders[-1]:
        assert orders[1][path.parent].l3 == path.l1


def full_tensor_reference(
    product: SpectralProduct, message: torch.Tensor, paths: list, species: list[int], l_out: int
) -> torch.Tensor:
    """Return the product from unpacked 3^l tensors, contracted index by index and projected."""
    num_atoms, _, channels = message.shape
    outputs = torch.zeros(num_atoms, cartesian.num_components(l_out), channels).double()
    degree_counts = [
        sum(path.l3 == l for order in paths for path in order) for l in range(l_out + 1)
    ]
    for atom in range(num_atoms):
        for channel in range(channels):
            packed = message[atom, :, channel].detach().numpy()
            full = {
                l: (cartesian.packing(l) @ packed[cartesian.degree_slice(l)]).reshape((3,) * l)
                for l in range(3)
            }
            below: list[np.ndarray] = []
            number = 0
            for order in paths:
                values = []
                for path in order:
                    if path.parent < 0:
                        value = full[path.l3]
                    else:
                        k = (path.l1 + path.l2 - path.l3) // 2
                        axes = (range(path.l1 - k, path.l1), range(k))
                        contracted = np.tensordot(below[path.parent], full[path.l2], axes=axes)
                        projected = cartesian.projector(path.l3) @ contracted.ravel()
                        bare = np.linalg.norm(cartesian.contraction(path.l1, path.l2, path.l3))
                        norm = np.sqrt(2 * path.l3 + 1) / bare
                        value = norm * projected.reshape((3,) * path.l3)
                    values.append(value)
                    if path.l3 <= l_out:
                        weight = product.weight[species[atom], number, channel].item()
                        term = weight * cartesian.packing(path.l3).T @ value.ravel()
                        term /= np.sqrt(degree_counts[path.l3])
                        columns = cartesian.degree_slice(path.l3)
                        outputs[atom, columns, channel] += torch.from_numpy(term)
                        number += 1
                below = values
    return outputs


@pytest.mark.parametrize("l_out", [0, 1])
def test_the_product_is_that_of_full_cartesian_tensors(l_out: int) -> None:
    torch.manual_seed(0)
    product = SpectralProduct(l_in=2, l_out=l_out, correlation=3, channels=2, num_species=2)
    product = product.double()
    species = [0, 1, 1]
    message = torch.randn(3, 9, 2, dtype=torch.float64)
    groups = SpeciesGroups(species=torch.tensor(species), counts=[1, 2])
    expected = full_tensor_reference(product, message, needed_paths(2, l_out, 3), species, l_out)
    assert torch.allclose(product(message, groups), product.linear(expected), atol=1e-12)


def test_order_n_is_of_degree_n_in_the_message() -> None:
    """f(2m) with terms of degree 1, 2, 3 only: the fourth difference in the scale vanishes."""
    torch.manual_seed(0)
    product = SpectralProduct(l_in=2, l_out=0, correlation=3, channels=2, num_species=1).double()
    message = torch.randn(1, 9, 2, dtype=torch.float64)
    groups = SpeciesGroups(species=torch.tensor([0]), counts=[1])
    values = torch.stack([product(scale * message, groups) for scale in (0.0, 1.0, 2.0, 3.0, 4.0)])
    assert torch.equal(values[0], torch.zeros_like(values[0]))
    fourth = values[0] - 4 * values[1] + 6 * values[2] - 4 * values[3] + values[4]
    third = -values[0] + 3 * values[1] - 3 * values[2] + values[3]
    assert fourth.abs().max() < 1e-10
    assert third.abs().max() > 1e-3


@pytest.mark.parametrize(("l_in", "l_out", "correlation"), [(3, 3, 4), (4, 1, 4), (4, 4, 3)])
@pytest.mark.parametrize("inverted", [False, True])
def test_the_product_turns_and_inverts_with_its_message(
    l_in: int, l_out: int, correlation: int, inverted: bool
) -> None:
    torch.manual_seed(0)
    product = SpectralProduct(
        l_in=l_in, l_out=l_out, correlation=correlation, channels=2, num_species=1
    ).double()
    message = torch.randn(3, (l_in + 1) ** 2, 2, dtype=torch.float64)
    groups = SpeciesGroups(species=torch.zeros(3, dtype=torch.int64), counts=[3])
    rotation = Rotation.random(random_state=1).as_matrix() * (-1 if inverted else 1)
    turned = product(torch.tensor(turn(rotation, l_in)) @ message, groups)
    expected = torch.tensor(turn(rotation, l_out)) @ product(message, groups)
    assert float(((turned - expected).abs().max() / expected.abs().max()).detach()) < 1e-10


def turn(rotation: np.ndarray, l_max: int) -> np.ndarray:
    """Return the matrix that turns packed tensors of degree 0..l_max: Y(R n) = D Y(n)."""
    directions = np.random.default_rng(0).normal(size=(80, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    before = sphere_harmonics(l_max, directions)
    after = sphere_harmonics(l_max, directions @ rotation.T)
    return np.linalg.lstsq(before, after, rcond=None)[0].T


def test_outputs_start_near_unit_size() -> None:
    torch.manual_seed(0)
    product = SpectralProduct(l_in=2, l_out=1, correlation=3, channels=64, num_species=1).double()
    message = torch.randn(200, 9, 64, dtype=torch.float64)
    groups = SpeciesGroups(species=torch.zeros(200, dtype=torch.int64), counts=[200])
    assert 0.3 < float(product(message, groups).detach().std()) < 3.0


def test_channels_mix() -> None:
    torch.manual_seed(0)
    product = SpectralProduct(l_in=1, l_out=1, correlation=2, channels=3, num_species=1).double()
    message = torch.zeros(1, 4, 3, dtype=torch.float64)
    message[..., 0] = torch.randn(1, 4, dtype=torch.float64)
    groups = SpeciesGroups(species=torch.tensor([0]), counts=[1])
    assert bool((product(message, groups)[..., 1:].abs().amax(dim=1) > 1e-3).all())


def test_coupled_weights_sum_paths_with_one_matrix_each() -> None:
    """A diagonal W[Z, path] is a channel-wise product without its linear."""
    torch.manual_seed(0)
    shape = {"l_in": 2, "l_out": 1, "correlation": 3, "channels": 2, "num_species": 2}
    product = SpectralProduct(**shape).double()
    coupled = SpectralProduct(**shape, coupled=True).double()
    message = torch.randn(3, 9, 2, dtype=torch.float64)
    groups = SpeciesGroups(species=torch.tensor([0, 1, 1]), counts=[1, 2])
    degrees = [path.l3 for order in needed_paths(2, 1, 3) for path in order if path.l3 <= 1]
    with torch.no_grad():
        product.linear.weight.copy_(math.sqrt(2.0) * torch.eye(2).expand(2, 2, 2))
        for l, weight in enumerate(coupled.coupled.weights):
            members = [path for path, degree in enumerate(degrees) if degree == l]
            matrices = torch.diag_embed(product.weight[:, members])  # (species, paths, C, C)
            weight.copy_(math.sqrt(2.0) * matrices.flatten(1, 2))
    assert torch.allclose(coupled(message, groups), product(message, groups), atol=1e-12)
    empty = SpeciesGroups(species=torch.tensor([1, 1, 1]), counts=[0, 3])
    assert coupled(message, empty).shape == (3, 4, 2)
