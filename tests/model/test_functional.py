"""`torch.func` goes through the model and its compiled kernels, against plain autograd."""

from collections.abc import Callable

import pytest
import torch
from ase.build import molecule
from torch import Tensor
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap

from tace_al.data.graph import AtomicGraph, batch_graphs, graph_from_atoms
from tace_al.model.inputs import NetworkInputs
from tace_al.model.kernels import compiled
from tace_al.model.tace import Tace

pytestmark = [
    pytest.mark.skipif(compiled() is None, reason="needs a C++ compiler"),
    # PyTorch's own forward mode, at its first use
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is:DeprecationWarning"),
]
EXACT = {"rtol": 1e-9, "atol": 1e-10}
EnergyOf = Callable[[Tensor], Tensor]


def make_model(seed: int = 0) -> Tace:
    return Tace.from_preset(
        "tiny", elements=["H", "O"], seed=seed, channels=4, dtype="float64", radial_hidden=(8,)
    )


def waters() -> tuple[AtomicGraph, Tensor]:
    """Return a batch of two unlike structures and its edge vectors."""
    graphs = []
    for seed, name in enumerate(["H2O", "H2O2"]):
        atoms = molecule(name)
        atoms.rattle(0.1, seed=seed)
        graphs.append(graph_from_atoms(atoms, 5.0))
    graph = batch_graphs(graphs)
    return graph, graph.edge_vectors()


def energies(model: Tace, graph: AtomicGraph) -> tuple[EnergyOf, Tensor]:
    """Return the energies of a batch as a function of its edge vectors, and those vectors."""
    inputs = model.inputs(graph)

    def of_vectors(vectors: Tensor) -> Tensor:
        return inputs.total(model(vectors, inputs).node_energy)

    return of_vectors, graph.edge_vectors()


def energy_of_weights(
    model: Tace, inputs: NetworkInputs, weights: dict[str, Tensor], vectors: Tensor
) -> Tensor:
    """Return the energy of a batch with other weights."""
    energy: Tensor = functional_call(model, weights, (vectors, inputs)).node_energy.sum()
    return energy


def test_members_stacked_with_their_constants() -> None:
    """`stack_module_state` also stacks the tables that all members share."""
    graph, vectors = waters()
    members = [make_model(seed).requires_grad_(False) for seed in (0, 1)]
    parameters, buffers = torch.func.stack_module_state(members)
    inputs = members[0].inputs(graph)

    def site_energies(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        state = (parameters, buffers)
        energy: Tensor = functional_call(members[0], state, (vectors, inputs)).node_energy
        return energy

    together = vmap(site_energies)(parameters, buffers)
    for member, own in zip(members, together, strict=True):
        assert torch.allclose(own, member(vectors, inputs).node_energy, **EXACT)


def test_members_stacked_and_mapped() -> None:
    """Energies and forces of two sets of weights in one call of `vmap`."""
    graph, vectors = waters()
    members = [make_model(seed).requires_grad_(False) for seed in (0, 1)]
    states = [member.state_dict() for member in members]
    weights = {name: torch.stack([state[name] for state in states]) for name in states[0]}
    inputs = members[0].inputs(graph)

    def energy(weights: dict[str, Tensor], own: Tensor) -> Tensor:
        return energy_of_weights(members[0], inputs, weights, own)

    together = vmap(energy, in_dims=(0, None))(weights, vectors)
    slopes = vmap(grad(energy, argnums=1), in_dims=(0, None))(weights, vectors)
    for index, member in enumerate(members):
        own = vectors.clone().requires_grad_()
        expected = member(own, inputs).node_energy.sum()
        (slope,) = torch.autograd.grad(expected, own)
        assert torch.allclose(together[index], expected, **EXACT)
        assert torch.allclose(slopes[index], slope, **EXACT)


def test_gradients_by_the_weights() -> None:
    model = make_model()
    graph, vectors = waters()
    inputs = model.inputs(graph)
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    found = grad(lambda own: energy_of_weights(model, inputs, own, vectors))(weights)
    energy = model(vectors, inputs).node_energy.sum()
    expected = torch.autograd.grad(
        energy, list(model.parameters()), allow_unused=True, materialize_grads=True
    )
    for name, gradient in zip(weights, expected, strict=True):
        assert torch.allclose(found[name], gradient, **EXACT), name
    assert sum(float(gradient.abs().sum()) for gradient in expected) > 1.0


def test_weights_learn_from_forces_through_func() -> None:
    """The gradient of a loss of forces by the weights: grad within grad."""
    model = make_model()
    graph, vectors = waters()
    inputs = model.inputs(graph)
    weights = {name: weight.detach() for name, weight in model.named_parameters()}

    def loss(own: dict[str, Tensor]) -> Tensor:
        slopes = grad(lambda r: energy_of_weights(model, inputs, own, r))(vectors)
        return slopes.square().sum()

    found = grad(loss)(weights)
    own = vectors.clone().requires_grad_()
    energy = model(own, inputs).node_energy.sum()
    (slopes,) = torch.autograd.grad(energy, own, create_graph=True)
    expected = torch.autograd.grad(
        slopes.square().sum(), list(model.parameters()), allow_unused=True, materialize_grads=True
    )
    for name, gradient in zip(weights, expected, strict=True):
        assert torch.allclose(found[name], gradient, **EXACT), name


def test_jacobians_of_energies_by_edge_vectors() -> None:
    """Rows of `jacrev` and of `jacfwd`, and products with a tangent by `jvp`."""
    graph, _ = waters()
    of_vectors, vectors = energies(make_model().requires_grad_(False), graph)
    own = vectors.clone().requires_grad_()
    rows = [
        torch.autograd.grad(energy, own, retain_graph=True)[0]
        for energy in of_vectors(own).unbind()
    ]
    expected = torch.stack(rows)
    assert torch.allclose(jacrev(of_vectors)(vectors), expected, **EXACT)
    assert torch.allclose(jacfwd(of_vectors)(vectors), expected, **EXACT)
    generator = torch.Generator().manual_seed(0)
    tangent = torch.randn(vectors.shape, generator=generator, dtype=torch.float64)
    values, along = jvp(of_vectors, (vectors,), (tangent,))
    assert torch.allclose(values, of_vectors(vectors), **EXACT)
    assert torch.allclose(along, (expected * tangent).sum(dim=(1, 2)), **EXACT)
    assert expected.abs().max() > 1e-3


HESSIANS = {
    "forward over reverse": lambda energy: jacfwd(grad(energy)),
    "reverse over reverse": lambda energy: jacrev(jacrev(energy)),
    "torch.func.hessian": hessian,
}


@pytest.mark.parametrize("way", HESSIANS)
def test_hessians_by_vmap(way: str) -> None:
    """Second derivatives by edge vectors, rows mapped over, against autograd row by row."""
    atoms = molecule("H2O")
    atoms.rattle(0.1, seed=3)
    graph = graph_from_atoms(atoms, 5.0)
    of_vectors, vectors = energies(make_model().requires_grad_(False), graph)

    def energy(flat: Tensor) -> Tensor:
        return of_vectors(flat.view_as(vectors)).sum()

    flat = vectors.flatten()
    found = HESSIANS[way](energy)(flat)
    own = flat.clone().requires_grad_()
    (slope,) = torch.autograd.grad(energy(own), own, create_graph=True)
    rows = [torch.autograd.grad(part, own, retain_graph=True)[0] for part in slope.unbind()]
    expected = torch.stack(rows)
    assert torch.allclose(found, expected, **EXACT)
    assert torch.allclose(found, found.T, **EXACT) and expected.abs().max() > 1e-3
