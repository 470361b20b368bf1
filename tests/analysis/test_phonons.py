"""Against phonopy run by hand, an analytic chain, symmetry, and the labels of a committee."""

import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

from tace_al.analysis.force_constants import ForceConstants, from_displacements
from tace_al.analysis.phonons import phonons
from tace_al.analysis.supercells import crystal_lattice
from tace_al.engines.sampling.potential import CalculatorPotential


def phonopy_by_hand(atoms: Atoms, supercell: int, mesh: int) -> Phonopy:
    """Return phonopy's own answer, as its documentation does it."""
    cell = PhonopyAtoms(
        symbols=atoms.get_chemical_symbols(),
        cell=atoms.cell[:],
        scaled_positions=atoms.get_scaled_positions(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lattice = Phonopy(cell, np.diag([supercell] * 3))
        lattice.generate_displacements(distance=0.01)
        forces = []
        for displaced in lattice.supercells_with_displacements or []:
            frame = Atoms(
                displaced.symbols,
                cell=displaced.cell,
                scaled_positions=displaced.scaled_positions,
                pbc=True,
                calculator=EMT(),
            )
            forces.append(frame.get_forces())
        lattice.forces = np.asarray(forces)
        lattice.produce_force_constants()
        lattice.run_mesh([mesh] * 3)
        lattice.run_qpoints([[0, 0, 0], [0.5, 0.5, 0], [0.1, 0.2, 0.3]])
        lattice.run_thermal_properties(temperatures=[300.0])
    return lattice


@pytest.mark.parametrize(("symbol", "cubic", "supercell"), [("Cu", False, 4), ("Al", True, 2)])
def test_metals_equal_phonopy_run_by_hand(symbol: str, cubic: bool, supercell: int) -> None:
    atoms = bulk(symbol, cubic=cubic)
    by_hand = phonopy_by_hand(atoms, supercell, 8)
    lattice = crystal_lattice(atoms, [supercell] * 3)
    constants = from_displacements(lattice, atoms, CalculatorPotential(EMT()))
    found = phonons(
        lattice,
        constants,
        mesh=(8, 8, 8),
        q_points=[[0.5, 0.5, 0], [0.1, 0.2, 0.3]],
        temperatures=[300.0],
    )
    assert float(found.mesh_max.value) == pytest.approx(by_hand.mesh.frequencies.max(), abs=1e-6)
    at_points = by_hand.qpoints.frequencies
    np.testing.assert_allclose(found.gamma.value, at_points[0], atol=1e-4)  # zeros, up to roots
    np.testing.assert_allclose(found.q_frequencies.value, at_points[1:], atol=1e-6)
    heat = by_hand.thermal_properties
    assert found.thermal.free_energy.value[0] == pytest.approx(heat.free_energy[0], abs=1e-5)
    assert found.thermal.heat_capacity.value[0] == pytest.approx(heat.heat_capacity[0], abs=1e-5)
    assert not found.has_imaginary_modes


def spring_constants(lattice: Phonopy, stiffness: float, direction: int) -> np.ndarray:
    """Return the force constants of neighbours joined in one direction by springs."""
    num_atoms = len(lattice.supercell)
    order = np.argsort(lattice.supercell.positions[:, direction])
    assert order[0] == lattice.primitive.p2s_map[0]
    constants = np.zeros((1, num_atoms, 3, 3))
    constants[0, order[0], direction, direction] = 2.0 * stiffness
    for neighbour in (order[1], order[-1]):
        constants[0, neighbour, direction, direction] -= stiffness
    return constants


def test_a_chain_of_springs_has_its_dispersion_and_members_their_spread() -> None:
    """omega(q) = 2 sqrt(k/m) |sin(pi q)|, so a frequency goes as the root of the stiffness."""
    chain = Atoms("Ar", cell=[3.0, 20.0, 20.0], pbc=True)
    lattice = crystal_lattice(chain, (6, 1, 1), primitive="unit")
    members = np.asarray([spring_constants(lattice, k, 0) for k in (0.9, 1.1)])
    constants = ForceConstants(members=members, source="forces", num_structures=0)
    found = phonons(
        lattice, constants, mesh=(6, 1, 1), q_points=[[0.5, 0, 0], [1 / 6, 0, 0]], temperatures=[10]
    )
    mass = lattice.primitive.masses[0]

    def frequency(k: float, q: float) -> float:
        root = np.sqrt(k / mass * 1.602176634e-19 * 1e20 / 1.66053906892e-27)
        return float(root * np.sin(np.pi * q) / np.pi / 1e12)

    top = found.q_frequencies.value[:, -1]
    np.testing.assert_allclose(top, [frequency(1.0, 0.5), frequency(1.0, 1 / 6)], rtol=1e-5)
    each = [frequency(k, 0.5) for k in (0.9, 1.1)]
    np.testing.assert_allclose(found.q_frequencies.members[:, 0, -1], each, rtol=1e-5)
    assert found.q_frequencies.spread[0, -1] == pytest.approx(np.std(each), rel=1e-4)


def test_unstable_crystals_are_noticed() -> None:
    chain = Atoms("Ar", cell=[3.0, 20.0, 20.0], pbc=True)
    lattice = crystal_lattice(chain, (6, 1, 1), primitive="unit")
    members = spring_constants(lattice, -1.0, 0)[None]
    constants = ForceConstants(members=members, source="forces", num_structures=0)
    found = phonons(lattice, constants, mesh=(5, 1, 1), temperatures=[300.0])
    assert found.has_imaginary_modes and found.lowest < -1.0


def test_bands_do_not_depend_on_the_choice_of_cell() -> None:
    """The path's frequencies are the crystal's: other vectors and orientation change none."""
    potential = CalculatorPotential(EMT())
    usual = bulk("Cu", a=3.6)
    other = usual.copy()
    matrix = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1]])
    other.set_cell(matrix @ usual.cell.array)
    other.rotate(37.0, (1, 2, 3), rotate_cell=True)
    cells = [(usual, np.diag([3, 3, 3])), (other, 3 * np.linalg.inv(matrix.T).round().astype(int))]
    lines = []
    for atoms, supercell in cells:  # the same supercell of both
        lattice = crystal_lattice(atoms, supercell)
        constants = from_displacements(lattice, atoms, potential)
        found = phonons(lattice, constants, mesh=(3, 3, 3), temperatures=[300.0], spacing=0.05)
        lines.append(found.bands)
    assert lines[0].labels == lines[1].labels == ["Γ", "X", "U|K", "Γ", "L", "W", "X"]
    for first, second in zip(lines[0].frequencies, lines[1].frequencies, strict=True):
        np.testing.assert_allclose(first.value, second.value, atol=1e-4)


def test_acoustic_modes_at_gamma_do_not_enter_the_heat() -> None:
    """Meshes with and without the Gamma point agree about the free energy."""
    atoms = bulk("Cu")
    lattice = crystal_lattice(atoms, (3, 3, 3))
    constants = from_displacements(lattice, atoms, CalculatorPotential(EMT()))
    with_gamma, without = (
        phonons(lattice, constants, mesh=[size] * 3, temperatures=[300.0], spacing=0.1)
        for size in (31, 16)
    )
    energies = [found.thermal.free_energy.value[0] for found in (with_gamma, without)]
    assert energies[0] == pytest.approx(energies[1], abs=0.01)
