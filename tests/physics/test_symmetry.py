"""What turning, moving, relabelling and reversing a structure does to every output."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from potentials import POTENTIALS, Potential, close, potential, reads
from structures import (
    displaced,
    ethanol,
    give,
    impose,
    rattled,
    reversed_in_time,
    rotations,
    systems,
    turned,
)

MAGNETIC = [name for name in POTENTIALS if reads(potential(name), "magnetic_moments")]


@pytest.mark.parametrize("operation", rotations())
def test_equivariance(model: Potential, operation: str) -> None:
    matrix = rotations()[operation]
    frames = systems(model)
    before = model.answers(list(frames.values()))
    after = model.answers([turned(frame, matrix) for frame in frames.values()])
    for system, first, second in zip(frames, before, after, strict=True):
        for name, law in model.laws.items():
            expected = law.turned(first[name].double(), torch.from_numpy(matrix))
            assert close(expected, second[name], model.tolerance), (system, name)


@pytest.mark.parametrize("operation", ["rotation", "inversion"])
def test_equivariance_of_the_hessian(model: Potential, operation: str) -> None:
    matrix = rotations()[operation]
    water = impose(model, rattled(molecule("H2O")), seed=3)
    before, after = model.hessian(water), model.hessian(turned(water, matrix))
    R = torch.from_numpy(matrix).to(before.dtype)
    expected = torch.einsum("ab,ibjd,cd->iajc", R, before, R)
    assert close(expected, after, model.tolerance)


def test_translation_and_wrapping(model: Potential) -> None:
    frames = systems(model)
    moved = []
    for frame in frames.values():
        moved.append(frame.copy())
        moved[-1].positions += [11.3, -7.1, 3.9]
        moved[-1].wrap()
    before, after = model.answers(list(frames.values())), model.answers(moved)
    for system, first, second in zip(frames, before, after, strict=True):
        for name in model.laws:
            assert close(first[name], second[name], model.tolerance), (system, name)


def test_permutation(model: Potential) -> None:
    frames = systems(model)
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(frame)) for frame in frames.values()]
    shuffled = [frame[order] for frame, order in zip(frames.values(), orders, strict=True)]
    before, after = model.answers(list(frames.values())), model.answers(shuffled)
    for system, order, first, second in zip(frames, orders, before, after, strict=True):
        for name, law in model.laws.items():
            expected = first[name][order] if law.per == "atom" else first[name]
            assert close(expected, second[name], model.tolerance), (system, name)


def test_permutation_of_the_hessian(model: Potential) -> None:
    water = impose(model, rattled(molecule("H2O")), seed=3)
    order = [2, 0, 1]
    expected = model.hessian(water)[order][:, :, order]
    assert close(expected, model.hessian(water[order]), model.tolerance)


def test_newtons_third_law(model: Potential) -> None:
    """Forces sum to zero in any homogeneous field: the energy knows no place in space."""
    frames = systems(model)
    for system, answer in zip(frames, model.answers(list(frames.values())), strict=True):
        total = answer["forces"].double().sum(dim=0)
        scale = max(1.0, float(answer["forces"].abs().max()))
        assert total.abs().max() < model.tolerance * scale, system


def test_torques_balance(model: Potential) -> None:
    """Turning all of it changes nothing: r x f + E x (-dE/dE) + m x (-dE/dm) sum to zero.

    Without fields and moments that says: a molecule feels no torque.
    """
    atoms = impose(model, ethanol(), seed=3, charge=1, absent=["magnetic_field"])
    (answer,) = model.answers([atoms])
    forces = answer["forces"].double().numpy()
    torques = [np.cross(atoms.positions, forces)]
    if reads(model, "electric_field"):
        torques.append(np.cross(atoms.info["electric_field"], answer["dipole"].double())[None])
    if reads(model, "magnetic_moments"):
        moments = atoms.arrays["magnetic_moments"]
        torques.append(np.cross(moments, answer["magnetic_forces"].double()))
    total = np.concatenate(torques).sum(axis=0)
    assert np.abs(total).max() < 10 * model.tolerance * max(1.0, np.abs(forces).max())
    on_atoms = np.abs(torques[0].sum(axis=0)).max()
    if model.config.spin_orbit and len(torques) > 1:
        assert on_atoms > 1e-4
    elif not model.config.spin_orbit:  # nothing ties spins to the lattice
        assert on_atoms < model.tolerance * np.abs(forces).max()


@pytest.mark.parametrize("name", MAGNETIC)
def test_time_reversal(name: str) -> None:
    model = potential(name)
    frames = list(systems(model).values())
    before, after = model.answers(frames), model.answers([reversed_in_time(f) for f in frames])
    for first, second in zip(before, after, strict=True):
        for output, law in model.laws.items():
            expected = -first[output] if law.time_odd else first[output]
            assert close(expected, second[output], model.tolerance), output


@pytest.mark.parametrize("name", MAGNETIC)
def test_moments_in_a_field_are_not_even_alone(name: str) -> None:
    """Zeeman: with the field left as it is, turning the moments round does cost energy."""
    model = potential(name)
    atoms = impose(model, ethanol(), seed=3)
    against = give(atoms.copy(), "magnetic_moments", -atoms.arrays["magnetic_moments"])
    energies = model.energies([atoms, against])
    assert abs(energies[0] - energies[1]) > 1e-4


@pytest.mark.parametrize("name", MAGNETIC)
def test_spins_turn_freely_without_spin_orbit_coupling(name: str) -> None:
    model = potential(name)
    rotation = rotations()["rotation"]
    atoms = impose(model, ethanol(), seed=3)
    spun = atoms.copy()
    give(spun, "magnetic_moments", atoms.arrays["magnetic_moments"] @ rotation.T)
    give(spun, "magnetic_field", rotation @ atoms.info["magnetic_field"])
    before, after = model.answers([atoms, spun])
    if model.config.spin_orbit:
        assert abs(before["energy"] - after["energy"]) > 1e-4
        return
    assert close(before["energy"], after["energy"], model.tolerance)
    assert close(before["forces"], after["forces"], model.tolerance)
    turned_forces = before["magnetic_forces"] @ torch.from_numpy(rotation.T)
    assert close(turned_forces, after["magnetic_forces"], model.tolerance)


def test_a_chiral_molecule_and_its_mirror_image_differ_only_in_odd_outputs() -> None:
    """Pseudoscalars vanish on average over a racemate, and on neither molecule."""
    model = potential("tensors")
    corners = [[0, 0, 0], [0.6, 0.7, 0.6], [-0.9, -0.8, 0.9], [-1.2, 1.2, -1.3], [1.4, -1.2, -1.2]]
    atoms = Atoms("CHOCuAu", positions=corners)
    left, right = model.answers([atoms, turned(atoms, np.diag([1.0, 1.0, -1.0]))])
    assert close(left["energy"], right["energy"])
    assert left["chiral"].abs().max() > 1e-5
    torch.testing.assert_close(left["chiral"], -right["chiral"], rtol=1e-9, atol=0.0)


def test_index_symmetries_hold(model: Potential) -> None:
    frames = systems(model)
    for system, answer in zip(frames, model.answers(list(frames.values())), strict=True):
        for output in model.config.outputs:
            values = answer[output.name]
            if system == "molecule":
                assert values.abs().max() > 1e-5, output.name
            first, *others = output.symmetry.split("=") if output.symmetry else [""]
            for other in others:
                sign = -1 if other.startswith("-") else 1
                letters = other.lstrip("-")
                swapped = torch.einsum(f"...{first}->...{letters}", values)
                assert close(values, sign * swapped, model.tolerance), output.name
        for name in ("stress", "virial", "atomic_virials", "polarizability"):
            if name in answer:
                assert close(answer[name], answer[name].mT, model.tolerance), name


def test_symmetry_forbids_what_it_must(model: Potential) -> None:
    """Centrosymmetric: no forces, dipole or odd tensors, with no field that breaks it."""
    carbon_dioxide = molecule("CO2")
    carbon_dioxide.positions -= carbon_dioxide.positions[0]
    (answer,) = model.answers([carbon_dioxide])
    assert answer["forces"][0].abs().max() < model.tolerance * 10
    for name, law in model.laws.items():
        if law.rank % 2 and law.per == "structure":
            assert answer[name].abs().max() < model.tolerance, name
    moved = displaced(carbon_dioxide, 1, 2, 0.1)
    assert model.answers([moved])[0]["forces"][0].abs().max() > 1e-2
