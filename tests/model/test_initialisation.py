"""Every layer begins at a known size, whatever the product, the elements and the cutoff."""

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from tace_al.data.graph import AtomicGraph, batch_graphs, graph_from_atoms
from tace_al.model.config import Product, preset_config
from tace_al.model.initialisation import FEATURE_SIZE, MESSAGE_SIZE, scale_to_data
from tace_al.model.tace import Tace

STRUCTURES = {"water": molecule("H2O"), "copper": bulk("Cu", cubic=True)}


def graphs_of(atoms: Atoms, cutoff: float) -> list[AtomicGraph]:
    """Return a few shaken copies."""
    frames = []
    for seed in range(4):
        copy = atoms.copy()
        copy.rattle(0.05, seed=seed)
        frames.append(graph_from_atoms(copy, cutoff))
    return frames


def sizes(model: Tace, graphs: list[AtomicGraph]) -> list[tuple[float, float]]:
    """Return the root mean squares of each layer's messages and of what its product adds."""
    found: dict[torch.nn.Module, float] = {}

    def measure(part: torch.nn.Module, _: tuple, output: torch.Tensor) -> None:
        found[part] = float(output.detach().square().mean().sqrt())

    parts = list(zip(model.interactions, model.products, strict=True))
    handles = [part.register_forward_hook(measure) for pair in parts for part in pair]
    model.evaluate(batch_graphs(graphs), ())
    for handle in handles:
        handle.remove()
    return [(found[interaction], found[product]) for interaction, product in parts]


@pytest.mark.parametrize("product", ["spectral", "spatial", "moment"])
@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("cutoff", [3.0, 6.0])
def test_messages_and_features_start_at_unit_size(
    product: Product, name: str, cutoff: float
) -> None:
    elements = tuple(set(STRUCTURES[name].get_chemical_symbols()))
    config = preset_config(
        "tiny", elements=elements, channels=8, cutoff=cutoff, products=(product,), dtype="float64"
    )
    graphs = graphs_of(STRUCTURES[name], cutoff)
    for seed in range(3):
        model = Tace(config, seed=seed)
        scale_to_data(model, graphs)
        for message, features in sizes(model, graphs):
            assert message == pytest.approx(MESSAGE_SIZE, rel=1e-6)
            assert features == pytest.approx(FEATURE_SIZE, rel=1e-6)


def test_structures_without_neighbours_change_nothing() -> None:
    config = preset_config("tiny", elements=("H",), channels=8)
    model, same = Tace(config), Tace(config)
    scale_to_data(model, [graph_from_atoms(Atoms("H"), 5.0)])
    for one, other in zip(model.parameters(), same.parameters(), strict=True):
        assert torch.equal(one, other)
