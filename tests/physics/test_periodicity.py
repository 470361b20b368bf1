"""A crystal is its infinite repetition: no choice of cell, image or origin changes an answer."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import make_supercell, molecule
from potentials import POTENTIALS, Potential, close, in_double, potential
from structures import PER_ATOM, alloy, neutral, rattled, slab, systems, tiny_crystal, wire

PERIODIC_CHARGES = ("dipole", "born_charges")
"""Of charges; along a periodic direction they use functions of one period of the cell."""
SHARED = [
    name for name in POTENTIALS if potential(name).long_range and potential(name).global_charge
]


SUMMED = 1e-8
"""Charges sharper than 0.5 Angstrom are summed in two parts, divided according to the cell; each
is left off where 1e-8 of it remains."""


def intrinsic(model: Potential) -> list[str]:
    """Return the outputs that belong to the crystal and not to the cell chosen for it."""
    of_charges = model.config.charges != "none" and "electric_field" not in model.config.embeddings
    return [name for name in model.laws if not (of_charges and name in PERIODIC_CHARGES)]


def test_images_are_one_atom(model: Potential) -> None:
    """Each atom may be given by any of its images."""
    frames = systems(model)
    rng = np.random.default_rng(3)
    moved = []
    for frame in frames.values():
        image = frame.copy()
        image.positions += (rng.integers(-3, 4, (len(frame), 3)) * frame.pbc) @ frame.cell.array
        moved.append(image)
    before, after = model.answers(list(frames.values())), model.answers(moved)
    for system, first, second in zip(frames, before, after, strict=True):
        for name in model.laws:
            assert close(first[name], second[name], model.tolerance), (system, name)


@pytest.mark.parametrize(
    "matrix",
    [[[1, 0, 0], [1, 1, 0], [-1, 2, 1]], [[0, 1, 0], [1, 0, 0], [0, 0, 1]]],
    ids=["sheared cell", "left-handed cell"],
)
def test_any_cell_of_a_lattice_will_do(model: Potential, matrix: list[list[int]]) -> None:
    frames = {name: frame for name, frame in systems(model).items() if frame.pbc.all()}
    changed = []
    for frame in frames.values():
        changed.append(frame.copy())
        changed[-1].set_cell(np.array(matrix) @ frame.cell.array)
    before, after = model.answers(list(frames.values())), model.answers(changed)
    for system, first, second in zip(frames, before, after, strict=True):
        for name in intrinsic(model):
            assert close(first[name], second[name], model.tolerance), (system, name)


def test_the_order_of_cell_vectors_does_not_count(model: Potential) -> None:
    frames = systems(model)
    rolled = []
    for frame in frames.values():
        rolled.append(frame.copy())
        rolled[-1].set_cell(frame.cell.array[[2, 0, 1]])
        rolled[-1].pbc = frame.pbc[[2, 0, 1]]
    before, after = model.answers(list(frames.values())), model.answers(rolled)
    for system, first, second in zip(frames, before, after, strict=True):
        for name in model.laws:
            assert close(first[name], second[name], model.tolerance), (system, name)


def repeated(atoms: Atoms, matrix: list[list[int]]) -> Atoms:
    """Return a supercell under the conditions of its cell, atom k an image of atom k % len."""
    supercell = make_supercell(atoms, matrix)
    supercell.info = dict(atoms.info)
    count = len(supercell) // len(atoms)
    for name in PER_ATOM:
        if name in atoms.arrays:
            supercell.arrays.pop(name, None)
            supercell.set_array(name, np.concatenate([atoms.arrays[name]] * count))
    return supercell


@pytest.mark.parametrize("build", [tiny_crystal, alloy, slab, wire])
def test_a_supercell_is_so_many_cells(model: Potential, build) -> None:  # type: ignore[no-untyped-def]
    if build is wire and model.long_range:
        pytest.skip("there is no Ewald sum of a wire")
    atoms = neutral(model, build())
    matrix = np.eye(3, dtype=int)
    if build is wire:
        matrix[1, 1] = 4
    elif build is slab:
        matrix[:2, :2] = [[2, 1], [0, 2]]
    else:
        matrix = np.array([[2, 1, 0], [0, 1, 0], [0, -1, 2]])
    supercell = repeated(atoms, matrix.tolist())
    assert len(supercell) == 4 * len(atoms)
    small, large = model.answers([atoms, supercell])
    divided = model.long_range and model.config.ewald_width < 0.5
    tolerance = SUMMED if divided else model.tolerance
    for name in intrinsic(model):
        law = model.laws[name]
        if law.per == "atom":
            expected = torch.cat([small[name]] * 4)
        else:
            expected = small[name] * (1 if name == "stress" else 4)
        assert close(expected, large[name], tolerance), name


@pytest.mark.parametrize("build", [slab, wire])
def test_vacuum_along_an_open_direction_does_not_count(model: Potential, build) -> None:  # type: ignore[no-untyped-def]
    if build is wire and model.long_range:
        pytest.skip("there is no Ewald sum of a wire")
    thin = neutral(model, build())
    thick = thin.copy()
    thick.cell[2] = [3.0, 1.0, 60.0]
    first, second = model.answers([thin, thick])
    for name in model.laws:
        assert close(first[name], second[name], model.tolerance), name
    closed = neutral(model, slab())
    open_energy = model.energies([closed])
    closed.set_pbc(True)
    closed.cell[2, 2] = np.ptp(closed.positions[:, 2]) + 1.5  # now images do meet
    assert not close(open_energy, model.energies([closed]), 1e-3)


def test_a_molecule_in_a_large_box_is_a_molecule(model: Potential) -> None:
    """Each direction may be periodic or not, if no image is in reach."""
    if model.long_range:
        pytest.skip("images are always in reach of Coulomb's law")
    frames = []
    for pbc in ([0, 0, 0], [1, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1]):
        frames.append(neutral(model, rattled(molecule("CH3CH2OH"))))
        frames[-1].set_cell([[18, 0, 0], [2, 17, 0], [1, -2, 19]])
        frames[-1].pbc = pbc
    free, *boxed = model.answers(frames)
    for answer in boxed:
        for name in set(intrinsic(model)) - {"stress"}:
            assert close(free[name], answer[name], model.tolerance), name


@pytest.mark.parametrize("name", SHARED)
def test_a_neutral_molecule_in_a_growing_box_approaches_the_free_one(name: str) -> None:
    """Its dipole meets its images with 2 pi k p^2 / (3 V) (Makov and Payne, tin-foil boundary)."""
    model = in_double(potential(name))
    frames = [neutral(model, rattled(molecule("CH3CH2OH"))) for _ in range(3)]
    for frame, size in zip(frames[1:], (20.0, 40.0), strict=True):
        frame.set_cell([size] * 3)
        frame.pbc = True
    free, *boxed = model.energies(frames).tolist()
    first, second = (energy - free for energy in boxed)
    assert abs(first) > 1e-7
    assert first / second == pytest.approx(8.0, rel=0.15)
