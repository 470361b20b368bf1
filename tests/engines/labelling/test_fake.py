import numpy as np
import pytest
from ase.build import bulk, molecule

from tace_al.core.errors import LabelFailed
from tace_al.engines.labelling.fake import FakeLabeller


def test_forces_and_stress_are_exact_derivatives_in_a_small_cell() -> None:
    labeller = FakeLabeller()
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=3)
    label = labeller.label(atoms)
    moved = atoms.copy()
    energies = []
    for step in (1e-4, -1e-4):
        moved.positions[:] = atoms.positions
        moved.positions[2, 1] += step
        energies.append(labeller.label(moved).energy)
    assert label.forces[2, 1] == pytest.approx(-(energies[0] - energies[1]) / 2e-4, abs=1e-6)
    energies = []
    for strain in (1e-5, -1e-5):
        moved = atoms.copy()
        deformation = np.eye(3) + strain * np.array([[0, 0.5, 0], [0.5, 0, 0], [0, 0, 0]])
        moved.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
        energies.append(labeller.label(moved).energy)
    assert label.stress is not None
    numerical = (energies[0] - energies[1]) / 2e-5 / atoms.get_volume()
    assert label.stress[0, 1] == pytest.approx(numerical, abs=1e-6)


def test_energy_is_extensive_and_goes_smoothly_to_zero() -> None:
    labeller = FakeLabeller()
    atoms = bulk("Cu", cubic=True)
    assert labeller.label(atoms * (2, 1, 1)).energy == pytest.approx(
        2 * labeller.label(atoms).energy
    )
    far = molecule("H2")
    far.positions[1] = far.positions[0] + [0, 0, 4.999]
    assert labeller.label(far).energy == pytest.approx(0.0, abs=1e-8)


def test_a_dimer_at_the_sum_of_radii_has_the_depth_and_no_force() -> None:
    atoms = molecule("H2")
    atoms.positions[1] = atoms.positions[0] + [0, 0, 0.62]
    label = FakeLabeller(depth=2.0).label(atoms)
    assert label.energy == pytest.approx(-2.0)
    assert np.abs(label.forces).max() < 1e-10


def test_about_one_structure_in_n_fails_and_always_the_same_ones() -> None:
    labeller = FakeLabeller(fail_every=4, fail_kind="crash")

    def failed(seed: int) -> bool:
        atoms = molecule("H2O")
        atoms.rattle(0.05, seed=seed)
        try:
            labeller.label(atoms)
        except LabelFailed as error:
            assert error.kind == "crash"
            return True
        return False

    outcomes = [failed(seed) for seed in range(100)]
    assert 10 <= sum(outcomes) <= 40
    assert outcomes == [failed(seed) for seed in range(100)]


def test_failures_do_not_change_the_fidelity() -> None:
    assert FakeLabeller(fail_every=3, delay_s=0.1).fidelity.key == FakeLabeller().fidelity.key
    assert FakeLabeller(depth=3.0).fidelity.key != FakeLabeller().fidelity.key
