"""Moments and their contractions against sums over plain 3^n tensors; symmetry; completeness."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from tace_al.model import cartesian, symmetric_tensor
from tace_al.model.interaction import InteractionOptions, message_paths
from tace_al.model.linear import SpeciesGroups
from tace_al.model.moment import (
    MomentInteraction,
    MomentProduct,
    independent_moments,
    needed_moments,
)
from tace_al.model.product import bilinear, independent_paths, independent_subset
from tace_al.model.sphere_quadrature import sphere_harmonics
from tace_al.model.symmetric_tensor import packing, rank_size, rank_start

CHANNELS = 2
NUM_RADIAL = 4


def symmetrise(tensor: np.ndarray) -> np.ndarray:
    """Return the mean over all orders of the indices."""
    orders = list(itertools.permutations(range(tensor.ndim)))
    return sum(np.transpose(tensor, order) for order in orders) / len(orders)


def contract(first: np.ndarray, second: np.ndarray, pairs: int, norm: float) -> np.ndarray:
    """Return Sym(A o_k B) of full tensors, scaled so that a unit-variance coupling has `norm`."""
    axes = (range(first.ndim - pairs, first.ndim), range(pairs))
    rank = first.ndim + second.ndim - 2 * pairs
    return symmetrise(np.tensordot(first, second, axes=axes)) * math.sqrt(rank_size(rank)) / norm


def coupling_norm(first: np.ndarray, second: np.ndarray, rank_a: int, rank_b: int, k: int) -> float:
    """Return the norm of all contractions of the columns of two packings."""
    total = 0.0
    for a, b in itertools.product(first.T, second.T):
        axes = (range(rank_a - k, rank_a), range(k))
        full = np.tensordot(a.reshape((3,) * rank_a), b.reshape((3,) * rank_b), axes=axes)
        total += float(np.sum(symmetrise(full) ** 2))
    return math.sqrt(total)


def make_interaction(l_feature: int, l_edge: int = 2, **options: object) -> MomentInteraction:
    """Return a small interaction in float64."""
    torch.manual_seed(0)
    return MomentInteraction(
        l_feature=l_feature,
        l_edge=l_edge,
        channels=CHANNELS,
        num_radial=NUM_RADIAL,
        radial_hidden=(5,),
        average_neighbours=3.0,
        **options,  # type: ignore[arg-type]
    ).double()


def surroundings(l_feature: int) -> tuple[torch.Tensor, np.ndarray, torch.Tensor, torch.Tensor]:
    """Return features, directions (atoms, slots, 3), radial basis and senders of three atoms."""
    torch.manual_seed(1)
    features = torch.randn(3, (l_feature + 1) ** 2, CHANNELS, dtype=torch.float64)
    directions = np.random.default_rng(1).normal(size=(3, 4, 3))
    directions /= np.linalg.norm(directions, axis=2, keepdims=True)
    basis = torch.randn(12, NUM_RADIAL, dtype=torch.float64)
    basis[5] = 0.0  # an empty slot
    return features, directions, basis, torch.randint(0, 3, (3, 4))


def harmonics_of(directions: np.ndarray, l_max: int) -> torch.Tensor:
    """Return the harmonics as an interaction takes them, (atoms, components, slots)."""
    values = sphere_harmonics(l_max, directions.reshape(-1, 3))
    return torch.tensor(values.reshape(*directions.shape[:2], -1).transpose(0, 2, 1))


@pytest.mark.parametrize("l_feature", [0, 1, 2])
def test_moments_are_the_sums_they_say(l_feature: int) -> None:
    interaction = make_interaction(l_feature)
    features, directions, basis, sender = surroundings(l_feature)
    found = interaction(features, harmonics_of(directions, 2), basis, sender).detach().numpy()
    paths = message_paths(l_feature, 2, 2)
    radial = interaction.radial(basis, None).reshape(3, 4, len(paths), CHANNELS).detach().numpy()
    up = (interaction.up / math.sqrt(CHANNELS)).detach().numpy()
    norms = {
        (l, r, m): coupling_norm(cartesian.packing(l), packing(r), l, r, (l + r - m) // 2)
        for l, r, m in paths
    }
    for rank in range(3):
        members = [index for index, path in enumerate(paths) if path[2] == rank]
        sums = np.zeros((3, len(members), CHANNELS, rank_size(rank)))
        for atom, slot in itertools.product(range(3), range(4)):
            direction, source = directions[atom, slot], features[sender[atom, slot]].numpy()
            for place, index in enumerate(members):
                l, power, _ = paths[index]
                full_power = np.array(math.sqrt(rank_size(power)))
                for _ in range(power):
                    full_power = np.multiply.outer(full_power, direction)
                mixed = source[cartesian.degree_slice(l)] @ up[l]
                for channel in range(CHANNELS):
                    full = (cartesian.packing(l) @ mixed[:, channel]).reshape((3,) * l)
                    pairs = (l + power - rank) // 2
                    moment = contract(full, full_power, pairs, norms[paths[index]])
                    weight = radial[atom, slot, index, channel] / 3.0
                    sums[atom, place, channel] += weight * (packing(rank).T @ moment.ravel())
        mix = interaction.mix[rank].detach().numpy().reshape(len(members), CHANNELS, CHANNELS)
        mix = mix / math.sqrt(len(members) * CHANNELS)
        expected = np.einsum("apcm,pcd->amd", sums, mix)
        assert np.allclose(found[:, rank_start(rank) : rank_start(rank + 1)], expected, atol=1e-12)


def full_reference(product: MomentProduct, message: np.ndarray, l_out: int) -> np.ndarray:
    """Return the product before its channel mixing, for atoms of the first species."""
    orders = needed_moments(2, l_out, product.correlation)
    degrees = [l for order in orders for _, l in order.parts]
    weight = product.weight[0].detach().numpy()
    outputs = np.zeros((len(message), (l_out + 1) ** 2, message.shape[2]))
    for atom, channel in itertools.product(range(len(message)), range(message.shape[2])):
        packed = message[atom, :, channel]
        moments = [
            (packing(r) @ packed[rank_start(r) : rank_start(r + 1)]).reshape((3,) * r)
            for r in range(3)
        ]
        below: list[np.ndarray] = []
        number = 0
        for paths, parts in orders:
            values = []
            for path in paths:
                if path.parent < 0:
                    values.append(moments[path.rank])
                    continue
                norm = coupling_norm(packing(path.first), packing(path.second), *path[1:])
                first, second = below[path.parent], moments[path.second]
                values.append(contract(first, second, path.pairs, norm))
            for index, l in parts:
                part = values[index]
                while part.ndim > l:
                    part = np.trace(part)
                part = cartesian.packing(l).T @ part.ravel()
                # the same part of a packed tensor of unit size
                bare = symmetric_tensor.irreducible_part(values[index].ndim, l)
                unit = (packing(values[index].ndim) @ bare[0]).reshape((3,) * values[index].ndim)
                while unit.ndim > l:
                    unit = np.trace(unit)
                part = part / np.linalg.norm(unit)
                scale = weight[number, channel] / math.sqrt(degrees.count(l))
                outputs[atom, cartesian.degree_slice(l), channel] += scale * part
                number += 1
            below = values
    return outputs


@pytest.mark.parametrize("l_out", [0, 1, 2])
def test_the_product_is_that_of_full_cartesian_tensors(l_out: int) -> None:
    torch.manual_seed(0)
    product = MomentProduct(l_in=2, l_out=l_out, correlation=3, channels=2, num_species=2).double()
    message = torch.randn(2, 10, 2, dtype=torch.float64)
    groups = SpeciesGroups(species=torch.tensor([0, 0]), counts=[2, 0])
    expected = torch.tensor(full_reference(product, message.numpy(), l_out))
    assert torch.allclose(product(message, groups), product.linear(expected), atol=1e-11)


def test_contractions_that_combine_others_are_left_out() -> None:
    orders = independent_moments(3, 3)
    assert [len(order.paths) for order in orders] == [4, 15, 52]  # of 4, 23, 137
    assert [len(order.parts) for order in orders] == [6, 20, 71]
    assert [len(order.paths) for order in independent_moments(2, 4)] == [3, 8, 17, 36]


@pytest.mark.parametrize(("l_max", "correlation"), [(1, 4), (2, 4), (3, 3), (4, 2)])
def test_moments_of_one_radial_function_span_the_spectral_basis(
    l_max: int, correlation: int
) -> None:
    """With M^r = sum_j f n^(r) of one f, parts span the symmetric powers of m^l = sum_j f Y_l."""
    message = np.random.default_rng(0).normal(size=(256, (l_max + 1) ** 2))
    packed = message @ symmetric_tensor.powers_from_harmonics(l_max).T
    moments = [packed[:, rank_start(r) : rank_start(r + 1)] for r in range(l_max + 1)]
    spectral = independent_paths(l_max, correlation)
    values = moments
    for number, (paths, parts) in enumerate(independent_moments(l_max, correlation)):
        if number:
            values = [
                bilinear(
                    values[path.parent],
                    moments[path.second],
                    symmetric_tensor.moment_contraction(*path[1:]),
                )
                for path in paths
            ]
        for degree in range(l_max + 1):
            read = [
                values[index] @ symmetric_tensor.irreducible_part(paths[index].rank, l).T
                for index, l in parts
                if l == degree
            ]
            expected = sum(path.l3 == degree for path in spectral[number])
            assert len(independent_subset(read)) == expected


def turn(rotation: np.ndarray, l_max: int) -> torch.Tensor:
    """Return the matrix that turns packed tensors of degree 0..l_max: Y(R n) = D Y(n)."""
    directions = np.random.default_rng(0).normal(size=(80, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    before = sphere_harmonics(l_max, directions)
    after = sphere_harmonics(l_max, directions @ rotation.T)
    return torch.tensor(np.linalg.lstsq(before, after, rcond=None)[0].T)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("l_feature", "l_edge", "l_out", "correlation"), [(0, 2, 1, 3), (1, 3, 3, 3), (2, 2, 2, 4)]
)
def test_features_turn_and_invert_with_the_neighbourhood(
    l_feature: int, l_edge: int, l_out: int, correlation: int, sign: int
) -> None:
    interaction = make_interaction(l_feature, l_edge)
    product = MomentProduct(
        l_in=l_edge, l_out=l_out, correlation=correlation, channels=CHANNELS, num_species=1
    ).double()
    groups = SpeciesGroups(species=torch.zeros(3, dtype=torch.int64), counts=[3])
    features, directions, basis, sender = surroundings(l_feature)
    rotation = Rotation.random(random_state=2).as_matrix() * sign

    def output(features: torch.Tensor, directions: np.ndarray) -> torch.Tensor:
        moments = interaction(features, harmonics_of(directions, l_edge), basis, sender)
        return product(moments, groups).detach()

    expected = turn(rotation, l_out) @ output(features, directions)
    found = output(turn(rotation, l_feature) @ features, directions @ rotation.T)
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-10


def test_ranks_zero_and_one_lie_where_degrees_do() -> None:
    interaction = make_interaction(0, 1)
    features, directions, basis, sender = surroundings(0)
    message = interaction(features, harmonics_of(directions, 1), basis, sender)
    rotation = Rotation.random(random_state=2).as_matrix()
    turned = interaction(features, harmonics_of(directions @ rotation.T, 1), basis, sender)
    assert torch.allclose(turned, turn(rotation, 1) @ message, atol=1e-12)


def test_outputs_start_near_unit_size() -> None:
    torch.manual_seed(0)
    product = MomentProduct(l_in=2, l_out=1, correlation=3, channels=64, num_species=1).double()
    message = torch.randn(200, 10, 64, dtype=torch.float64)
    groups = SpeciesGroups(species=torch.zeros(200, dtype=torch.int64), counts=[200])
    assert 0.3 < float(product(message, groups).detach().std()) < 3.0


def test_density_widths_and_species_pairs_apply_as_in_the_spectral_message() -> None:
    options = InteractionOptions(
        channels_out=5, num_species=2, species_radial=True, density_normalisation=True
    )
    interaction = make_interaction(1, 2, options=options)
    features, directions, basis, sender = surroundings(1)
    harmonics, pairs = harmonics_of(directions, 2), torch.arange(12) % 4
    message = interaction(features, harmonics, basis, sender, pairs=pairs)
    assert message.shape == (3, 10, 5)
    other = interaction(features, harmonics, basis, sender, pairs=3 - pairs)
    assert not torch.allclose(message, other)


def test_derivatives_of_any_order_and_functional_calls() -> None:
    torch.manual_seed(0)
    product = MomentProduct(l_in=2, l_out=1, correlation=3, channels=2, num_species=1).double()
    message = torch.randn(1, 10, 2, dtype=torch.float64, requires_grad=True)
    groups = SpeciesGroups(species=torch.tensor([0]), counts=[1])
    assert torch.autograd.gradgradcheck(lambda m: product(m, groups), (message,))
    weights = {name: torch.stack([p, 2 * p]) for name, p in product.named_parameters()}

    def energy(weights: dict[str, torch.Tensor], message: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(product, weights, (message, groups))[:, 0].sum()

    gradients = torch.func.vmap(torch.func.grad(energy, argnums=1), in_dims=(0, None))(
        weights, message.detach()
    )
    assert gradients.shape == (2, 1, 10, 2)
