"""The compiled geometry is that of the network's modules, values and gradients."""

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from tace_al.core.errors import ModelError
from tace_al.data.graph import batch_graphs, graph_from_atoms
from tace_al.model.edges import compiled_edge_functions, edge_functions
from tace_al.model.inputs import NetworkInputs
from tace_al.model.kernels import EdgeSlots, compiled
from tace_al.model.tace import Tace

pytestmark = pytest.mark.skipif(compiled() is None, reason="needs a C++ compiler")


def clash() -> Atoms:
    """Return atoms well within each other's repulsion, an image of one and a lone one."""
    return Atoms("OHCu", [[0, 0, 0], [0.3, 0.2, 0.1], [0, 1.1, 0]], cell=[3, 9, 9], pbc=[1, 0, 0])


def batch():
    copper = bulk("Cu", cubic=True)
    copper.rattle(0.2, seed=1)
    frames = [molecule("H2O"), copper, clash(), Atoms("H")]
    return batch_graphs([graph_from_atoms(frame, 4.0) for frame in frames])


@pytest.mark.parametrize("options", [{}, {"l_edge": 4, "cutoff_power": 6}, {"zbl": False}])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_values_and_gradients(options: dict, dtype: torch.dtype) -> None:
    name = {torch.float64: "float64", torch.float32: "float32"}[dtype]
    model = Tace.from_preset(
        "tiny", elements=["H", "O", "Cu"], cutoff=4.0, dtype=name, channels=4, **options
    )
    graph = batch()
    inputs = model.inputs(graph)
    filled = (inputs.edges < len(graph.sender)).flatten()
    error = 1e-12 if dtype == torch.float64 else 1e-5
    found = []
    for of_edges in (edge_functions, compiled_edge_functions):
        vectors = graph.edge_vectors().to(dtype).requires_grad_()
        edges = of_edges(model, vectors, inputs)
        harmonics = edges.harmonics.transpose(-2, -1).flatten(0, 1)[filled]
        repulsion = torch.zeros(1) if edges.repulsion is None else edges.repulsion
        values = [edges.r[filled], harmonics, edges.coordination, repulsion]
        generator = torch.Generator().manual_seed(0)
        loss = sum(
            (value * torch.randn(value.shape, generator=generator).to(value)).sum()
            for value in values
        )
        found.append([*values, *torch.autograd.grad(loss, vectors)])
    for slow, fast in zip(*found, strict=True):
        assert torch.allclose(slow, fast, rtol=error, atol=error * slow.detach().abs().max().item())
    assert model.zbl is None or found[0][3].detach().max().item() > 1.0


def test_members_lie_on_a_leading_axis() -> None:
    model = Tace.from_preset("tiny", elements=["H", "O", "Cu"], cutoff=4.0, channels=4)
    graph = batch()
    inputs = model.inputs(graph)
    vectors = graph.edge_vectors().float() * torch.tensor([0.9, 1.0, 1.05])[:, None, None]
    together = compiled_edge_functions(model, vectors.requires_grad_(), inputs)
    (gradient,) = torch.autograd.grad(together.harmonics.square().sum(), vectors)
    for member, own in enumerate(vectors.detach()):
        alone = compiled_edge_functions(model, own.requires_grad_(), inputs)
        (by_own,) = torch.autograd.grad(alone.harmonics.square().sum(), own)
        assert torch.equal(together.r[member], alone.r)
        assert torch.equal(together.coordination[member], alone.coordination)
        assert torch.equal(gradient[member], by_own)


def test_a_species_that_is_not_there() -> None:
    model = Tace.from_preset("tiny", elements=["H", "O", "Cu"], cutoff=4.0, channels=4)
    graph = graph_from_atoms(molecule("H2O"), 4.0)
    inputs = model.inputs(graph)
    slots = EdgeSlots(
        edges=inputs.edges,
        receiver_species=inputs.groups.species + 3,
        sender_species=inputs.sender_species,
    )
    with pytest.raises(IndexError, match="species that the repulsion does not know"):
        model.geometry(graph.edge_vectors().float(), slots)


def test_no_edges_at_all() -> None:
    model = Tace.from_preset("tiny", elements=["H", "O", "Cu"], cutoff=4.0, channels=4)
    graph = graph_from_atoms(Atoms("H"), 4.0)
    vectors = graph.edge_vectors().float().requires_grad_()
    edges = compiled_edge_functions(model, vectors, model.inputs(graph))
    (gradient,) = torch.autograd.grad(edges.coordination.sum(), vectors)
    assert edges.coordination.tolist() == [0.0] and gradient.shape == (0, 3)


def values_of(
    model: Tace, vectors: torch.Tensor, inputs: NetworkInputs
) -> tuple[torch.Tensor, ...]:
    edges = compiled_edge_functions(model, vectors, inputs)
    assert edges.repulsion is not None
    return edges.r, edges.harmonics, edges.coordination, edges.repulsion


def double_model() -> Tace:
    return Tace.from_preset(
        "tiny", elements=["H", "O", "Cu"], cutoff=4.0, channels=4, dtype="float64"
    )


def test_many_cotangents_at_the_same_vectors() -> None:
    model, graph = double_model(), batch()
    inputs = model.inputs(graph)
    vectors = graph.edge_vectors().requires_grad_()
    values = values_of(model, vectors, inputs)
    generator = torch.Generator().manual_seed(1)
    cotangents = tuple(
        torch.randn(3, *value.shape, generator=generator, dtype=torch.float64) for value in values
    )
    cotangents = (cotangents[0][0], *cotangents[1:])  # one is shared
    axes = (None, 0, 0, 0)

    def gradient(*given: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(values, vectors, given, retain_graph=True)[0]

    together = torch.func.vmap(gradient, in_dims=axes)(*cotangents)
    for member in range(3):
        own = (cotangents[0], *(cotangent[member] for cotangent in cotangents[1:]))
        assert torch.allclose(together[member], gradient(*own), rtol=1e-12, atol=1e-12)


def test_torch_func_goes_through() -> None:
    """Gradients mapped over members that have vectors of their own, and Jacobians of each."""
    model, graph = double_model(), batch()
    inputs = model.inputs(graph)
    scales = torch.tensor([0.9, 1.0, 1.1], dtype=torch.float64)
    members = scales[:, None, None] * graph.edge_vectors()

    def coordination(vectors: torch.Tensor) -> torch.Tensor:
        return values_of(model, vectors, inputs)[2]

    def total(vectors: torch.Tensor) -> torch.Tensor:
        return coordination(vectors).square().sum()

    together = torch.func.vmap(torch.func.grad(total))(members)
    jacobians = torch.func.vmap(torch.func.jacrev(coordination))(members)
    for member, vectors in enumerate(members):
        own = vectors.clone().requires_grad_()
        values = coordination(own)
        (gradient,) = torch.autograd.grad(values.square().sum(), own)
        assert torch.allclose(together[member], gradient, rtol=1e-12, atol=1e-12)
        chain = torch.einsum("i,iea->ea", 2 * values.detach(), jacobians[member])
        assert torch.allclose(chain, gradient, rtol=1e-12, atol=1e-12)


def test_second_derivatives_are_refused() -> None:
    model, graph = double_model(), batch()
    vectors = graph.edge_vectors().requires_grad_()
    coordination = values_of(model, vectors, model.inputs(graph))[2]
    (gradient,) = torch.autograd.grad(coordination.sum(), vectors, create_graph=True)
    with pytest.raises(ModelError, match="differentiated once"):
        torch.autograd.grad(gradient.sum(), vectors)
