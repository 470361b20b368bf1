"""The message against a direct sum over neighbours, paths and components."""

import math
from dataclasses import dataclass

import pytest
import torch
from scipy.spatial.transform import Rotation

from tace_al.model import cartesian
from tace_al.model.gate import EquivariantGate
from tace_al.model.harmonics import CartesianHarmonics
from tace_al.model.interaction import InteractionOptions, SpectralInteraction, message_paths
from tace_al.model.radial import polynomial_cutoff, radial_basis, species_pairs

CHANNELS = 3
CUTOFF = 4.0
SPECIES = torch.tensor([0, 0, 1, 1, 2])
OPTIONS = {
    "plain": InteractionOptions(),
    "species": InteractionOptions(species_radial=True, num_species=3),
    "density": InteractionOptions(density_normalisation=True),
    "channels": InteractionOptions(channels_out=5),
    "all": InteractionOptions(
        channels_out=2, num_species=3, species_radial=True, density_normalisation=True
    ),
}


def test_paths_obey_triangle_and_parity() -> None:
    assert message_paths(0, 2, 2) == [(0, 0, 0), (0, 1, 1), (0, 2, 2)]
    assert message_paths(1, 2, 2) == sorted(message_paths(1, 2, 2))
    paths = message_paths(1, 2, 2)
    assert (1, 1, 2) in paths
    assert (1, 1, 1) not in paths
    assert len(paths) == 3 + 4  # l1 = 1: (1,1,0) (1,0,1) (1,2,1) (1,1,2)


@pytest.mark.parametrize("l_feature", [0, 1, 2])
def test_the_message_is_the_sum_it_says(l_feature: int) -> None:
    torch.manual_seed(0)
    double = {"dtype": torch.float64}
    interaction = SpectralInteraction(
        l_feature=l_feature,
        l_edge=2,
        channels=CHANNELS,
        num_radial=4,
        radial_hidden=(5,),
        average_neighbours=7.0,
    ).double()
    sender = torch.tensor([[1, 2], [0, 0], [0, 2]])  # the second slot of the second atom is empty
    features = torch.randn(3, (l_feature + 1) ** 2, CHANNELS, **double)
    harmonics, basis = torch.randn(3, 9, 2, **double), torch.randn(3, 2, 4, **double)
    basis[1, 1], harmonics[:, 0] = 0.0, 1.0
    message = interaction(features, harmonics, basis.reshape(6, 4), sender)

    paths = message_paths(l_feature, 2, 2)
    radial = interaction.radial(basis.reshape(6, 4)).reshape(3, 2, len(paths), CHANNELS)
    up = interaction.up / math.sqrt(CHANNELS)
    for atom in range(3):
        for l3 in range(3):
            per_path = []
            for index, (l1, l2, degree) in enumerate(paths):
                if degree != l3:
                    continue
                coupling = torch.tensor(cartesian.coupling(l1, l2, l3).copy())
                total = torch.zeros(2 * l3 + 1, CHANNELS, **double)
                for slot in range(2 if atom != 1 else 1):
                    source = features[sender[atom, slot], cartesian.degree_slice(l1)] @ up[l1]
                    angular = harmonics[atom, cartesian.degree_slice(l2), slot]
                    product = torch.einsum("ac,b,abm->mc", source, angular, coupling)
                    total += radial[atom, slot, index] * product / 7.0
                per_path.append(total)
            mix = interaction.mix[l3] / math.sqrt(len(per_path) * CHANNELS)
            expected = torch.cat(per_path, dim=1) @ mix
            assert torch.allclose(message[atom, cartesian.degree_slice(l3)], expected, atol=1e-12)


def test_the_neighbour_count_travels_with_the_state() -> None:
    shape: dict = {"l_feature": 0, "l_edge": 1, "channels": 2, "num_radial": 2, "radial_hidden": ()}
    trained = SpectralInteraction(**shape, average_neighbours=4.0)
    fresh = SpectralInteraction(**shape, average_neighbours=8.0)
    fresh.load_state_dict(trained.state_dict())
    assert fresh.inverse_neighbours.item() == 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbourhood:
    """Every atom of a cluster with all the others as its slots."""

    sender: torch.Tensor
    harmonics: torch.Tensor
    basis: torch.Tensor
    pairs: torch.Tensor


def neighbourhood(positions: torch.Tensor, l_edge: int = 2) -> Neighbourhood:
    """Return what an interaction reads of a cluster of the five atoms of SPECIES."""
    count = len(SPECIES)
    sender = torch.tensor([[j for j in range(count) if j != i] for i in range(count)])
    vectors = (positions.unsqueeze(1) - positions[sender]).reshape(-1, 3)
    r = vectors.norm(dim=1)
    harmonics = CartesianHarmonics(l_edge).double()(vectors / r.unsqueeze(1))
    return Neighbourhood(
        sender=sender,
        harmonics=harmonics.reshape(count, count - 1, -1).transpose(1, 2),
        basis=radial_basis("bessel", 4, CUTOFF).double()(r, polynomial_cutoff(r, CUTOFF)),
        pairs=species_pairs(SPECIES, sender, 3),
    )


def cluster() -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return 1.3 * torch.randn(5, 3, generator=generator, dtype=torch.float64)


def interaction_with(name: str, l_feature: int = 1, seed: int = 0) -> SpectralInteraction:
    torch.manual_seed(seed)
    return SpectralInteraction(
        l_feature=l_feature,
        l_edge=2,
        channels=CHANNELS,
        num_radial=4,
        radial_hidden=(6, 6),
        average_neighbours=4.0,
        options=OPTIONS[name],
    ).double()


def apply(
    interaction: SpectralInteraction, features: torch.Tensor, around: Neighbourhood
) -> torch.Tensor:
    return interaction(features, around.harmonics, around.basis, around.sender, pairs=around.pairs)


def rotated(features: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """Turn packed features by an orthogonal 3 x 3 matrix, through their full tensors."""
    turned = []
    for l, block in enumerate(cartesian.split_degrees(features)):
        full = torch.ones(1, 1, dtype=torch.float64)
        for _ in range(l):
            full = torch.kron(full, rotation)
        packing = torch.tensor(cartesian.packing(l).copy())
        turned.append((packing.T @ full @ packing) @ block)
    return torch.cat(turned, dim=1)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("name", OPTIONS)
def test_messages_turn_with_the_structure(name: str, sign: float) -> None:
    interaction, positions = interaction_with(name), cluster()
    features = torch.randn(5, 4, CHANNELS, dtype=torch.float64)
    rotation = sign * torch.tensor(Rotation.random(rng=2).as_matrix())
    message = apply(interaction, features, neighbourhood(positions))
    turned = apply(interaction, rotated(features, rotation), neighbourhood(positions @ rotation.T))
    assert message.shape == (5, 9, interaction.up.shape[2])
    assert (turned - rotated(message, rotation)).abs().max() < 1e-10 * message.abs().max()


@pytest.mark.parametrize("name", OPTIONS)
def test_weights_vary_under_vmap_as_one_by_one(name: str) -> None:
    """A committee evaluates its members so; energies are differentiated through it."""
    members = [interaction_with(name, seed=seed) for seed in range(3)]
    state = {
        key: torch.stack([member.state_dict()[key] for member in members])
        for key in members[0].state_dict()
    }
    around = neighbourhood(cluster())
    features = torch.randn(5, 4, CHANNELS, dtype=torch.float64)

    def message(weights: dict[str, torch.Tensor]) -> torch.Tensor:
        arguments = (features, around.harmonics, around.basis, around.sender)
        return torch.func.functional_call(members[0], weights, arguments, {"pairs": around.pairs})

    stacked = torch.func.vmap(message)(state)
    one_by_one = torch.stack([apply(member, features, around) for member in members])
    assert torch.allclose(stacked, one_by_one, atol=1e-12)


@pytest.mark.parametrize("name", OPTIONS)
def test_second_derivatives_are_those_of_finite_differences(name: str) -> None:
    """Forces are first derivatives, so training on them takes second ones."""
    interaction = interaction_with(name)
    features = torch.randn(5, 4, CHANNELS, dtype=torch.float64, requires_grad=True)

    def energy(positions: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        message = apply(interaction, first, neighbourhood(positions))
        return message.square().sum()

    positions = cluster().requires_grad_()
    assert torch.autograd.gradcheck(energy, (positions, features), fast_mode=True)
    assert torch.autograd.gradgradcheck(energy, (positions, features), fast_mode=True)
    (force,) = torch.autograd.grad(energy(positions, features), positions, create_graph=True)
    force.square().sum().backward()
    used = [p for key, p in interaction.named_parameters()]
    assert all(bool(torch.isfinite(p.grad).all()) and bool(p.grad.any()) for p in used)


def test_species_dependent_weights_tell_neighbours_apart() -> None:
    around, features = neighbourhood(cluster()), torch.ones(5, 4, CHANNELS).double()
    blind, aware = interaction_with("plain"), interaction_with("species")
    other = Neighbourhood(
        sender=around.sender,
        harmonics=around.harmonics,
        basis=around.basis,
        pairs=species_pairs(SPECIES.flip(0), around.sender, 3),
    )
    assert torch.equal(apply(blind, features, around), apply(blind, features, other))
    difference = apply(aware, features, around) - apply(aware, features, other)
    assert difference.abs().max() > 1e-3


def test_the_density_divides_the_message_of_the_plain_interaction() -> None:
    """Its size is 1 without neighbours' crowding and grows with them, so messages saturate."""
    interaction, positions = interaction_with("density"), cluster()
    features = torch.randn(5, 4, CHANNELS, dtype=torch.float64)
    around = neighbourhood(positions)
    plain = interaction_with("plain")
    plain.load_state_dict(
        {key: v for key, v in interaction.state_dict().items() if not key.startswith("density")}
    )
    assert interaction.density is not None
    density = interaction.density(around.basis, None, around.sender, torch.tensor(0.25))
    expected = apply(plain, features, around) / density[:, None, None]
    assert torch.allclose(apply(interaction, features, around), expected, atol=1e-12)
    alone = interaction.density(0 * around.basis, None, around.sender, torch.tensor(0.25))
    assert torch.allclose(alone, torch.tensor(0.5).double(), atol=1e-7)
    assert (density > alone).all()


def test_the_density_is_twice_differentiable_at_the_cutoff() -> None:
    interaction = interaction_with("density")
    basis, density = radial_basis("bessel", 4, CUTOFF).double(), interaction.density
    assert density is not None

    def at(r: torch.Tensor) -> torch.Tensor:
        values = basis(r.reshape(1), polynomial_cutoff(r.reshape(1), CUTOFF))
        return density(values, None, torch.zeros(1, 1, dtype=torch.int64), torch.tensor(0.25))[0]

    second = torch.func.jacrev(torch.func.jacrev(at))
    for beyond in (1.0, 1.5):
        assert second(torch.tensor(beyond * CUTOFF).double()).item() == 0.0
    assert abs(second(torch.tensor(CUTOFF - 1e-3).double()).item()) < 1e-6


def test_rows_may_be_species_in_the_first_layer() -> None:
    """The shortcut gives the numbers of the long way, to the last bit."""
    interaction, around = interaction_with("species", l_feature=0), neighbourhood(cluster())
    embedding = torch.randn(3, 1, CHANNELS, dtype=torch.float64)
    shortcut = interaction(
        embedding, around.harmonics, around.basis, SPECIES[around.sender], pairs=around.pairs
    )
    assert torch.equal(shortcut, apply(interaction, embedding[SPECIES], around))


def test_scaled_inputs_undo_a_basis_of_another_size() -> None:
    interaction, around = interaction_with("all"), neighbourhood(cluster())
    features = torch.randn(5, 4, CHANNELS, dtype=torch.float64)
    message = apply(interaction, features, around)
    interaction.scale_radial_inputs(0.25)
    scaled = interaction(
        features, around.harmonics, 4.0 * around.basis, around.sender, pairs=around.pairs
    )
    assert torch.allclose(scaled, message, atol=1e-12)


def test_options_leave_the_weights_of_the_plain_interaction_as_they_were() -> None:
    """Old checkpoints load: no new key, no new draw before the old ones."""
    plain = interaction_with("plain")
    assert {key.split(".")[0] for key in plain.state_dict()} == {
        "inverse_neighbours",
        "radial",
        "up",
        "mix",
    }
    density = interaction_with("density").state_dict()
    assert all(torch.equal(value, density[key]) for key, value in plain.state_dict().items())


def test_layers_of_different_width_stack_with_gates_between() -> None:
    """Two layers, 3 to 5 to 2 channels: the energy is invariant and its forces are exact."""
    torch.manual_seed(0)
    first = interaction_with("channels", l_feature=0)
    second = SpectralInteraction(
        l_feature=2,
        l_edge=2,
        channels=5,
        num_radial=4,
        radial_hidden=(6,),
        average_neighbours=4.0,
        options=OPTIONS["all"],
    ).double()
    gates = [EquivariantGate(2, 5).double(), EquivariantGate(2, 2).double()]
    embedding = torch.randn(3, 1, CHANNELS, dtype=torch.float64)[SPECIES]

    def energy(positions: torch.Tensor) -> torch.Tensor:
        around = neighbourhood(positions)
        features = gates[0](apply(first, embedding, around))
        return gates[1](apply(second, features, around))[:, 0].sum()

    positions = cluster().requires_grad_()
    rotation = torch.tensor(Rotation.random(rng=9).as_matrix())
    assert abs(energy(positions) - energy(-positions @ rotation.T)) < 1e-11
    assert torch.autograd.gradcheck(energy, positions)
    assert torch.autograd.gradgradcheck(energy, positions, fast_mode=True)
