"""The message against a direct sum over neighbours, paths and components."""

import math

import pytest
import torch

from tace_al.model import cartesian
from tace_al.model.interaction import SpectralInteraction, message_paths

CHANNELS = 3


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
