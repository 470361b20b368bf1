"""The network as a whole: what it refuses, how it is built, and what its options leave alone."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from tace_al.core.errors import ModelError
from tace_al.data.graph import batch_graphs, graph_from_atoms
from tace_al.model.tace import Tace


def make_model(**options: object) -> Tace:
    settings = {"channels": 8, "dtype": "float64", "seed": 1} | options
    return Tace.from_preset("tiny", elements=["H", "C", "O", "Cu"], **settings)


def test_a_seed_gives_one_network_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = make_model(seed=1), make_model(seed=1), make_model(seed=2)
    assert torch.equal(torch.rand(3), expected)
    for name, tensor in first.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    assert not torch.equal(other.embedding, first.embedding)


def test_threads_that_build_networks_at_once_get_those_of_their_seeds() -> None:
    seeds = list(range(4)) * 4
    alone = [make_model(seed=seed).state_dict() for seed in seeds[:4]]
    with ThreadPoolExecutor(4) as pool:
        together = pool.map(lambda seed: make_model(seed=seed).state_dict(), seeds)
        for seed, weights in zip(seeds, together, strict=True):
            assert all(torch.equal(weights[name], alone[seed][name]) for name in weights)


def test_unknown_elements_are_named() -> None:
    graph = graph_from_atoms(molecule("NH3"), 5.0)
    with pytest.raises(ModelError, match=r"\[7\] are unknown.*H, C, O, Cu"):
        make_model().evaluate(graph)


def test_unknown_heads_and_dtypes_are_named() -> None:
    model = make_model(heads=("gfn2", "pbe"))
    with pytest.raises(ModelError, match="no head 'scan'; this model has gfn2, pbe"):
        model.head("scan")
    with pytest.raises((ModelError, TypeError), match="float16"):
        model.as_dtype("float16")  # type: ignore[arg-type]


def test_heads_have_their_own_numbers() -> None:
    model, graph = make_model(heads=("gfn2", "pbe")), graph_from_atoms(molecule("H2O"), 5.0)
    assert model.evaluate(graph).energy == model.evaluate(graph, head="gfn2").energy
    assert model.evaluate(graph).energy != model.evaluate(graph, head="pbe").energy


def test_float32_is_close_to_float64() -> None:
    model = make_model(channels=32).as_dtype("float32")
    graph = graph_from_atoms(molecule("CH3CH2OH"), 5.0)
    single, double = model.evaluate(graph), model.as_dtype("float64").evaluate(graph)
    assert single.energy.dtype == torch.float64
    assert single.forces.dtype == torch.float32
    scale = double.forces.abs().max()
    assert torch.allclose(single.forces.double(), double.forces, atol=2e-5 * scale.item())
    assert torch.allclose(single.energy, double.energy, atol=2e-5 * scale.item())


def test_as_dtype_is_a_copy() -> None:
    model = make_model()
    model.metadata = {"seed": 1}
    copy = model.as_dtype("float32")
    assert copy.metadata == model.metadata
    assert copy.config.dtype == "float32"
    assert model.embedding.dtype == torch.float64


def test_every_layer_gives_invariant_descriptors() -> None:
    model = make_model(num_layers=3)
    output = model.evaluate(graph_from_atoms(molecule("H2O"), 5.0))
    assert output.descriptors.shape == (3, 3 * 8)


@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 1},
        {"num_layers": 3, "l_hidden": 2},
        {"l_hidden": 0},
        {"l_edge": 3, "l_hidden": 2},
        {"correlation": 1},
        {"correlation": 2},
        {"correlation": 4},
        {"radial_hidden": ()},
        {"zbl": False},
        {"l_edge": 0, "l_hidden": 0},
    ],
    ids=str,
)
def test_any_shape_gives_forces_that_are_gradients(options: dict) -> None:
    model, atoms = make_model(**options), molecule("CH3OH")
    forces = model.evaluate(graph_from_atoms(atoms, 5.0)).forces.detach().numpy()
    step = 1e-5
    for atom, axis in ((0, 0), (3, 2)):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * step
            energies.append(model.evaluate(graph_from_atoms(moved, 5.0)).energy.item())
        numerical = -(energies[0] - energies[1]) / (2 * step)
        assert forces[atom, axis] == pytest.approx(numerical, abs=1e-6 * np.abs(forces).max())


def test_only_structures_with_a_volume_have_a_stress() -> None:
    model = make_model()
    graph = batch_graphs(
        [graph_from_atoms(molecule("H2O"), 5.0), graph_from_atoms(bulk("Cu"), 5.0)]
    )
    stress = model.evaluate(graph, ("stress",)).stress
    assert torch.isnan(stress[0]).all()
    assert torch.isfinite(stress[1]).all()
    assert torch.allclose(stress[1], stress[1].T, atol=1e-14)


def test_a_lone_atom_has_no_force() -> None:
    output = make_model().evaluate(graph_from_atoms(Atoms("O"), 5.0))
    assert output.forces.tolist() == [[0.0, 0.0, 0.0]]
    assert output.energy.item() == 0.0


def test_close_atoms_repel_even_untrained() -> None:
    close = Atoms("CC", positions=[[0, 0, 0], [0, 0, 0.4]])
    forces = make_model().evaluate(graph_from_atoms(close, 5.0)).forces
    assert forces[1, 2] > 50 > -50 > forces[0, 2]


def test_an_untrained_network_speaks_in_the_order_of_its_scale() -> None:
    """Unit-variance initialisation: site energies of several eV, not thousands."""
    for seed in range(3):
        model = make_model(channels=64, seed=seed, zbl=False, average_neighbours=8.0)
        energy = model.evaluate(graph_from_atoms(molecule("CH3CH2OH"), 5.0)).node_energy
        assert 0.05 < energy.square().mean().sqrt().item() < 30
    assert not math.isnan(energy.sum().item())
