"""Moments and magnetic fields: symmetries of space, time and spin; nothing from what is absent."""

import math

import pytest
import torch
from torch import Tensor, nn

from tace_al.core.errors import ModelError
from tace_al.model.cartesian import packing, split_degrees
from tace_al.model.harmonics import CartesianHarmonics
from tace_al.model.linear import SpeciesGroups
from tace_al.model.magnetism import MagneticEmbedding
from tace_al.model.product import SpectralProduct
from tace_al.model.radial import BesselBasis, polynomial_cutoff

NUM_ATOMS = 4
CHANNELS = 3
CUTOFF = 5.0
BOTH = pytest.mark.parametrize("spin_orbit", [False, True])


class Cluster(nn.Module):
    """Site energies of a few atoms, all neighbours of one another, with a fixed message."""

    def __init__(
        self, spin_orbit: bool, *, l_message: int = 3, seed: int = 0, empty_slot: bool = True
    ) -> None:
        super().__init__()
        self.empty_slot = empty_slot
        torch.manual_seed(seed)
        self.embedding = MagneticEmbedding(
            channels=CHANNELS,
            num_species=2,
            l_message=l_message,
            num_radial=5,
            radial_hidden=(8,),
            average_neighbours=2.0,
            spin_orbit=spin_orbit,
        )
        self.product = SpectralProduct(
            l_in=l_message, l_out=0, correlation=3, channels=CHANNELS, num_species=2
        )
        self.harmonics = CartesianHarmonics(l_message)
        self.basis = BesselBasis(5, CUTOFF)
        self.message = nn.Parameter(torch.randn(NUM_ATOMS, (l_message + 1) ** 2, CHANNELS))
        self.groups = SpeciesGroups(species=torch.tensor([0, 0, 1, 1]), counts=[2, 2])
        self.double()

    def embed(self, positions: Tensor, message: Tensor, moments: Tensor, field: Tensor) -> Tensor:
        """Return the message with the magnetic terms; one slot of the last atom may be empty."""
        sender = torch.tensor([[j for j in range(NUM_ATOMS) if j != i] for i in range(NUM_ATOMS)])
        vectors = (positions.unsqueeze(1) - positions[sender]).reshape(-1, 3)
        r = vectors.norm(dim=1)
        radial = self.basis(r, polynomial_cutoff(r, CUTOFF))
        filled = torch.ones(NUM_ATOMS, NUM_ATOMS - 1, 1, dtype=torch.float64)
        filled[-1, -1] = 0.0 if self.empty_slot else 1.0
        radial = radial * filled.reshape(-1, 1)
        harmonics = self.harmonics(vectors / r.unsqueeze(1)).reshape(NUM_ATOMS, NUM_ATOMS - 1, -1)
        return self.embedding(
            message,
            moments=moments,
            magnetic_field=field,
            species=self.groups.species,
            sender=sender,
            radial_basis=radial,
            harmonics=harmonics.transpose(1, 2),
        )

    def forward(
        self, positions: Tensor, moments: Tensor, field: Tensor, turn: Tensor | None = None
    ) -> Tensor:
        """Return site energies; `turn` rotates the fixed message as neighbours' features would."""
        message = self.message if turn is None else rotated(self.message, turn)
        message = self.embed(positions, message, moments, field)
        return self.product(message, self.groups)[:, 0].sum(dim=1)


def rotated(message: Tensor, rotation: Tensor) -> Tensor:
    """Return packed features of natural parity turned by an orthogonal matrix."""
    parts = []
    for l, part in enumerate(split_degrees(message)):
        full = torch.ones(1, 1, dtype=torch.float64)
        for _ in range(l):
            full = torch.kron(full, rotation)
        packed = torch.tensor(packing(l).copy())
        parts.append((packed.T @ full @ packed) @ part)
    return torch.cat(parts, dim=1)


def random_rotation(seed: int, determinant: int = 1) -> Tensor:
    """Return an orthogonal matrix of the given determinant."""
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    return q * (determinant * torch.sign(torch.linalg.det(q)))


def state(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return positions (Angstrom), moments (Bohr magneton) and a field (tesla) at each atom."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.tensor([[0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 2]], dtype=torch.float64)
    noise = torch.randn(3, NUM_ATOMS, 3, generator=generator, dtype=torch.float64)
    field = 80.0 * noise[2, :1].expand(NUM_ATOMS, 3)
    return corners + 0.2 * noise[0], 1.5 * noise[1], field


@BOTH
@pytest.mark.parametrize("determinant", [1, -1])
def test_space_turns_polar_and_axial_vectors(spin_orbit: bool, determinant: int) -> None:
    """Axial vectors turn with det(R) R: inversion leaves moments and B as they are."""
    model = Cluster(spin_orbit)
    positions, moments, field = state()
    turn = random_rotation(3, determinant)
    axial = determinant * turn
    plain = model(positions, moments, field)
    turned = model(positions @ turn.T, moments @ axial.T, field @ axial.T, turn)
    assert torch.allclose(plain, turned, atol=1e-10)
    inverted = model(-positions, moments, field, -torch.eye(3, dtype=torch.float64))
    assert torch.allclose(plain, inverted, atol=1e-10)


@BOTH
def test_time_reversal_turns_moments_and_field_together(spin_orbit: bool) -> None:
    model = Cluster(spin_orbit)
    positions, moments, field = state()
    plain = model(positions, moments, field)
    assert torch.allclose(plain, model(positions, -moments, -field), atol=1e-12)
    assert not torch.allclose(plain, model(positions, -moments, field), atol=1e-3)  # Zeeman
    free = torch.zeros_like(field)
    assert torch.allclose(
        model(positions, moments, free), model(positions, -moments, free), atol=1e-12
    )


def test_spins_turn_freely_without_spin_orbit_coupling_only() -> None:
    positions, moments, field = state()
    turn = random_rotation(5)
    spins = moments @ turn.T, field @ turn.T
    free, bound = Cluster(False), Cluster(True)
    assert torch.allclose(free(positions, moments, field), free(positions, *spins), atol=1e-10)
    change = bound(positions, moments, field) - bound(positions, *spins)
    assert change.abs().max() > 1e-3


@BOTH
def test_order_of_moments_matters(spin_orbit: bool) -> None:
    """Ferro- and antiferromagnetic states of one structure differ, as do canted ones."""
    model = Cluster(spin_orbit)
    positions, _, field = state()
    free = torch.zeros_like(field)
    along = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64).expand(NUM_ATOMS, 3)
    flipped = along * torch.tensor([[1.0], [-1.0], [1.0], [-1.0]], dtype=torch.float64)
    energies = [model(positions, moments, free).sum() for moments in (along, flipped)]
    assert (energies[0] - energies[1]).abs() > 1e-3


def exchange_tensor(model: Cluster, positions: Tensor) -> Tensor:
    """Return d2E / dm_0 dm_1 at zero moments, (3, 3)."""

    def energy(moments: Tensor) -> Tensor:
        return model(positions, moments, torch.zeros_like(moments)).sum()

    moments = torch.zeros(NUM_ATOMS, 3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(energy(moments), moments, create_graph=True)
    rows = [torch.autograd.grad(slope[0, a], moments, retain_graph=True)[0][1] for a in range(3)]
    return torch.stack(rows)


def test_exchange_without_spin_orbit_coupling_is_heisenbergs() -> None:
    exchange = exchange_tensor(Cluster(False), state()[0])
    isotropic = exchange.trace() / 3 * torch.eye(3, dtype=torch.float64)
    assert isotropic.abs().max() > 1e-3
    assert torch.allclose(exchange, isotropic, atol=1e-12)


def test_spin_orbit_coupling_adds_anisotropic_and_antisymmetric_exchange() -> None:
    """J_01 has a symmetric traceless part (pseudo-dipolar) and D.(m_0 x m_1)."""
    exchange = exchange_tensor(Cluster(True), state()[0])
    symmetric = 0.5 * (exchange + exchange.T)
    traceless = symmetric - symmetric.trace() / 3 * torch.eye(3, dtype=torch.float64)
    assert traceless.abs().max() > 1e-4
    assert (exchange - symmetric).abs().max() > 1e-4


def test_a_centre_of_inversion_forbids_dzyaloshinskii_moriya_exchange() -> None:
    """Moriya's first rule: no D between atoms that inversion exchanges (10.1103/PhysRev.120.91)."""
    model = Cluster(True, empty_slot=False)
    positions = state()[0]
    positions[1], positions[3] = -positions[0], -positions[2]
    positions += 1.0  # the centre lies anywhere
    inversion = -torch.eye(3, dtype=torch.float64)
    for first, second in ((0, 1), (2, 3)):
        partner = rotated(model.message.data[first : first + 1], inversion)
        model.message.data[second] = partner[0]
    exchange = exchange_tensor(model, positions)
    assert (exchange - exchange.T).abs().max() < 1e-12
    off_diagonal = exchange - torch.diag(torch.diagonal(exchange))
    assert off_diagonal.abs().max() > 1e-4


@BOTH
def test_absent_is_exactly_nothing(spin_orbit: bool) -> None:
    model = Cluster(spin_orbit)
    positions, moments, field = state()
    absent = torch.full_like(moments, math.nan)
    plain = model.embed(positions, model.message, absent, absent)
    assert torch.equal(plain, model.message)
    zeros = torch.zeros_like(moments)
    assert torch.equal(model.embed(positions, model.message, zeros, zeros), model.message)
    partial = moments.clone()
    partial[1] = math.nan
    partial[2, 0] = math.nan
    reference = moments.clone()
    reference[1:3] = 0.0
    assert torch.equal(model(positions, partial, field), model(positions, reference, field))
    assert torch.equal(model(positions, moments, absent), model(positions, moments, zeros))


@BOTH
def test_a_batch_may_hold_structures_with_and_without_moments(spin_orbit: bool) -> None:
    """Neighbours lie within a structure, so what one lacks the others do not feel."""
    model = Cluster(spin_orbit)
    positions, moments, field = state()
    far = positions.clone()
    far[2:] += 100.0  # two structures of two atoms
    mixed = moments.clone()
    mixed[2:] = math.nan
    fields = field.clone()
    fields[2:] = math.nan
    embedded = model.embed(far, model.message, mixed, fields)
    everywhere = model.embed(far, model.message, moments, field)
    assert torch.equal(embedded[2:], model.message[2:])
    assert torch.allclose(embedded[:2], everywhere[:2], atol=1e-14)


@BOTH
def test_like_atoms_may_be_exchanged(spin_orbit: bool) -> None:
    """Exchanging atoms of one species, message and all, exchanges their energies."""
    model = Cluster(spin_orbit)
    positions, moments, field = state()
    order = torch.tensor([1, 0, 2, 3])
    plain = model(positions, moments, field)
    model.message.data = model.message.data[order]
    moved = model(positions[order], moments[order], field)
    assert torch.allclose(plain[order], moved, atol=1e-12)


@BOTH
def test_magnetic_forces_are_those_of_finite_differences(spin_orbit: bool) -> None:
    model = Cluster(spin_orbit)
    positions, moments, field = (tensor.clone().requires_grad_() for tensor in state())
    leaves = (positions, moments, field)
    slopes = torch.autograd.grad(model(*leaves).sum(), leaves)
    generator = torch.Generator().manual_seed(1)
    for number, (slope, step) in enumerate(zip(slopes, (1e-5, 1e-5, 1e-3), strict=True)):
        direction = torch.randn(NUM_ATOMS, 3, generator=generator, dtype=torch.float64)
        shifted = [list(leaves), list(leaves)]
        shifted[0][number] = leaves[number] + step * direction
        shifted[1][number] = leaves[number] - step * direction
        with torch.no_grad():
            difference = (model(*shifted[0]).sum() - model(*shifted[1]).sum()) / (2 * step)
        expected = (slope * direction).sum().item()
        assert difference.item() == pytest.approx(expected, rel=1e-6, abs=1e-7)


@BOTH
def test_losses_on_magnetic_forces_can_be_differentiated(spin_orbit: bool) -> None:
    """Also at zero moments and beside absent ones, where a |m| would give NaN."""
    model = Cluster(spin_orbit)
    positions, moments, field = state()
    moments[0] = 0.0
    moments[1] = math.nan
    moments.requires_grad_()
    (slope,) = torch.autograd.grad(
        model(positions, moments, field).sum(), moments, create_graph=True
    )
    assert torch.equal(slope[1], torch.zeros(3, dtype=torch.float64))
    assert slope[0].abs().max() > 0  # the field and the other moments pull on it
    slope.square().sum().backward()
    for name, parameter in model.embedding.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all()
        assert parameter.grad.abs().max() > 0, name


@BOTH
def test_a_moment_is_free_of_torque_and_kink_at_zero(spin_orbit: bool) -> None:
    """Without a field the energy is even in the moments: its slope at m = 0 vanishes."""
    model = Cluster(spin_orbit)
    positions, moments, field = state()
    free = torch.zeros_like(field)
    zero = torch.zeros_like(moments).requires_grad_()
    (slope,) = torch.autograd.grad(model(positions, zero, free).sum(), zero)
    assert torch.equal(slope, torch.zeros_like(slope))
    direction = moments.detach()
    energies = [model(positions, s * direction, free).sum().item() for s in (0.0, 1e-3, 2e-3, 4e-3)]
    first, second = (energies[k] - energies[0] for k in (1, 2))
    assert second / first == pytest.approx(4.0, rel=1e-3)  # quadratic, not |m|


@BOTH
def test_members_of_a_committee_run_in_one_call(spin_orbit: bool) -> None:
    members = [Cluster(spin_orbit, seed=seed) for seed in (0, 1)]
    parameters, buffers = torch.func.stack_module_state(members)
    positions, moments, field = state()
    moments[0] = math.nan
    stacked = torch.vmap(
        lambda p, b: torch.func.functional_call(members[0], (p, b), (positions, moments, field))
    )(parameters, buffers)
    for member, together in zip(members, stacked, strict=True):
        assert torch.allclose(member(positions, moments, field), together, atol=1e-12)


@pytest.mark.parametrize("l_message", [0, 1, 2])
def test_low_degrees_leave_terms_out(l_message: int) -> None:
    model = Cluster(False, l_message=l_message)
    positions, moments, field = state()
    assert torch.isfinite(model(positions, moments, field)).all()
    if l_message < 2:
        with pytest.raises(ModelError, match="l_edge >= 2"):
            Cluster(True, l_message=l_message)
