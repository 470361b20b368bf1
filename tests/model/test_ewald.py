"""Lattice sums against crystallography, Parry's formula, limits and finite differences."""

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.spacegroup import crystal
from torch import Tensor

from tace_al.core.errors import ModelError
from tace_al.core.units import COULOMB_CONSTANT
from tace_al.model.ewald import ewald_energy

Batch = tuple[Tensor, Tensor, dict[str, Tensor]]


def tensors(structures: Sequence[Atoms]) -> Batch:
    """Return positions, charges and the rest of a batch; charges are read from the structures."""
    positions = torch.tensor(np.concatenate([atoms.positions for atoms in structures]))
    charges = np.concatenate([atoms.get_initial_charges() for atoms in structures])
    rest = {
        "cells": torch.tensor(np.stack([atoms.cell.array for atoms in structures])),
        "pbc": torch.tensor(np.stack([atoms.pbc for atoms in structures])),
        "system_index": torch.tensor(
            np.repeat(np.arange(len(structures)), [len(atoms) for atoms in structures])
        ),
    }
    return positions, torch.tensor(charges), rest


def energy(atoms: Atoms, **options: float) -> float:
    positions, charges, rest = tensors([atoms])
    return ewald_energy(positions, charges, **rest, **options).sum().item()


def charged(atoms: Atoms, charge_of: dict[str, float]) -> Atoms:
    atoms.set_initial_charges([charge_of[symbol] for symbol in atoms.symbols])
    return atoms


def random_crystal(num_atoms: int, seed: int, *, neutral: bool = True) -> Atoms:
    """Return atoms in a skewed cell of 6 A, no two of them close."""
    rng = np.random.default_rng(seed)
    cell = 6.0 * np.eye(3) + rng.normal(scale=0.8, size=(3, 3))
    sites = np.array(list(product(range(2), repeat=3)))[:num_atoms] / 2.0
    atoms = Atoms(f"H{num_atoms}", scaled_positions=sites, cell=cell, pbc=True)
    atoms.positions += rng.uniform(-0.4, 0.4, size=(num_atoms, 3))
    charges = rng.normal(size=num_atoms)
    atoms.set_initial_charges(charges - charges.mean() * neutral)
    return atoms


def random_slab(num_atoms: int, seed: int, *, neutral: bool = True) -> Atoms:
    atoms = random_crystal(num_atoms, seed, neutral=neutral)
    cell = atoms.cell.array
    cell[:2, 2] = 0.0  # in the xy plane, so that a vacuum is easily added
    cell[2] = [0.0, 0.0, 6.0]
    atoms.set_cell(cell)
    atoms.pbc = (True, True, False)
    return atoms


def rotation(seed: int) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


# Madelung constants referred to the nearest-neighbour distance: OEIS A085469, A181152, A182566 and
# Johnson and Templeton 1961 (10.1063/1.1731658) for fluorite.
CUBIC = [
    ("rocksalt", 1.7475645946331822, 0.5),
    ("cesiumchloride", 1.7626747730709884, math.sqrt(3.0) / 2.0),
    ("zincblende", 1.6380550533887894, math.sqrt(3.0) / 4.0),
]


@pytest.mark.parametrize("cubic", [False, True])
@pytest.mark.parametrize("repeat", [(1, 1, 1), (2, 1, 3)])
@pytest.mark.parametrize(("structure", "madelung", "ratio"), CUBIC)
def test_madelung_constants_of_cubic_crystals(
    structure: str, madelung: float, ratio: float, repeat: tuple[int, int, int], cubic: bool
) -> None:
    atoms = bulk("NaCl", structure, a=5.3, cubic=cubic).repeat(repeat)
    atoms = charged(atoms, {"Na": 1.0, "Cl": -1.0})
    per_pair = energy(atoms, sigma=0.0) / (len(atoms) / 2)
    assert -per_pair * 5.3 * ratio / COULOMB_CONSTANT == pytest.approx(madelung, abs=1e-8)


def test_madelung_constant_of_fluorite() -> None:
    atoms = crystal(
        ["Ca", "F"], [(0, 0, 0), (0.25, 0.25, 0.25)], spacegroup=225, cellpar=[5.46] * 3 + [90] * 3
    )
    atoms = charged(atoms, {"Ca": 2.0, "F": -1.0})
    per_formula = energy(atoms, sigma=0.0) / 4
    distance = 5.46 * math.sqrt(3.0) / 4.0
    assert -per_formula * distance / COULOMB_CONSTANT == pytest.approx(5.0387848, abs=1e-6)


def test_madelung_constant_of_ideal_wurtzite() -> None:
    a = 3.2
    atoms = bulk("ZnS", "wurtzite", a=a, c=a * math.sqrt(8.0 / 3.0), u=3.0 / 8.0)
    atoms = charged(atoms, {"Zn": 2.0, "S": -2.0})
    distance = a * math.sqrt(3.0 / 8.0)
    per_formula = energy(atoms, sigma=0.0) / 2 / 4
    assert -per_formula * distance / COULOMB_CONSTANT == pytest.approx(1.6413216, abs=1e-6)


def test_wigner_crystal_in_its_background() -> None:
    atoms = Atoms("H", cell=4.0 * np.eye(3), pbc=True, charges=[1.0])
    # -2.837297 / 2L: a point charge in a cubic box with a uniform background
    assert energy(atoms, sigma=0.0) == pytest.approx(
        -2.837297479 / 8.0 * COULOMB_CONSTANT, rel=1e-8
    )


def test_smearing_of_distant_charges_is_not_felt() -> None:
    atoms = charged(bulk("NaCl", "rocksalt", a=12.0), {"Na": 1.0, "Cl": -1.0})
    assert energy(atoms, sigma=0.8) == pytest.approx(energy(atoms, sigma=0.0), rel=1e-8)


@pytest.mark.parametrize("neutral", [True, False])
@pytest.mark.parametrize("make", [random_crystal, random_slab])
def test_sum_over_neighbours_and_over_k_agree(make, neutral: bool) -> None:
    """Smearings around the change of method: one split of the sum must follow on the other."""
    atoms = make(6, 3, neutral=neutral)
    left, pure = (energy(atoms, sigma=sigma, accuracy=1e-11) for sigma in (0.5 - 1e-9, 0.5))
    assert left == pytest.approx(pure, rel=1e-7)


def test_smeared_sum_written_out() -> None:
    """The latent Ewald sum term by term, E = 1/(2 eps0 V) sum_k e^{-s^2 k^2/2}/k^2 |S|^2 - self."""
    atoms, sigma = random_crystal(5, 4, neutral=False), 1.1
    q = atoms.get_initial_charges()
    n = np.array(list(product(range(-12, 13), repeat=3)))
    n = n[np.any(n != 0, axis=1)]
    k = 2 * np.pi * n @ np.linalg.inv(atoms.cell.array).T
    k2 = (k * k).sum(axis=1)
    factor = np.abs(np.exp(1j * k @ atoms.positions.T) @ q) ** 2
    total = 2 * np.pi / atoms.get_volume() * (np.exp(-(sigma**2) * k2 / 2) / k2 * factor).sum()
    total -= (q @ q) / (math.sqrt(2 * math.pi) * sigma)
    assert energy(atoms, sigma=sigma) == pytest.approx(COULOMB_CONSTANT * total, abs=1e-7)


def parry_energy(atoms: Atoms, alpha: float) -> float:
    """Return the energy of point charges periodic in x and y (Parry 1975), summed in numpy."""
    erf = np.vectorize(math.erf)
    erfc = np.vectorize(math.erfc)
    q = atoms.get_initial_charges()
    cell, area = atoms.cell.array[:2, :2], abs(np.linalg.det(atoms.cell.array[:2, :2]))
    charge_product = np.outer(q, q)
    separation = atoms.positions[:, None] - atoms.positions[None]
    total = -alpha / math.sqrt(math.pi) * (q @ q)
    for n in product(range(-4, 5), repeat=2):
        r = np.linalg.norm(separation + np.append(n @ cell, 0.0), axis=2)
        inside = r > 1e-9
        total += 0.5 * (charge_product[inside] * erfc(alpha * r[inside]) / r[inside]).sum()
    z = separation[:, :, 2]
    flat = np.exp(-((alpha * z) ** 2)) / alpha + math.sqrt(math.pi) * z * erf(alpha * z)
    total -= math.sqrt(math.pi) / area * (charge_product * flat).sum()
    for n in product(range(-8, 9), repeat=2):
        if n != (0, 0):
            vector = 2 * np.pi * np.linalg.inv(cell) @ n
            k = float(np.linalg.norm(vector))
            phase = np.cos(separation[:, :, :2] @ vector)
            both = np.exp(k * z) * erfc(k / (2 * alpha) + alpha * z)
            both = both + np.exp(-k * z) * erfc(k / (2 * alpha) - alpha * z)
            total += math.pi / (2 * area * k) * (charge_product * phase * both).sum()
    return COULOMB_CONSTANT * total


@pytest.mark.parametrize("neutral", [True, False])
def test_slab_of_point_charges_is_parrys_sum(neutral: bool) -> None:
    atoms = random_slab(6, 5, neutral=neutral)
    assert energy(atoms, sigma=0.0) == pytest.approx(parry_energy(atoms, 0.5), abs=1e-6)


@pytest.mark.parametrize("sigma", [0.0, 1.0])
def test_slab_is_the_limit_of_thick_vacuum(sigma: float) -> None:
    """A crystal's sum plus the dipole correction of Yeh and Berkowitz, 10.1063/1.479595."""
    atoms = random_slab(6, 6)
    boxed = atoms.copy()
    cell = atoms.cell.array
    cell[2, 2] = 60.0
    boxed.set_cell(cell)
    boxed.pbc = True
    dipole = (atoms.get_initial_charges() * atoms.positions[:, 2]).sum()
    correction = 2 * math.pi * COULOMB_CONSTANT * dipole**2 / boxed.get_volume()
    assert abs(correction) > 1e-3
    expected = energy(boxed, sigma=sigma) + correction
    assert energy(atoms, sigma=sigma) == pytest.approx(expected, abs=1e-7)


def test_slab_may_lie_along_any_axes_and_be_turned() -> None:
    atoms = random_slab(6, 7, neutral=False)
    expected = energy(atoms)
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ rotation(1).T)
    turned.positions = atoms.positions @ rotation(1).T
    assert energy(turned) == pytest.approx(expected, abs=1e-9)
    relabelled = atoms.copy()
    relabelled.set_cell(atoms.cell.array[[2, 0, 1]])
    relabelled.pbc = (False, True, True)
    assert energy(relabelled) == pytest.approx(expected, abs=1e-9)
    bare = atoms.copy()
    bare.cell[2] = 0.0
    assert energy(bare) == pytest.approx(expected, abs=1e-12)


def test_capacitor_has_a_uniform_field() -> None:
    """Two charged planes attract by 2 pi k Q^2 / area, at any distance."""
    charges = np.repeat([0.05, -0.05], 16)
    grid = np.array(list(product(range(4), range(4), (0,))), dtype=float)
    energies = []
    for gap in (10.0, 17.0):
        atoms = Atoms(
            "H32",
            positions=np.concatenate([grid, grid + np.array([0.0, 0.0, gap])]),
            charges=charges,
        )
        atoms.set_cell([4.0, 4.0, 0.0])
        atoms.pbc = (True, True, False)
        energies.append(energy(atoms))
    field = 2 * math.pi * COULOMB_CONSTANT * 0.8**2 / 16.0
    assert (energies[1] - energies[0]) / 7.0 == pytest.approx(field, rel=1e-7)


@pytest.mark.parametrize("sigma", [0.0, 0.3, 1.0])
def test_molecule_is_the_limit_of_a_large_box(sigma: float) -> None:
    atoms = charged(molecule("H2O"), {"H": 0.4, "O": -0.8})
    dipole = (atoms.get_initial_charges()[:, None] * atoms.positions).sum(axis=0)
    atoms.pbc = False
    isolated = energy(atoms, sigma=sigma)
    r = atoms.get_all_distances()[np.triu_indices(3, 1)]
    products = np.array([-0.32, -0.32, 0.16])
    kernel = [math.erf(x / (math.sqrt(2) * sigma)) / x if sigma else 1 / x for x in r]
    assert isolated == pytest.approx(COULOMB_CONSTANT * (products * kernel).sum(), rel=1e-12)
    box = atoms.copy()
    box.set_cell([30.0] * 3)
    box.pbc = True
    # what the box's conducting surroundings give a dipole; the next order is L^-5
    surface = 2 * math.pi / 3 * COULOMB_CONSTANT * (dipole @ dipole) / 30.0**3
    assert energy(box, sigma=sigma) + surface == pytest.approx(isolated, abs=2e-6)


@pytest.mark.parametrize("make", [random_crystal, random_slab])
@pytest.mark.parametrize("sigma", [0.0, 0.9])
def test_energy_is_extensive_in_supercells(make, sigma: float) -> None:
    atoms = make(4, 8, neutral=make is random_slab)
    big = atoms.repeat((2, 3, 1 if make is random_slab else 2))
    expected = energy(atoms, sigma=sigma) * len(big) / len(atoms)
    assert energy(big, sigma=sigma) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("make", [random_crystal, random_slab])
@pytest.mark.parametrize("sigma", [0.0, 1.0])
def test_translation_rotation_and_wrapping_change_nothing(make, sigma: float) -> None:
    atoms = make(6, 9, neutral=False)
    expected = energy(atoms, sigma=sigma)
    moved = atoms.copy()
    moved.positions += [3.1, -7.7, 12.3]
    moved.positions[2] += 5 * atoms.cell.array[0] - 3 * atoms.cell.array[1]
    moved.positions = moved.positions @ rotation(2).T
    moved.set_cell(atoms.cell.array @ rotation(2).T)
    assert energy(moved, sigma=sigma) == pytest.approx(expected, abs=2e-8)


def test_another_choice_of_lattice_vectors_changes_nothing() -> None:
    atoms = random_crystal(6, 10)
    skewed = atoms.copy()
    skewed.set_cell(np.array([[1, 0, 0], [2, 1, 0], [-1, 1, 1]]) @ atoms.cell.array)
    assert energy(skewed) == pytest.approx(energy(atoms), abs=1e-8)


def mixed_batch() -> list[Atoms]:
    water = charged(molecule("H2O"), {"H": 0.4, "O": -0.7})
    water.pbc = False
    ethanol = charged(molecule("CH3CH2OH"), {"C": -0.1, "H": 0.1, "O": -0.4})
    ethanol.pbc = False
    crystals = [random_crystal(size, seed) for seed, size in enumerate((3, 8, 5), start=20)]
    large = random_crystal(8, 24).repeat((2, 2, 1))
    slab = random_slab(5, 25)
    return [water, crystals[0], slab, large, ethanol, crystals[1], crystals[2]]


@pytest.mark.parametrize("sigma", [0.0, 1.0])
def test_batch_is_single_and_atoms_may_come_in_any_order(sigma: float) -> None:
    structures = mixed_batch()
    positions, charges, rest = tensors(structures)
    order = torch.randperm(len(positions), generator=torch.Generator().manual_seed(0))
    rest["system_index"] = rest["system_index"][order]
    together = ewald_energy(positions[order], charges[order], **rest, sigma=sigma)
    alone = []
    for atoms in structures:
        one_positions, one_charges, one_rest = tensors([atoms])
        alone.append(ewald_energy(one_positions, one_charges, **one_rest, sigma=sigma))
    torch.testing.assert_close(together, torch.cat(alone)[order], rtol=0.0, atol=1e-10)


@pytest.mark.parametrize("sigma", [0.0, 1.0])
def test_gradients_are_finite_differences(sigma: float) -> None:
    structures = [mixed_batch()[place] for place in (0, 1, 2)]
    positions, charges, rest = tensors(structures)
    inputs = [positions, charges, rest["cells"]]

    def total(values: list[Tensor]) -> Tensor:
        options = {**rest, "cells": values[2]}
        # the weights check the energy of each atom, not their sum alone
        weights = torch.linspace(0.5, 1.5, len(positions), dtype=torch.float64)
        return (weights * ewald_energy(values[0], values[1], **options, sigma=sigma)).sum()

    leaves = [value.clone().requires_grad_() for value in inputs]
    gradients = torch.autograd.grad(total(leaves), leaves)
    generator = torch.Generator().manual_seed(1)
    for which in range(3):
        step = 1e-4 * torch.randn(inputs[which].shape, generator=generator, dtype=torch.float64)
        ends = []
        for factor in (1, -1):
            shifted = list(inputs)
            shifted[which] = inputs[which] + factor * step
            ends.append(total(shifted))
        expected = (gradients[which] * step).sum()
        assert ((ends[0] - ends[1]) / 2).item() == pytest.approx(expected.item(), rel=2e-6)


@pytest.mark.parametrize("sigma", [0.0, 1.0])
@pytest.mark.parametrize("make", [random_crystal, random_slab])
def test_virial_is_the_strain_derivative_and_symmetric(make, sigma: float) -> None:
    positions, charges, rest = tensors([make(5, 11)])
    cell = rest["cells"].clone().requires_grad_()
    places = positions.clone().requires_grad_()
    total = ewald_energy(places, charges, **{**rest, "cells": cell}, sigma=sigma).sum()
    by_place, by_cell = torch.autograd.grad(total, (places, cell))
    virial = positions.T @ by_place + rest["cells"][0].T @ by_cell[0]
    torch.testing.assert_close(virial, virial.T, rtol=0.0, atol=1e-6)
    torch.testing.assert_close(by_place.sum(dim=0), torch.zeros(3).double(), rtol=0.0, atol=1e-9)
    step = torch.tensor([[1.0, 0.3, 0.0], [0.3, -0.5, 0.2], [0.0, 0.2, 0.7]]).double() * 1e-4
    ends = []
    for strain in (step, -step):
        deformed = {**rest, "cells": rest["cells"] + rest["cells"] @ strain}
        ends.append(ewald_energy(positions + positions @ strain, charges, **deformed, sigma=sigma))
    change = ((ends[0].sum() - ends[1].sum()) / 2).item()
    assert change == pytest.approx((virial * step).sum().item(), rel=1e-5)


def test_scaling_of_point_charges_gives_the_pressure() -> None:
    """E(L) ~ 1/L, so the trace of the virial is -E."""
    positions, charges, rest = tensors([random_crystal(6, 12)])
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    options = {**rest, "cells": rest["cells"] * scale}
    total = ewald_energy(positions * scale, charges, **options, sigma=0.0).sum()
    (slope,) = torch.autograd.grad(total, scale)
    assert slope.item() == pytest.approx(-total.item(), rel=1e-7)


def test_energy_and_pressure_are_smooth_in_the_volume() -> None:
    """Wave vectors enter and leave the sum 40 times along this path; no difference shows it."""
    positions, charges, rest = tensors([random_crystal(6, 13)])
    energies, slopes = [], []
    for factor in torch.linspace(0.99, 1.01, 81, dtype=torch.float64):
        scale = factor.clone().requires_grad_()
        options = {**rest, "cells": rest["cells"] * scale}
        total = ewald_energy(positions * scale, charges, **options, accuracy=1e-6).sum()
        slopes.append(torch.autograd.grad(total, scale)[0].item())
        energies.append(total.item())
    fourth = np.diff(energies, n=4)
    assert np.abs(fourth).max() < 1e-8
    assert np.abs(np.diff(slopes, n=4)).max() < 3e-6


def test_second_derivatives() -> None:
    structures = [random_crystal(2, 14), random_slab(2, 15), Atoms("H2", [[0, 0, 0], [0, 0.3, 1]])]
    structures[2].set_initial_charges([0.5, -0.3])
    positions, charges, rest = tensors(structures)

    def total(positions: Tensor, charges: Tensor, cells: Tensor) -> Tensor:
        return ewald_energy(
            positions, charges, **{**rest, "cells": cells}, sigma=1.5, accuracy=1e-6
        ).sum()

    inputs = tuple(value.requires_grad_() for value in (positions, charges, rest["cells"]))
    assert torch.autograd.gradcheck(total, inputs, eps=1e-5, atol=1e-6, fast_mode=True)
    assert torch.autograd.gradgradcheck(total, inputs, eps=1e-5, atol=1e-5, fast_mode=True)


def test_hessian_of_point_charges_is_finite_and_symmetric() -> None:
    positions, charges, rest = tensors([random_crystal(3, 16)])

    def total(positions: Tensor) -> Tensor:
        return ewald_energy(positions, charges, **rest, sigma=0.0).sum()

    hessian = torch.autograd.functional.hessian(total, positions).reshape(9, 9)
    torch.testing.assert_close(hessian, hessian.T, rtol=0.0, atol=1e-9)
    # Poisson: atom i feels the uniform background of the other atoms' charge
    traces = torch.stack([hessian[3 * i : 3 * i + 3, 3 * i : 3 * i + 3].trace() for i in range(3)])
    others = charges.sum() - charges
    volume = torch.linalg.det(rest["cells"][0]).abs()
    expected = 4 * math.pi * COULOMB_CONSTANT * charges * others / volume
    torch.testing.assert_close(traces, expected, rtol=1e-5, atol=1e-5)


def test_an_isolated_charge_and_no_charge_cost_nothing() -> None:
    lonely = Atoms("H", charges=[1.7])
    neutral = random_crystal(4, 17)
    neutral.set_initial_charges(np.zeros(4))
    positions, charges, rest = tensors([lonely, neutral])
    assert torch.equal(ewald_energy(positions, charges, **rest), torch.zeros(5).double())


def test_wires_and_flat_cells_are_refused() -> None:
    wire = random_crystal(3, 18)
    wire.pbc = (True, False, False)
    with pytest.raises(ModelError, match="one direction"):
        energy(wire)
    flat = random_crystal(3, 19)
    flat.set_cell([[1.0, 0, 0], [0, 1.0, 0], [1.0, 1.0, 0]])
    with pytest.raises(ModelError, match="linearly independent"):
        energy(flat)
    with pytest.raises(ModelError, match="out of range"):
        energy(random_crystal(3, 19), sigma=-1.0)
