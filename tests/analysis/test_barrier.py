import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, fcc100
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.mep import NEB
from ase.optimize import BFGS, FIRE
from scipy.optimize import minimize, root

from tace_al.analysis.barrier import (
    barrier_from_members,
    energy_profile,
    highest_point,
    path_tangents,
    tangential_forces,
)

BARRIER = 0.8


def double_well(s):
    """Energy and force of a double well with minima at 0 and 2 and its saddle at 1."""
    u = s - 1.0
    return BARRIER * (1 - u**2) ** 2, 4 * BARRIER * u * (1 - u**2)


def test_a_cubic_is_reproduced_exactly_between_images():
    s = np.array([0.0, 0.7, 1.1, 2.0])
    energy = np.polynomial.Polynomial([1.0, 2.0, -3.0, 0.8])
    profile = energy_profile(s, energy(s), -energy.deriv()(s), num_points=50)
    assert profile.energies == pytest.approx(energy(profile.coordinate), abs=1e-12)
    top = highest_point(s, energy(s), -energy.deriv()(s))
    assert top[0] == pytest.approx(energy.deriv().roots()[0], abs=1e-10)


def test_saddle_between_images_is_found_with_and_without_forces():
    s = np.linspace(0.0, 2.0, 8)  # no image at the saddle
    energies, forces = double_well(s)
    assert energies.max() < BARRIER - 0.03
    for slope, tolerance in ((forces, 0.003), (None, 0.01)):
        where, top = highest_point(s, energies, slope)
        assert where == pytest.approx(1.0, abs=1e-6)
        assert top == pytest.approx(BARRIER, abs=tolerance)


def test_level_and_monotonic_paths_have_no_saddle():
    s = np.linspace(0.0, 1.0, 5)
    for energies in (np.zeros(5), s**2 * (3 - 2 * s), -s):
        estimate = barrier_from_members(energies, s)
        assert not estimate.has_saddle
        assert estimate.forward == pytest.approx(max(energies[-1], 0.0), abs=1e-12)


def test_barrier_is_that_of_the_mean_with_the_members_spread():
    s = np.linspace(0.0, 2.0, 9)
    scales = np.array([0.9, 1.0, 1.1, 1.2])
    offsets = np.array([0.0, 5.0, -3.0, 1.0])  # constant offsets of members drop out
    energies, forces = double_well(s)
    tilt = 0.3 * s / 2
    estimate = barrier_from_members(
        scales[:, None] * energies + tilt + offsets[:, None],
        s,
        member_tangential_forces=scales[:, None] * forces - 0.15,
        energy_scale=2.0,
        energy_floor=0.001,
    )
    assert estimate.forward - estimate.reverse == pytest.approx(0.3, abs=1e-10)
    assert estimate.forward == pytest.approx(np.mean(estimate.members), abs=1e-3)
    assert estimate.spread == pytest.approx(BARRIER * scales.std(), rel=0.05)
    assert estimate.error == pytest.approx(2.0 * estimate.spread)
    assert estimate.saddle_image == 4 and estimate.has_saddle
    single = barrier_from_members(energies, s, energy_scale=3.0, energy_floor=0.001)
    assert single.error == pytest.approx(0.003)


def test_label_at_the_saddle_is_compared_with_the_same_two_geometries():
    s = np.linspace(0.0, 2.0, 9)
    estimate = barrier_from_members(double_well(s)[0], s)
    assert estimate.deviation is None
    labelled = estimate.with_labels(saddle_energy=-99.25, initial_energy=-100.0)
    assert labelled.label_forward == pytest.approx(0.75)
    assert labelled.deviation == pytest.approx(estimate.forward - 0.75)


def test_members_barrier_on_the_shared_path_is_right_to_first_order():
    """In a curved valley in the plane the error falls with the square of the deviation."""

    def mean(x):
        return BARRIER * (1 - x[0] ** 2) ** 2 + 3.0 * (x[1] - 0.4 * x[0]) ** 2

    def deviation(x):
        return np.sin(1.3 * x[0] + 0.5) + 0.7 * x[1] * (1 - x[0])

    def gradient(function, x, step=1e-5):
        shifts = step * np.eye(2)
        return np.array([function(x + d) - function(x - d) for d in shifts]) / (2 * step)

    s = np.linspace(-1.0, 1.0, 21)
    path = np.stack([s, 0.4 * s], axis=1)
    length = np.linalg.norm(path - path[0], axis=1)
    misses = []
    for epsilon in (0.08, 0.04):

        def member(x, epsilon=epsilon):
            return mean(x) + epsilon * deviation(x)

        well = minimize(member, [-1.0, -0.4], options={"gtol": 1e-9}).x
        saddle = root(lambda x, f=member: gradient(f, x), [0.0, 0.0], tol=1e-10).x
        exact = member(saddle) - member(well)
        unit = (path[-1] - path[0]) / length[-1]
        along = [-gradient(member, x) @ unit for x in path]
        estimate = barrier_from_members(
            np.array([member(x) for x in path]), length, member_tangential_forces=np.array(along)
        )
        misses.append(abs(estimate.forward - exact))
    assert misses[0] < 0.01
    assert misses[1] < misses[0] / 3


def test_tangents_are_unit_vectors_along_the_path_and_cross_the_cell_border():
    angles = np.linspace(0.0, np.pi / 2, 12)
    images = []
    for angle in angles:
        atoms = Atoms("HO", positions=[[3 * np.cos(angle), 3 * np.sin(angle), 0.0], [5, 5, 5]])
        atoms.set_cell([4.0, 9.0, 9.0])
        atoms.pbc = [True, False, False]
        atoms.positions[0, 0] += 2.0  # begins outside the cell
        atoms.wrap()
        images.append(atoms)
    coordinate, tangents = path_tangents(images)
    assert coordinate[-1] == pytest.approx(3 * np.pi / 2, rel=2e-3)
    expected = np.stack([-np.sin(angles), np.cos(angles), np.zeros(12)], axis=1)
    assert tangents[:, 0] == pytest.approx(expected, abs=0.01)
    assert tangents[:, 1] == pytest.approx(np.zeros((12, 3)), abs=1e-12)
    forces = np.zeros((2, 12, 2, 3))
    forces[1, :, 0] = 2.0 * expected
    forces[:, :, 1] = 7.0  # an atom at rest does no work
    assert tangential_forces(forces, tangents)[0] == pytest.approx(np.zeros(12), abs=1e-10)
    assert tangential_forces(forces, tangents)[1] == pytest.approx(np.full(12, 2.0), abs=0.02)


@pytest.mark.parametrize(
    ("energies", "coordinate", "words"),
    [
        (np.array([0.0, np.nan, 0.0]), np.arange(3.0), "not finite"),
        (np.zeros(3), np.array([0.0, 1.0, 1.0]), "must increase"),
        (np.zeros(3), np.arange(4.0), "at least 2 images"),
    ],
)
def test_bad_paths_are_refused(energies, coordinate, words):
    with pytest.raises(ValueError, match=words):
        barrier_from_members(energies, coordinate)


def test_paths_that_stand_still_are_refused():
    atoms = Atoms("H")
    with pytest.raises(ValueError, match="the same"):
        path_tangents([atoms, atoms])
    with pytest.raises(ValueError, match="at least 2"):
        path_tangents([atoms])


@pytest.mark.slow
def test_gold_hop_on_aluminium_has_the_published_emt_barrier():
    """0.375 eV: ASE's NEB tutorial; five images without climbing, so the top is interpolated."""

    def slab():
        atoms = fcc100("Al", size=(2, 2, 3))
        add_adsorbate(atoms, "Au", 1.7, "hollow")
        atoms.center(axis=2, vacuum=4.0)
        atoms.set_constraint(FixAtoms(mask=[atom.tag > 1 for atom in atoms]))
        atoms.calc = EMT()
        return atoms

    initial, final = slab(), slab()
    final[-1].x += final.cell[0, 0] / 2
    for end in (initial, final):
        BFGS(end, logfile=None).run(fmax=0.01)
    images = [initial, *(slab() for _ in range(4)), final]
    band = NEB(images, method="improvedtangent")
    band.interpolate()
    FIRE(band, logfile=None).run(fmax=0.05, steps=200)
    coordinate, tangents = path_tangents(images)
    forces = np.array([[image.get_forces(apply_constraint=False) for image in images]])
    estimate = barrier_from_members(
        np.array([image.get_potential_energy() for image in images]),
        coordinate,
        member_tangential_forces=tangential_forces(forces, tangents),
    )
    highest = max(image.get_potential_energy() for image in images)
    assert estimate.forward > highest - initial.get_potential_energy() + 0.005
    assert estimate.forward == pytest.approx(0.375, abs=0.004)
    assert estimate.reverse == pytest.approx(estimate.forward, abs=0.002)
    assert estimate.saddle_coordinate == pytest.approx(coordinate[-1] / 2, rel=0.02)
