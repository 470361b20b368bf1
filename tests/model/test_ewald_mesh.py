"""The mesh sum against the sum over k."""

import builtins
import sys

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from tace_al.core.errors import ModelError
from tace_al.model.ewald import ewald_energy
from tace_al.model.ewald_mesh import mesh_ewald_energy


def batch(structures: list[Atoms], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, dict]:
    rng = np.random.default_rng(seed)
    positions = np.concatenate([atoms.positions for atoms in structures])
    rest = {
        "cells": torch.tensor(np.stack([atoms.cell.array for atoms in structures])),
        "pbc": torch.tensor(np.stack([atoms.pbc for atoms in structures])),
        "system_index": torch.tensor(
            np.repeat(np.arange(len(structures)), [len(atoms) for atoms in structures])
        ),
    }
    charges = torch.tensor(rng.normal(scale=0.5, size=len(positions)))
    return torch.tensor(positions), charges, rest


def strained_crystal() -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    strain = np.eye(3) + 0.1 * np.random.default_rng(1).normal(size=(3, 3))
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    atoms.rattle(0.2, seed=2)
    return atoms


def test_energies_forces_and_cell_gradients_are_those_of_the_sum() -> None:
    pytest.importorskip("torchpme")
    slab = strained_crystal()
    slab.pbc = (True, True, False)
    water = molecule("H2O")
    water.pbc = False
    positions, charges, rest = batch([strained_crystal(), water, slab])
    results = []
    for options in (None, {"mesh_from": 4}):
        leaves = [positions.clone().requires_grad_(), charges.clone().requires_grad_()]
        cells = rest["cells"].clone().requires_grad_()
        inputs = {**rest, "cells": cells}
        if options is None:
            energy = ewald_energy(*leaves, **inputs)
        else:
            energy = mesh_ewald_energy(*leaves, **inputs, **options)
        gradients = torch.autograd.grad(energy.sum(), [*leaves, cells], create_graph=True)
        (second,) = torch.autograd.grad(gradients[0].square().sum(), leaves[0])
        results.append([energy, *gradients, second])
    for exact, mesh in zip(*results, strict=True):
        error = (mesh - exact).abs().max() / exact.abs().max()
        assert error.item() < 2e-5
    assert (results[0][0] != results[1][0])[:8].all()  # the crystal took the mesh
    assert torch.equal(results[0][0][8:11], results[1][0][8:11])  # the molecule did not


def test_small_structures_take_the_exact_sum() -> None:
    positions, charges, rest = batch([strained_crystal()])
    exact = ewald_energy(positions, charges, **rest)
    assert torch.equal(mesh_ewald_energy(positions, charges, **rest), exact)


def test_without_torch_pme_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real_import = builtins.__import__

    def no_torchpme(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("torchpme"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.startswith("torchpme")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", no_torchpme)
    positions, charges, rest = batch([strained_crystal()])
    with pytest.raises(ModelError, match="pip install"):
        mesh_ewald_energy(positions, charges, **rest, mesh_from=0)


def test_sharp_charges_are_refused() -> None:
    positions, charges, rest = batch([strained_crystal()])
    with pytest.raises(ModelError, match="too sharp"):
        mesh_ewald_energy(positions, charges, **rest, sigma=0.2)
