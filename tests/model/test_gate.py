"""The gate commutes with rotations and inversion, keeps variance, and leaves scalars to SiLU."""

import pytest
import torch
from scipy.spatial.transform import Rotation

from tace_al.model import cartesian
from tace_al.model.gate import SIGMOID_GAIN, EquivariantGate
from tace_al.model.radial import SILU_GAIN


def rotated(features: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """Turn packed features, (..., components, channels), by an orthogonal 3 x 3 matrix."""
    turned = []
    for l, block in enumerate(cartesian.split_degrees(features)):
        full = torch.ones(1, 1, dtype=torch.float64)
        for _ in range(l):
            full = torch.kron(full, rotation)
        packing = torch.tensor(cartesian.packing(l).copy())
        turned.append((packing.T @ full @ packing) @ block)
    return torch.cat(turned, dim=1)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("l_max", [0, 1, 3])
def test_it_commutes_with_rotation_and_inversion(l_max: int, sign: float) -> None:
    torch.manual_seed(0)
    gate = EquivariantGate(l_max, 5).double()
    features = torch.randn(4, (l_max + 1) ** 2, 5, dtype=torch.float64)
    rotation = sign * torch.tensor(Rotation.random(rng=3).as_matrix())
    error = gate(rotated(features, rotation)) - rotated(gate(features), rotation)
    assert error.abs().max() < 1e-12


def test_without_tensors_it_is_silu_and_has_no_weights() -> None:
    gate, scalars = EquivariantGate(0, 6), torch.linspace(-3, 3, 12).reshape(2, 1, 6)
    assert sum(parameter.numel() for parameter in gate.parameters()) == 0
    assert torch.allclose(gate(scalars), SILU_GAIN * scalars * torch.sigmoid(scalars))


def test_a_tensor_passes_as_far_as_the_scalars_let_it() -> None:
    torch.manual_seed(0)
    gate = EquivariantGate(1, 1)
    gate.weight.data.fill_(1.0)
    features = torch.tensor([[30.0, 1.0, 2.0, 3.0], [-30.0, 1.0, 2.0, 3.0]]).unsqueeze(2)
    opened, shut = gate(features)[:, 1:, 0]
    assert torch.allclose(opened, SIGMOID_GAIN * torch.tensor([1.0, 2.0, 3.0]))
    assert shut.abs().max() < 1e-10


def test_unit_variance_is_kept() -> None:
    torch.manual_seed(0)
    outputs = EquivariantGate(2, 64)(torch.randn(1000, 9, 64))
    for degree in cartesian.split_degrees(outputs):
        assert degree.square().mean().sqrt().item() == pytest.approx(1.0, abs=0.05)


def test_it_works_under_vmap_and_has_second_derivatives() -> None:
    torch.manual_seed(0)
    gates = [EquivariantGate(1, 2).double() for _ in range(3)]
    features = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    state, _ = torch.func.stack_module_state(gates)

    def apply(weights: dict) -> torch.Tensor:
        return torch.func.functional_call(gates[0], weights, (features,))

    stacked = torch.func.vmap(apply)(state)
    assert torch.allclose(stacked, torch.stack([gate(features) for gate in gates]), atol=1e-14)
    assert torch.autograd.gradgradcheck(gates[0], (features,))
