"""Hessians of structures, checked against finite differences of forces."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.constraints import FixAtoms

from tace_al.model.calculator import TaceCalculator
from tace_al.model.tace import Tace
from tace_al.model.vibrations import free_atoms, hessian, vibrations


@pytest.fixture(scope="module")
def model() -> Tace:
    network = Tace.from_preset(
        "tiny", elements=["H", "C", "O", "Cu"], seed=2, cutoff=4.0, channels=8, dtype="float64"
    )
    network.head().scale.fill_(3.0)
    return network


def ethanol() -> Atoms:
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.1, seed=3)
    return atoms


def crystal() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=3)
    return atoms


def finite_differences(
    model: Tace, atoms: Atoms, rows: list[int], step: float = 5e-5
) -> np.ndarray:
    """Return rows of the Hessian from central differences of forces."""
    moved = atoms.copy()
    moved.set_constraint()
    moved.calc = TaceCalculator(model, splines=False)
    result = np.zeros((len(rows), 3, len(atoms), 3))
    for place, row in enumerate(rows):
        for axis in range(3):
            sides = []
            for sign in (1, -1):
                moved.positions[row, axis] += sign * step
                sides.append(moved.get_forces())
                moved.positions[row, axis] -= sign * step
            result[place, axis] = -(sides[0] - sides[1]) / (2 * step)
    return result


@pytest.mark.parametrize("make", [ethanol, crystal])
def test_agrees_with_finite_differences(model: Tace, make) -> None:
    atoms, rows = make(), [0, 2]
    exact = hessian(model, atoms, atom_indices=rows)
    assert exact.shape == (2, 3, len(atoms), 3)
    scale = np.abs(exact).max()
    np.testing.assert_allclose(exact, finite_differences(model, atoms, rows), atol=1e-6 * scale)
    assert np.abs(exact).max() > 0.1


@pytest.mark.parametrize("make", [ethanol, crystal])
def test_is_symmetric_and_obeys_the_sum_rule(model: Tace, make) -> None:
    full = hessian(model, make())
    scale = np.abs(full).max()
    np.testing.assert_allclose(full, full.transpose(2, 3, 0, 1), atol=1e-10 * scale)
    np.testing.assert_allclose(full.sum(axis=2), 0.0, atol=1e-10 * scale)


def test_symmetry_in_single_precision(model: Tace) -> None:
    exact, rough = hessian(model, ethanol()), hessian(model.as_dtype("float32"), ethanol())
    assert rough.dtype == np.float64
    np.testing.assert_allclose(rough, exact, atol=1e-4 * np.abs(exact).max())


def test_rows_and_chunks_are_parts_of_the_whole(model: Tace) -> None:
    atoms = ethanol()
    full = hessian(model, atoms)
    np.testing.assert_allclose(hessian(model, atoms, atom_indices=[5, 1, -1]), full[[5, 1, -1]])
    for chunk in (1, 4, 1000):
        np.testing.assert_allclose(hessian(model, atoms, chunk=chunk), full, atol=1e-12)
    assert hessian(model, atoms, atom_indices=[]).shape == (0, 3, len(atoms), 3)


def test_fixed_atoms_have_no_rows_unless_asked_for(model: Tace) -> None:
    slab = fcc111("Cu", (1, 1, 3), vacuum=5.0)
    slab.rattle(0.1, seed=1)
    full = hessian(model, slab)
    slab.set_constraint(FixAtoms([0, 2]))
    np.testing.assert_array_equal(free_atoms(slab), [1])
    held = hessian(model, slab)
    assert held.shape == (1, 3, 3, 3)
    np.testing.assert_allclose(held, full[[1]], atol=1e-12)
    np.testing.assert_allclose(hessian(model, slab, atom_indices=[0]), full[[0]], atol=1e-12)
    data = vibrations(model, slab)
    assert data.get_frequencies().shape == (3,)
    np.testing.assert_allclose(data.get_hessian_2d(), full[1, :, 1], atol=1e-10)


def test_all_atoms_fixed_gives_an_empty_hessian(model: Tace) -> None:
    atoms = ethanol()
    atoms.set_constraint(FixAtoms(range(len(atoms))))
    assert hessian(model, atoms).shape == (0, 3, len(atoms), 3)


def test_isolated_atom_has_no_hessian(model: Tace) -> None:
    assert not hessian(model, Atoms("O")).any()


def test_separate_molecules_do_not_couple(model: Tace) -> None:
    near, far = ethanol(), ethanol()
    far.positions += [50.0, 0.0, 0.0]
    both = hessian(model, near + far)
    n = len(near)
    np.testing.assert_array_equal(both[:n, :, n:], 0.0)
    np.testing.assert_allclose(both[:n, :, :n], hessian(model, near), atol=1e-10)


def test_relaxed_molecule_has_six_rigid_modes(model: Tace) -> None:
    """At any stationary point translations and rotations cost nothing."""
    from ase.optimize import BFGS

    atoms = molecule("H2O")
    atoms.calc = TaceCalculator(model)
    BFGS(atoms, logfile=None).run(fmax=1e-5, steps=200)
    frequencies = vibrations(model, atoms).get_frequencies()
    assert np.sum(np.abs(frequencies) < 5.0) == 6


def test_wrong_indices_are_refused(model: Tace) -> None:
    with pytest.raises(ValueError, match="names \\[9\\]"):
        hessian(model, ethanol(), atom_indices=[9])
    with pytest.raises(ValueError, match="mask"):
        hessian(model, ethanol(), atom_indices=np.ones(9, dtype=bool))
    with pytest.raises(ValueError, match="chunk"):
        hessian(model, ethanol(), chunk=0)
