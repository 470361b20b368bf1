"""Equivariant maps: components of a tensor never mix, species keep their own matrices."""

import torch

from tace_al.model.cartesian import degree_slice
from tace_al.model.linear import DegreeLinear, SpeciesGroups, SpeciesLinear


def features(num_atoms: int, l_max: int, channels: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(num_atoms, (l_max + 1) ** 2, channels, generator=generator)


def test_one_matrix_serves_all_components_of_a_degree() -> None:
    torch.manual_seed(0)
    linear, inputs = DegreeLinear(2, 6, 4), features(3, 2, 6)
    outputs = linear(inputs)
    assert outputs.shape == (3, 9, 4)
    for l in range(3):
        expected = inputs[:, degree_slice(l)] @ linear.weight[l] / 6**0.5
        assert torch.allclose(outputs[:, degree_slice(l)], expected, atol=1e-6)


def test_each_species_has_its_own_matrix_and_absent_ones_are_skipped() -> None:
    torch.manual_seed(0)
    linear, inputs = SpeciesLinear(1, 5, 3), features(4, 2, 5)
    groups = SpeciesGroups(species=torch.tensor([0, 0, 2, 2]), counts=[2, 0, 2])
    outputs = linear(inputs, groups)
    assert outputs.shape == (4, 4, 5)  # degrees above l_max are left out
    for atom, species in enumerate([0, 0, 2, 2]):
        for l in range(2):
            expected = inputs[atom, degree_slice(l)] @ linear.weight[species, l] / 5**0.5
            assert torch.allclose(outputs[atom, degree_slice(l)], expected, atol=1e-6)


def test_a_species_map_may_change_the_number_of_channels() -> None:
    torch.manual_seed(0)
    linear, inputs = SpeciesLinear(1, 5, 2, channels_out=3), features(2, 1, 5)
    groups = SpeciesGroups(species=torch.tensor([0, 1]), counts=[1, 1])
    outputs = linear(inputs, groups)
    assert outputs.shape == (2, 4, 3)
    expected = inputs[1, 1:4] @ linear.weight[1, 1] / 5**0.5
    assert torch.allclose(outputs[1, 1:4], expected, atol=1e-6)


def test_wider_or_narrower_maps_keep_unit_variance() -> None:
    torch.manual_seed(0)
    inputs = features(400, 1, 48)
    groups = SpeciesGroups(species=torch.zeros(400, dtype=torch.int64), counts=[400])
    for width in (12, 96):
        for outputs in (
            SpeciesLinear(1, 48, 1, channels_out=width)(inputs, groups),
            DegreeLinear(1, 48, width)(inputs),
        ):
            assert abs(outputs.std().item() - 1.0) < 0.15
