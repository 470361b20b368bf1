"""Charges sum exactly; Born charges and dipoles follow from them."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tace_al.model.charges import (
    ChargeReadout,
    born_charges,
    dipole_moments,
    equilibrated_charges,
    pull_back_to_positions,
    uniformly_corrected_charges,
)

SYSTEM_INDEX = torch.tensor([2, 0, 0, 2, 1, 2, 0, 2])
TOTAL = torch.tensor([0.0, -1.0, 3.0], dtype=torch.float64)


def sums(charges: Tensor) -> Tensor:
    return torch.zeros(3, dtype=charges.dtype).index_add(0, SYSTEM_INDEX, charges)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.floats(0.1, 1e3), st.floats(1e-3, 1.0))
def test_charges_sum_exactly(seed: int, spread: float, softest: float) -> None:
    chi = spread * torch.randn(8, generator=generator(seed), dtype=torch.float64)
    eta = softest + torch.rand(8, generator=generator(seed + 1), dtype=torch.float64)
    options = {"total_charge": TOTAL, "system_index": SYSTEM_INDEX}
    for charges in (
        equilibrated_charges(chi, eta, **options),
        uniformly_corrected_charges(chi, **options),
    ):
        size = max(1.0, charges.abs().max().item())
        assert (sums(charges) - TOTAL).abs().max().item() < 1e-12 * size


def test_equilibrated_charges_minimise_the_energy() -> None:
    """At the minimum under fixed charge the chemical potential chi + eta q is one number."""
    chi = torch.randn(8, generator=generator(0), dtype=torch.float64)
    eta = 0.5 + torch.rand(8, generator=generator(1), dtype=torch.float64)
    q = equilibrated_charges(chi, eta, total_charge=TOTAL, system_index=SYSTEM_INDEX)
    potential = chi + eta * q
    for system in range(3):
        of_system = potential[system == SYSTEM_INDEX]
        torch.testing.assert_close(of_system, of_system[:1].expand_as(of_system))
    # two atoms by hand: q_1 = (chi_2 - chi_1) / (eta_1 + eta_2)
    two = equilibrated_charges(
        torch.tensor([2.0, 5.0]).double(),
        torch.tensor([4.0, 8.0]).double(),
        total_charge=torch.zeros(1).double(),
        system_index=torch.zeros(2, dtype=torch.int64),
    )
    torch.testing.assert_close(two, torch.tensor([0.25, -0.25]).double())


def test_uniform_correction_moves_every_atom_alike() -> None:
    latent = torch.randn(8, generator=generator(2), dtype=torch.float64)
    charges = uniformly_corrected_charges(latent, total_charge=TOTAL, system_index=SYSTEM_INDEX)
    shift = charges - latent
    counts = torch.bincount(SYSTEM_INDEX)
    expected = ((TOTAL - sums(latent)) / counts)[SYSTEM_INDEX]
    torch.testing.assert_close(shift, expected, rtol=0.0, atol=1e-14)


def test_charge_derivatives() -> None:
    chi = torch.randn(8, generator=generator(3), dtype=torch.float64, requires_grad=True)
    eta = (1.0 + torch.rand(8, generator=generator(4), dtype=torch.float64)).requires_grad_()

    def charges(chi: Tensor, eta: Tensor) -> Tensor:
        return equilibrated_charges(chi, eta, total_charge=TOTAL, system_index=SYSTEM_INDEX)

    assert torch.autograd.gradcheck(charges, (chi, eta))
    assert torch.autograd.gradgradcheck(charges, (chi, eta))


def readout_charges(constraint: str, coordination: Tensor, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    readout = ChargeReadout(channels=(8, 16), num_species=3, constraint=constraint)
    with torch.no_grad():
        readout.species_value.normal_()
    features = [torch.randn(8, 8), torch.randn(8, 16)]
    return readout(
        features,
        torch.tensor([0, 0, 0, 1, 1, 2, 2, 2]),
        coordination=coordination,
        total_charge=TOTAL,
        system_index=SYSTEM_INDEX,
    )


@pytest.mark.parametrize("constraint", ["equilibrated", "uniform"])
def test_readout_keeps_the_total_charge(constraint: str) -> None:
    charges = readout_charges(constraint, torch.rand(8))
    assert charges.dtype == torch.float64
    assert (sums(charges) - TOTAL).abs().max().item() < 1e-12
    assert charges[4].item() == -1.0  # the only atom of its structure
    assert charges.std().item() > 0.01


def test_isolated_atoms_have_no_latent_charge() -> None:
    coordination = torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    charges = readout_charges("free", coordination)
    assert (charges[coordination == 0.0] == 0.0).all()
    assert (charges[coordination > 0.0] != 0.0).all()
    # three atoms far apart in a neutral structure stay neutral under either constraint
    for constraint in ("equilibrated", "uniform"):
        apart = readout_charges(constraint, coordination)[SYSTEM_INDEX == 0]
        assert apart.abs().max().item() == 0.0


def test_unknown_total_charge_is_zero() -> None:
    torch.manual_seed(1)
    readout = ChargeReadout(channels=(4,), num_species=1, constraint="uniform")
    charges = readout(
        [torch.randn(5, 4)],
        torch.zeros(5, dtype=torch.int64),
        coordination=torch.ones(5),
        total_charge=torch.tensor([math.nan]),
        system_index=torch.zeros(5, dtype=torch.int64),
    )
    assert abs(charges.sum().item()) < 1e-14
    assert charges.abs().max().item() > 0.0


def switched(r: Tensor, reach: float) -> Tensor:
    return torch.where(r < reach, (1.0 - (r / reach) ** 2).clamp(min=0.0) ** 3, 0.0)


class PairTransfer:
    """Charges handed over between neighbours, whose exact polarisation is known.

    q_i = Q/N + sum_j t(r_ij) (a_i - a_j) over images within reach; a transferred charge makes the
    dipole t (a_i - a_j) r_ij, so that dP = sum_i q_i dr_i + the change of these dipoles' charges.
    """

    def __init__(self, pbc: tuple[bool, bool, bool], *, size: float = 7.0, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.pbc = torch.tensor([pbc])
        self.cells = torch.tensor(size * np.eye(3) + rng.normal(scale=0.4, size=(3, 3)))[None]
        sites = np.array(list(product(range(2), repeat=3))) / 2.0
        positions = sites @ self.cells[0].numpy() + rng.uniform(-0.3, 0.3, size=(8, 3))
        self.positions = torch.tensor(positions)
        self.hunger = torch.tensor(rng.normal(size=8))
        self.total = 1.0
        self.reach = 0.55 * size
        images = product(*(range(-1, 2) if periodic else (0,) for periodic in pbc))
        self.images = torch.tensor(list(images), dtype=torch.float64)

    def vectors(self, positions: Tensor, cells: Tensor) -> Tensor:
        between = positions[:, None] - positions[None]
        return between[:, :, None] + self.images @ cells[0]  # (i, j, images, 3): r_i - r_j

    def transfer(self, vectors: Tensor) -> Tensor:
        self_image = vectors.detach().norm(dim=3) < 1e-9
        r = torch.where(self_image[..., None], 1.0, vectors).norm(dim=3)
        wanted = self.hunger[:, None] - self.hunger[None]
        return torch.where(self_image, 0.0, switched(r, self.reach)) * wanted[:, :, None]

    def charges(self, positions: Tensor) -> Tensor:
        moved = self.transfer(self.vectors(positions, self.cells)).sum(dim=(1, 2))
        return self.total / len(positions) + moved

    def exact_born(self) -> Tensor:
        """Return q_i 1 + sum_pairs dt/dr_i (r_a - r_b)/2, the dipoles' lengths held fixed."""
        positions = self.positions.clone().requires_grad_()
        vectors = self.vectors(positions, self.cells)
        dipole = 0.5 * (self.transfer(vectors)[..., None] * vectors.detach()).sum(dim=(0, 1, 2))
        change = [torch.autograd.grad(dipole[a], positions, retain_graph=True)[0] for a in range(3)]
        eye = torch.eye(3, dtype=torch.float64)
        charges = self.charges(self.positions)
        return charges[:, None, None] * eye + torch.stack(change, dim=1)

    def born(self, positions: Tensor, **options: int) -> Tensor:
        positions = positions.clone().requires_grad_()
        charges = self.charges(positions)
        return born_charges(
            charges.detach(),
            pull_back_to_positions(charges, positions),
            positions=positions.detach(),
            cells=self.cells,
            pbc=self.pbc,
            system_index=torch.zeros(8, dtype=torch.int64),
            **options,
        )


def test_born_charges_of_a_molecule_are_the_derivative_of_its_dipole() -> None:
    model = PairTransfer((False, False, False))
    born = model.born(model.positions)

    def dipole(positions: Tensor) -> Tensor:
        return (model.charges(positions)[:, None] * positions).sum(dim=0)

    derivative = torch.autograd.functional.jacobian(dipole, model.positions)  # (3, atoms, 3)
    torch.testing.assert_close(born, derivative.transpose(0, 1), rtol=0.0, atol=1e-12)
    torch.testing.assert_close(born, model.exact_born(), rtol=0.0, atol=1e-12)


PERIODICITIES = [(True, True, True), (True, True, False), (True, False, True), (False, True, False)]


@pytest.mark.parametrize("pbc", PERIODICITIES)
def test_born_charges_sum_to_the_total_charge(pbc: tuple[bool, bool, bool]) -> None:
    model = PairTransfer(pbc, seed=1)
    total = model.born(model.positions).sum(dim=0)
    torch.testing.assert_close(total, torch.eye(3).double() * model.total, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("pbc", PERIODICITIES)
def test_born_charges_approach_those_of_the_infinite_crystal(pbc: tuple[bool, ...]) -> None:
    """Charges move over at most half the cell here; each harmonic brings the sum closer."""
    model = PairTransfer(pbc, seed=2)
    model.reach = 0.35 * 7.0
    model.positions = model.positions * torch.tensor([0.6, 0.6, 0.6])
    exact = model.exact_born()
    errors = [
        (model.born(model.positions, harmonics=n) - exact).square().mean().sqrt().item()
        for n in (1, 3, 8)
    ]
    charges = model.charges(model.positions)
    induced = (exact - charges[:, None, None] * torch.eye(3)).square().mean().sqrt().item()
    assert induced > 0.1
    assert errors[0] < 0.5 * induced
    assert errors[1] < 0.3 * errors[0]
    assert errors[2] < 0.1 * errors[1]


@pytest.mark.parametrize("pbc", PERIODICITIES)
def test_born_charges_do_not_see_wrapping_and_turn_with_the_structure(
    pbc: tuple[bool, bool, bool],
) -> None:
    model = PairTransfer(pbc, seed=3)
    expected = model.born(model.positions)
    moved = model.positions + torch.tensor([11.0, -3.0, 5.0])
    shift = torch.tensor([[2.0, -1.0, 1.0]]) * model.pbc
    # the images within reach are found from unwrapped positions, hence wrap the answer's only
    leaf = moved.clone().requires_grad_()
    charges = model.charges(leaf)
    wrapped = moved.clone()
    wrapped[3:5] += shift.double() @ model.cells[0]
    born = born_charges(
        charges.detach(),
        pull_back_to_positions(charges, leaf),
        positions=wrapped,
        cells=model.cells,
        pbc=model.pbc,
        system_index=torch.zeros(8, dtype=torch.int64),
    )
    torch.testing.assert_close(born, expected, rtol=0.0, atol=1e-10)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator(4), dtype=torch.float64))
    turned = PairTransfer(pbc, seed=3)
    turned.cells = model.cells @ turn.T
    rotated = turned.born(model.positions @ turn.T)
    torch.testing.assert_close(rotated, turn @ expected @ turn.T, rtol=0.0, atol=1e-10)


def test_born_charges_can_be_trained_on_and_batched() -> None:
    molecule, crystal = PairTransfer((False,) * 3, seed=5), PairTransfer((True,) * 3, seed=6)
    positions = torch.cat([molecule.positions, crystal.positions]).requires_grad_()
    charges = torch.cat([molecule.charges(positions[:8]), crystal.charges(positions[8:])])
    born = born_charges(
        charges,
        pull_back_to_positions(charges, positions, create_graph=True),
        positions=positions,
        cells=torch.cat([molecule.cells, crystal.cells]),
        pbc=torch.cat([molecule.pbc, crystal.pbc]),
        system_index=torch.arange(16) // 8,
    )
    for model, part in ((molecule, born[:8]), (crystal, born[8:])):
        torch.testing.assert_close(part, model.born(model.positions), rtol=0.0, atol=1e-11)
    (gradient,) = torch.autograd.grad(born.square().sum(), positions)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max().item() > 0.0


def dipole_of(
    positions: Tensor, charges: Tensor, pbc: tuple[bool, ...], **options: Tensor
) -> Tensor:
    return dipole_moments(
        charges,
        positions,
        cells=3.0 * torch.eye(3, dtype=torch.float64)[None],
        pbc=torch.tensor([pbc]),
        system_index=torch.zeros(len(charges), dtype=torch.int64),
        **options,
    )[0]


def test_dipoles_and_their_origin() -> None:
    positions = torch.tensor([[0.0, 0, 0], [0, 0, 1.2], [0.5, 0, 0.3]]).double()
    neutral = torch.tensor([0.3, -0.2, -0.1]).double()
    charged = torch.tensor([0.3, -0.2, 0.9]).double()
    masses = torch.tensor([1.0, 16.0, 3.0]).double()
    molecule = (False, False, False)
    expected = (neutral[:, None] * positions).sum(dim=0)
    torch.testing.assert_close(dipole_of(positions, neutral, molecule), expected)
    torch.testing.assert_close(dipole_of(positions + 5.0, neutral, molecule), expected)
    about_mass = dipole_of(positions + 5.0, charged, molecule, weights=masses)
    centre = (masses[:, None] * positions).sum(dim=0) / masses.sum()
    torch.testing.assert_close(about_mass, (charged[:, None] * (positions - centre)).sum(dim=0))
    assert not torch.allclose(about_mass, dipole_of(positions, charged, molecule))


@pytest.mark.parametrize("normal", [0, 1, 2])
def test_slabs_have_a_dipole_along_their_normal_only(normal: int) -> None:
    positions = torch.randn(4, 3, generator=generator(7), dtype=torch.float64)
    charges = torch.tensor([0.5, -0.2, -0.1, -0.2]).double()
    expected = (charges[:, None] * positions).sum(dim=0)
    expected[torch.arange(3) != normal] = 0.0
    pbc = tuple(axis != normal for axis in range(3))
    torch.testing.assert_close(dipole_of(positions, charges, pbc), expected)
    assert torch.isnan(dipole_of(positions, charges, (True, True, True))).all()
