"""Embeddings of conditions: absent means exactly nothing, whatever else is in the batch."""

import math

import pytest
import torch

from tace_al.core.errors import ModelError
from tace_al.model.cartesian import packing, split_degrees
from tace_al.model.embeddings import (
    INVARIANTS,
    ElectricFieldEmbedding,
    InvariantEmbeddings,
    check_conditions,
    packed_vectors,
)
from tace_al.model.linear import SpeciesGroups
from tace_al.model.product import SpectralProduct

NAN = math.nan
CHANNELS = 4
HEADS = ("gfn2", "pbe")


def tensor(*values: float) -> torch.Tensor:
    """Return float64 numbers."""
    return torch.tensor(values, dtype=torch.float64)


def trained(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Return the module with random weights everywhere, in float64."""
    generator = torch.Generator().manual_seed(seed)
    module.double()
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return module


def four_atoms() -> dict[str, torch.Tensor]:
    """Return conditions of four atoms, each absent somewhere and all absent for the last."""
    return {
        "total_charge": tensor(-1, 0, NAN, NAN),
        "spin_multiplicity": tensor(1, NAN, 2, NAN),
        "electronic_temperature": tensor(300.0, 0.0, NAN, NAN),
        "initial_charges": tensor(NAN, 0.3, -0.7, NAN),
        "collinear_moments": tensor(2.0, NAN, -1.5, NAN),
    }


def embed(module: torch.nn.Module, conditions: dict, heads: tuple[str, ...], index: list[int]):
    """Return what is added to a node embedding of zeros."""
    scalars = torch.zeros(len(index), CHANNELS, dtype=torch.float64)
    return module(scalars, conditions, heads=heads, head_index=torch.tensor(index))


def test_a_new_embedding_changes_nothing_and_can_learn() -> None:
    module = InvariantEmbeddings(INVARIANTS, CHANNELS, HEADS).double()
    added = embed(module, four_atoms(), HEADS, [0, 1, 0, 1])
    assert torch.equal(added, torch.zeros_like(added))
    (added * torch.randn(4, CHANNELS, dtype=torch.float64)).sum().backward()
    last = [*module.tables.values(), *module.levels.values()]
    last += [network.last for network in module.networks.values()]
    assert all(bool(parameter.grad.abs().max() > 0) for parameter in last)


def test_absent_is_exactly_nothing_beside_present_ones() -> None:
    module = trained(InvariantEmbeddings(INVARIANTS, CHANNELS, HEADS))
    added = embed(module, four_atoms(), HEADS, [0, 1, -1, -1])
    assert torch.isfinite(added).all()
    assert torch.equal(added[3], torch.zeros(CHANNELS, dtype=torch.float64))
    assert (added[:3].abs().max(dim=1).values > 0.1).all()


@pytest.mark.parametrize("name", [name for name in INVARIANTS if name != "fidelity"])
def test_each_atom_is_embedded_on_its_own(name: str) -> None:
    module = trained(InvariantEmbeddings((name,), CHANNELS))
    values = four_atoms()[name]
    together = module(torch.zeros(4, CHANNELS).double(), {name: values})
    for atom in range(4):
        alone = module(torch.zeros(1, CHANNELS).double(), {name: values[atom : atom + 1]})
        assert torch.allclose(together[atom], alone[0], atol=1e-14)
    order = torch.tensor([2, 0, 3, 1])
    moved = module(torch.zeros(4, CHANNELS).double(), {name: values[order]})
    assert torch.allclose(moved, together[order], atol=1e-14)


def test_fidelities_are_told_by_name() -> None:
    module = trained(InvariantEmbeddings(("fidelity",), CHANNELS, HEADS))
    both = embed(module, {}, HEADS, [0, 1])
    turned = embed(module, {}, HEADS[::-1], [1, 0])
    assert torch.equal(both, turned)
    assert torch.equal(both[0], module.levels["gfn2"])
    alone = module(torch.zeros(3, CHANNELS).double(), {}, heads=("pbe",))
    assert torch.equal(alone, both[1].expand(3, CHANNELS))
    larger = InvariantEmbeddings(("fidelity",), CHANNELS, (*HEADS, "ccsd(t)")).double()
    missing = larger.load_state_dict(module.state_dict(), strict=False).missing_keys
    assert missing == ["levels.ccsd(t)"]
    assert torch.equal(embed(larger, {}, HEADS, [0, 1]), both)


def test_the_sign_of_a_collinear_moment_has_no_meaning_and_zero_is_smooth() -> None:
    module = trained(InvariantEmbeddings(("collinear_moments",), CHANNELS))
    scalars = torch.zeros(2, CHANNELS, dtype=torch.float64)
    up_down = module(scalars, {"collinear_moments": tensor(1.7, -1.7)})
    assert torch.equal(up_down[0], up_down[1])
    zero = tensor(0.0, NAN).requires_grad_()
    (slope,) = torch.autograd.grad(module(scalars, {"collinear_moments": zero}).sum(), zero)
    assert torch.equal(slope, tensor(0.0, 0.0))


def test_gradients_are_those_of_finite_differences_and_never_nan() -> None:
    module = trained(InvariantEmbeddings(INVARIANTS, CHANNELS, HEADS))
    conditions = four_atoms()
    scalars = torch.zeros(4, CHANNELS, dtype=torch.float64)
    index = torch.tensor([0, 1, 1, -1])

    def energy(charges: torch.Tensor) -> torch.Tensor:
        given = {**conditions, "initial_charges": charges}
        return module(scalars, given, heads=HEADS, head_index=index).square().sum()

    charges = conditions["initial_charges"].clone().requires_grad_()
    (slope,) = torch.autograd.grad(energy(charges), charges, create_graph=True)
    step = 1e-5
    for atom in (1, 2):
        shift = torch.zeros_like(charges)
        shift[atom] = step
        difference = (energy(charges + shift) - energy(charges - shift)) / (2 * step)
        assert abs((difference - slope[atom]).item()) < 1e-7
    slope.square().sum().backward()
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    assert gradients
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    assert slope[0].item() == slope[3].item() == 0.0


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("total_charge", 0.5, "not an integer from -20 to 20"),
        ("total_charge", 21.0, "not an integer"),
        ("spin_multiplicity", 0.0, "from 1 to 21"),
        ("electronic_temperature", -5.0, "negative"),
        ("initial_charges", math.inf, "infinite"),
    ],
)
def test_values_that_mean_nothing_are_refused(name: str, value: float, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        check_conditions({name: tensor(NAN, 1.0, value)})


def test_everything_else_passes_the_check() -> None:
    check_conditions({**four_atoms(), "electric_field": torch.full((2, 3), NAN)})
    check_conditions({"total_charge": tensor(-20, 20), "spin_multiplicity": tensor(1, 21)})
    check_conditions({"total_charge": tensor()})


def test_wrong_names_are_told() -> None:
    with pytest.raises(ModelError, match="total_charge"):
        InvariantEmbeddings(("total_charg",), CHANNELS)
    with pytest.raises(ModelError, match="heads"):
        InvariantEmbeddings(("fidelity",), CHANNELS)
    module = InvariantEmbeddings(("total_charge", "fidelity"), CHANNELS, HEADS).double()
    with pytest.raises(ModelError, match="total_charge"):
        module(torch.zeros(1, CHANNELS).double(), {})
    with pytest.raises(ModelError, match="gfn2, pbe"):
        module(torch.zeros(1, CHANNELS).double(), {"total_charge": tensor(0)}, heads=("scan",))


class FieldModel(torch.nn.Module):
    """Site energies of a given message in a field."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = ElectricFieldEmbedding(CHANNELS, 2)
        self.product = SpectralProduct(
            l_in=2, l_out=0, correlation=3, channels=CHANNELS, num_species=2
        )
        self.groups = SpeciesGroups(species=torch.tensor([0, 0, 1]), counts=[2, 1])

    def forward(self, message: torch.Tensor, field: torch.Tensor) -> torch.Tensor:
        """Return one energy an atom."""
        message = self.embedding(message, field, self.groups.species)
        return self.product(message, self.groups)[:, 0].sum(dim=1)


def rotated(message: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """Return packed features turned by an orthogonal matrix."""
    parts = []
    for l, part in enumerate(split_degrees(message)):
        full = torch.ones(1, 1, dtype=torch.float64)
        for _ in range(l):
            full = torch.kron(full, rotation)
        packed = torch.tensor(packing(l).copy())
        parts.append((packed.T @ full @ packed) @ part)
    return torch.cat(parts, dim=1)


def random_rotation(seed: int, determinant: int = 1) -> torch.Tensor:
    """Return an orthogonal matrix of the given determinant."""
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    return q * (determinant * torch.sign(torch.linalg.det(q)))


@pytest.mark.parametrize("determinant", [1, -1])
def test_a_field_turns_with_the_atoms(determinant: int) -> None:
    torch.manual_seed(0)
    model = FieldModel().double()
    message = torch.randn(3, 9, CHANNELS, dtype=torch.float64)
    field = torch.randn(1, 3, dtype=torch.float64).expand(3, 3)
    rotation = random_rotation(1, determinant)
    plain = model(message, field)
    turned = model(rotated(message, rotation), field @ rotation.T)
    assert torch.allclose(plain, turned, atol=1e-10)
    assert not torch.allclose(plain, model(message, field @ rotation.T), atol=1e-3)


def test_no_field_is_exactly_nothing_beside_atoms_in_one() -> None:
    torch.manual_seed(0)
    model = FieldModel().double()
    message = torch.randn(3, 9, CHANNELS, dtype=torch.float64)
    field = torch.tensor([[NAN] * 3, [0.1, 0.2, -0.3], [0.0] * 3], dtype=torch.float64)
    embedded = model.embedding(message, field, model.groups.species)
    assert torch.equal(embedded[[0, 2]], message[[0, 2]])
    assert not torch.equal(embedded[1], message[1])
    assert torch.equal(packed_vectors(field)[1], tensor(0.2, -0.3, 0.1))
    with pytest.raises(ModelError, match="degree 1"):
        model.embedding(message[:, :1], field, model.groups.species)


def test_dipole_and_polarisability_exist_at_zero_field() -> None:
    torch.manual_seed(0)
    model = FieldModel().double()
    message = torch.randn(3, 9, CHANNELS, dtype=torch.float64)

    def energy(field: torch.Tensor) -> torch.Tensor:
        return model(message, field.expand(3, 3)).sum()

    zero = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(energy(zero), zero, create_graph=True)
    step = 1e-4
    for axis in range(3):
        shift = torch.zeros(3, dtype=torch.float64)
        shift[axis] = step
        difference = (energy(shift) - energy(-shift)) / (2 * step)
        assert abs((difference - slope[axis]).item()) < 1e-5
    polarisability = torch.func.jacrev(torch.func.grad(energy))(torch.zeros(3, dtype=torch.float64))
    assert torch.allclose(polarisability, polarisability.T, atol=1e-12)
    assert polarisability.abs().max() > 1e-2
    slope.square().sum().backward()
    assert torch.isfinite(model.embedding.weight.grad).all()
