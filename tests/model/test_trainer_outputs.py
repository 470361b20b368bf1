"""Any output is a training target: dipoles, polarisabilities, Born charges, magnetic forces.

The labels are those of two small models with exact derivatives: bonds with charges that flow as
they stretch and polarisabilities along and across them, and spins with an exchange that falls off
with the distance.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.symbols import Symbols
from scipy.spatial.transform import Rotation
from torch import Tensor

from tace_al.core.errors import ConfigError, TrainingError
from tace_al.data.graph import graph_from_atoms
from tace_al.model.config import TaceConfig, TensorOutput, preset_config
from tace_al.model.evaluation import evaluate
from tace_al.model.loss import LossWeights
from tace_al.model.trainer import TrainingOptions, train

BASE = preset_config(
    "tiny", elements=("H", "N", "O"), channels=8, radial_hidden=(16,), cutoff=3.0, zbl=False
)
DIRECT = replace(
    BASE,
    outputs=(
        TensorOutput(name="dipole", rank=1),
        TensorOutput(name="polarizability", rank=2, symmetry="ij=ji"),
    ),
)
CONSERVATIVE = replace(BASE, embeddings=("electric_field",))
CHARGED = replace(BASE, charges="uniform", embeddings=("total_charge",))


def bond_dipole(positions: Tensor, symbols: Symbols) -> Tensor:
    """Return sum q(r) b over the bonds b of a central atom, in e Angstrom."""
    flow = {"O": 0.35, "N": 0.25}[symbols[0]]
    bonds = positions[1:] - positions[0]
    r = bonds.norm(dim=1, keepdim=True)
    return (flow * (1.0 + 1.5 * (r - 1.0)) * bonds).sum(dim=0)


def bond_polarizability(positions: Tensor, symbols: Symbols) -> Tensor:
    """Return sum a(r) 1 + c(r) (b b - 1/3) over the bonds, in e Angstrom^2/V."""
    size = {"O": 0.04, "N": 0.06}[symbols[0]]
    bonds = positions[1:] - positions[0]
    r = bonds.norm(dim=1)[:, None, None]
    unit = bonds[:, :, None] * bonds[:, None, :] / r**2 - torch.eye(3).double() / 3
    return (size * (r * torch.eye(3).double() + 0.8 * r**2 * unit)).sum(dim=0)


def polar_molecules(num_frames: int, seed: int, *labels: str) -> list[Atoms]:
    """Return turned, distorted waters and ammonias with labels of the bond model."""
    rng = np.random.default_rng(seed)
    frames = []
    for index in range(num_frames):
        atoms = molecule(("H2O", "NH3")[index % 2])
        turn = Rotation.random(random_state=int(rng.integers(1 << 30))).as_matrix()
        atoms.positions = atoms.positions @ turn.T + rng.normal(scale=0.06, size=(len(atoms), 3))
        x = torch.tensor(atoms.positions)
        derivative = torch.func.jacrev(lambda x: bond_dipole(x, atoms.symbols))(x)  # noqa: B023
        values = {
            "dipole": bond_dipole(x, atoms.symbols),
            "polarizability": bond_polarizability(x, atoms.symbols),
            "born_charges": derivative.permute(1, 0, 2),  # (atoms, of the dipole, of the atom)
        }
        for name in labels:
            place = atoms.arrays if name == "born_charges" else atoms.info
            place[f"REF_{name}"] = values[name].numpy()
        atoms.info["total_charge"] = 0
        frames.append(atoms)
    return frames


def trivial(frames: list[Atoms], name: str) -> float:
    """Return the root mean square of an output without what is the same for all directions."""
    place = [(atoms.arrays if name == "born_charges" else atoms.info) for atoms in frames]
    values = np.concatenate(
        [np.reshape(p[f"REF_{name}"], (-1, 3 ** (name != "dipole"), 3)) for p in place]
    )
    if name != "dipole":
        values = values - np.eye(3) * np.trace(values, axis1=1, axis2=2).mean() / 3
    return float(np.sqrt(np.mean(values**2)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("config", [DIRECT, CONSERVATIVE], ids=["direct", "conservative"])
def test_dipoles_and_polarizabilities_are_learnt(config: TaceConfig, seed: int) -> None:
    labels = ("dipole", "polarizability")
    frames, held_out = polar_molecules(60, 10 + seed, *labels), polar_molecules(30, 99, *labels)
    options = TrainingOptions(epochs=35, batch_size=5, learning_rate=0.02, seed=seed)
    result = train(frames, held_out[:10], config=config, options=options)
    errors = evaluate(result.model, held_out[10:]).others
    for name in labels:
        assert errors[name][0] < 0.2 * trivial(held_out, name), (name, errors)
    assert set(result.history[-1].validation_errors) == set(labels)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [replace(BASE, outputs=DIRECT.outputs[:1]), CONSERVATIVE, CHARGED],
    ids=["of a direct dipole", "of the field", "of charges"],
)
def test_born_charges_are_learnt(config: TaceConfig) -> None:
    labels = ("dipole", "born_charges")
    frames, held_out = polar_molecules(40, 0, *labels), polar_molecules(20, 99, *labels)
    options = TrainingOptions(epochs=25, batch_size=5, learning_rate=0.02)
    result = train(frames, [], config=config, options=options)
    errors = evaluate(result.model, held_out).others
    assert errors["born_charges"][0] < 0.3 * trivial(held_out, "born_charges"), errors
    assert errors["dipole"][0] < 0.3 * trivial(held_out, "dipole"), errors
    graph = graph_from_atoms(held_out[0], config.cutoff, config.conditions)
    born = result.model.evaluate(graph, ("born_charges",))["born_charges"]
    assert torch.allclose(born.sum(dim=0), torch.zeros(3, 3).to(born), atol=1e-4), "neutral"


def spins(num_frames: int, seed: int) -> list[Atoms]:
    """Return iron trimers with energies and magnetic forces of a Heisenberg-Landau model."""
    rng = np.random.default_rng(seed)

    def energy(moments: Tensor, positions: Tensor) -> Tensor:
        pairs = torch.pdist(positions)
        dots = torch.stack([moments[i] @ moments[j] for i, j in ((0, 1), (0, 2), (1, 2))])
        sizes = moments.square().sum(dim=1)
        return -(0.05 * torch.exp(-(pairs - 2.2)) * dots).sum() + (0.01 * (sizes - 4.0) ** 2).sum()

    frames = []
    for _ in range(num_frames):
        triangle = np.array([[0.0, 0, 0], [2.2, 0, 0], [1.1, 1.9, 0]])
        atoms = Atoms("Fe3", triangle + rng.normal(scale=0.1, size=(3, 3)))
        moments = rng.normal(size=(3, 3))
        moments *= rng.uniform(1.5, 2.5, size=(3, 1)) / np.linalg.norm(moments, axis=1)[:, None]
        atoms.set_array("magnetic_moments", moments)
        m, x = torch.tensor(moments, requires_grad=True), torch.tensor(atoms.positions)
        value = energy(m, x)
        (gradient,) = torch.autograd.grad(value, m)
        atoms.info["REF_energy"] = value.item()
        atoms.set_array("REF_magnetic_forces", -gradient.numpy())
        frames.append(atoms)
    return frames


@pytest.mark.slow
def test_magnetic_forces_are_learnt() -> None:
    config = replace(BASE, elements=("Fe",), embeddings=("magnetic_moments",), cutoff=4.0)
    frames, held_out = spins(60, 0), spins(30, 99)
    options = TrainingOptions(epochs=25, batch_size=5, learning_rate=0.02)
    result = train(frames, [], config=config, options=options)
    errors = evaluate(result.model, held_out)
    labels = np.concatenate([atoms.arrays["REF_magnetic_forces"] for atoms in held_out])
    energies = np.array([atoms.info["REF_energy"] for atoms in held_out]) / 3
    assert errors.others["magnetic_forces"][0] < 0.3 * np.sqrt(np.mean(labels**2)), errors
    assert errors.energy_rmse_mev_per_atom < 0.3 * 1e3 * energies.std(), errors


BRIEF = TrainingOptions(epochs=2, batch_size=4, learning_rate=0.005)


@pytest.mark.parametrize("config", [DIRECT, CONSERVATIVE], ids=["direct", "conservative"])
def test_frames_without_energies_train(config: TaceConfig) -> None:
    frames = polar_molecules(8, 0, "dipole")
    result = train(frames, frames, config=config, options=BRIEF)
    assert 0 < result.history[-1].training_loss < math.inf
    metrics = evaluate(result.model, frames).to_dict()
    assert {"dipole_rmse", "dipole_mae", "num_structures"} == set(metrics)


def test_each_structure_counts_for_the_labels_it_has() -> None:
    both = polar_molecules(4, 0, "dipole", "polarizability")
    one, other = polar_molecules(4, 1, "dipole"), polar_molecules(4, 2, "polarizability")
    result = train([*both, *one, *other], [], config=DIRECT, options=BRIEF)
    assert all(math.isfinite(p.abs().sum().item()) for p in result.model.parameters())
    first = evaluate(result.model, [*both, *one, *other]).others["dipole"]
    assert first == pytest.approx(evaluate(result.model, [*both, *one]).others["dipole"])


def test_an_output_of_weight_zero_is_not_learnt() -> None:
    frames = polar_molecules(8, 0, "dipole", "polarizability")
    options = replace(BRIEF, weights=LossWeights(others={"polarizability": 0.0}))
    result = train(frames, [], config=DIRECT, options=options)
    learnt = dict(result.model.tensor_readouts["dipole"].named_parameters())
    assert learnt, "the readout has weights"
    only = train(polar_molecules(8, 0, "dipole"), [], config=DIRECT, options=BRIEF)
    for name, parameter in only.model.tensor_readouts["dipole"].named_parameters():
        assert torch.allclose(parameter, learnt[name], atol=1e-6), name


def test_what_cannot_be_learnt_is_refused() -> None:
    frames = polar_molecules(4, 0, "dipole")
    with pytest.raises(TrainingError, match="REF_dipole"):
        train(frames, [], config=BASE, options=BRIEF)
    weights = LossWeights(others={"dipol": 1.0})
    with pytest.raises(ConfigError, match="Did you mean 'dipole'"):
        train(frames, [], config=DIRECT, options=replace(BRIEF, weights=weights))
    with pytest.raises(ConfigError, match="weight of dipole is -1"):
        LossWeights(others={"dipole": -1.0})
