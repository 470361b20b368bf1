"""Everything derived from the energy is its derivative: checked by finite differences.

Central differences of fourth order, in float64. A float32 network is compared with its float64
copy, since differences of rounded energies say nothing.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from potentials import POTENTIALS, Potential, close, in_double, potential, reads
from structures import PER_ATOM, displaced, ethanol, give, impose, rattled, strained, systems
from torch import Tensor

STEP = 3e-4
NUMERICAL = 1e-6
"""Of the largest value: what is left of the differences' error."""
COEFFICIENTS = torch.tensor([1.0, -8.0, 8.0, -1.0], dtype=torch.float64) / 12.0
STRAINS = {(0, 0), (2, 2), (0, 1), (1, 2)}

FIELD = [name for name in POTENTIALS if reads(potential(name), "electric_field")]
MOMENTS = [name for name in POTENTIALS if reads(potential(name), "magnetic_moments")]
CHARGED = [name for name in POTENTIALS if potential(name).config.charges != "none"]


def slopes(
    model: Potential, paths: Sequence[Callable[[float], Atoms]], name: str = "energy"
) -> list[Tensor]:
    """Return d(output)/ds at s = 0 along each path of structures, all evaluated in one batch."""
    frames = [path(shift * STEP) for path in paths for shift in (-2, -1, 1, 2)]
    values = [answer[name] for answer in model.answers(frames, [name])]
    return [
        torch.einsum("s,s...->...", COEFFICIENTS, torch.stack(values[start : start + 4])) / STEP
        for start in range(0, len(values), 4)
    ]


def agree(found: Tensor | float, expected: Tensor | float, scale: Tensor) -> bool:
    """Whether a derivative is what differences say, up to their error."""
    size = max(0.1, float(torch.nan_to_num(scale).abs().max()))
    difference = torch.as_tensor(found) - torch.as_tensor(expected)
    return float(difference.abs().max()) < NUMERICAL * size


def test_forces_are_minus_the_gradient(model: Potential) -> None:
    model = in_double(model)
    frames = systems(model)
    for system, answer in zip(frames, model.answers(list(frames.values())), strict=True):
        frame, forces = frames[system], answer["forces"]
        places = [(atom, axis) for atom in sorted({0, len(frame) - 1}) for axis in range(3)]
        paths = [lambda s, a=atom, x=axis, f=frame: displaced(f, a, x, s) for atom, axis in places]
        for (atom, axis), slope in zip(places, slopes(model, paths), strict=True):
            assert agree(forces[atom, axis], -slope, forces), (system, atom, axis)


def test_stress_and_virial_are_the_strain_derivative(model: Potential) -> None:
    model = in_double(model)
    frames = systems(model)
    for system, answer in zip(frames, model.answers(list(frames.values())), strict=True):
        frame, virial = frames[system], answer["virial"]
        paths = []
        for a, b in STRAINS:
            direction = np.zeros((3, 3))
            direction[a, b] += 0.5
            direction[b, a] += 0.5
            paths.append(lambda s, f=frame, d=direction: strained(f, d, s))
        for (a, b), slope in zip(STRAINS, slopes(model, paths), strict=True):
            assert agree(virial[a, b], -slope, virial), (system, a, b)
        if frame.pbc.all():
            assert close(answer["stress"], -virial / frame.get_volume())
            assert virial.abs().max() > 1e-3
        else:
            assert answer["stress"].isnan().all()


def test_atomic_virials_sum_exactly(model: Potential) -> None:
    for answer in model.answers(list(systems(model).values())):
        assert close(answer["atomic_virials"].sum(dim=0), answer["virial"], model.tolerance)


@pytest.mark.parametrize("system", ["molecule", "crystal"])
def test_the_hessian_is_minus_the_gradient_of_the_forces(model: Potential, system: str) -> None:
    model = in_double(model)
    if system == "molecule":
        atoms = impose(model, rattled(molecule("H2O")), seed=3)
    else:
        atoms = systems(model)["slab"]
    hessian = model.hessian(atoms)
    last = len(atoms) - 1
    paths = [lambda s, x=axis: displaced(atoms, last, x, s) for axis in range(3)]
    for axis, slope in enumerate(slopes(model, paths, "forces")):
        assert agree(hessian[:, :, last, axis], -slope, hessian), axis
    assert close(hessian, hessian.permute(2, 3, 0, 1), 1e-9)
    assert hessian.sum(dim=2).abs().max() < 1e-9 * hessian.abs().max()  # acoustic sum rule


def under(atoms: Atoms, name: str, index: tuple[int, ...], size: float) -> Atoms:
    """Return a structure with one component of a condition changed; an absent one was zero."""
    after = atoms.copy()
    place = after.arrays if name in PER_ATOM else after.info
    value = (
        np.array(place[name])
        if name in place
        else np.zeros((len(atoms), 3)[name not in PER_ATOM :])
    )
    value[index] += size
    return give(after, name, value)


@pytest.mark.parametrize("name", FIELD)
def test_field_responses(name: str) -> None:
    """dipole = -dE/dF, polarisability = d(dipole)/dF, Born charges = d(dipole)/dr."""
    model = in_double(potential(name))
    frames = systems(model)  # with a field and without
    for system, answer in zip(frames, model.answers(list(frames.values())), strict=True):
        frame = frames[system]
        fields = [
            lambda s, a=axis, f=frame: under(f, "electric_field", (a,), s) for axis in range(3)
        ]
        assert agree(answer["dipole"], -torch.stack(slopes(model, fields)), answer["dipole"]), (
            system
        )
        columns = torch.stack(slopes(model, fields, "dipole"), dim=1)
        assert agree(answer["polarizability"], columns, columns), system
        moves = [lambda s, a=axis, f=frame: displaced(f, 0, a, s) for axis in range(3)]
        columns = torch.stack(slopes(model, moves, "dipole"), dim=1)
        assert agree(answer["born_charges"][0], columns, answer["born_charges"]), system
        total = answer["born_charges"].sum(dim=0)
        assert total.abs().max() < 1e-10 * max(1.0, float(answer["born_charges"].abs().max()))


@pytest.mark.parametrize("name", MOMENTS)
def test_magnetic_forces(name: str) -> None:
    model = in_double(potential(name))
    frames = systems(model)  # with moments and without
    for system, answer in zip(frames, model.answers(list(frames.values())), strict=True):
        frame, forces = frames[system], answer["magnetic_forces"]
        paths = [
            lambda s, a=axis, f=frame: under(f, "magnetic_moments", (len(f) - 1, a), s)
            for axis in range(3)
        ]
        expected = -torch.stack(slopes(model, paths))
        size = max(0.01, float(forces.abs().max()))
        assert (forces[-1] - expected).abs().max() < NUMERICAL * size, system
    (answer,) = model.answers([ethanol()], ["magnetic_forces"])
    assert not answer["magnetic_forces"].any()  # even in the moments: no slope at zero without B


@pytest.mark.parametrize("name", CHARGED)
def test_charges_sum_to_the_total_charge(name: str) -> None:
    model = potential(name)
    frames = [impose(model, ethanol(), seed=3, charge=charge) for charge in (-1, 0, 2)]
    for charge, answer in zip((-1, 0, 2), model.answers(frames), strict=True):
        total = float(answer["charges"].sum())
        if model.global_charge:
            assert total == pytest.approx(charge, abs=1e-12)
        assert answer["charges"].abs().max() > 1e-2


@pytest.mark.parametrize("name", [name for name in CHARGED if name not in FIELD])
@pytest.mark.parametrize("charge", [0, 1])
def test_dipoles_and_born_charges_of_charges(name: str, charge: int) -> None:
    model = in_double(potential(name))
    atoms = impose(model, ethanol(), seed=3, charge=charge)
    (answer,) = model.answers([atoms])
    declared = "dipole" in (output.name for output in model.config.outputs)

    def about_zero(frame: Atoms, found: dict[str, Tensor]) -> Tensor:
        """Return the dipole about the zero of coordinates; it is given about the nuclear charge."""
        origin = frame.numbers @ frame.positions / frame.numbers.sum()
        return found["dipole"] + found["charges"].sum() * torch.from_numpy(origin)

    of_charges = answer["charges"] @ torch.from_numpy(atoms.positions)
    assert close(about_zero(atoms, answer), of_charges) is not declared
    frames = [displaced(atoms, 1, axis, n * STEP) for axis in range(3) for n in (-2, -1, 1, 2)]
    found = model.answers(frames, ["charges", "dipole"])
    absolute = [about_zero(*pair) for pair in zip(frames, found, strict=True)]
    columns = torch.einsum("s,ksx->xk", COEFFICIENTS, torch.stack(absolute).reshape(3, 4, 3)) / STEP
    assert agree(answer["born_charges"][1], columns, columns)
    total = answer["born_charges"].sum(dim=0)
    assert close(total, answer["charges"].sum() * torch.eye(3).double())


def test_float32_derivatives_are_those_of_float64() -> None:
    model = potential("everything in float32")
    double = in_double(model)
    frames = list(systems(model).values())
    for single, exact in zip(model.answers(frames), double.answers(frames), strict=True):
        for name in model.laws:
            assert close(exact[name], single[name], model.tolerance), name
