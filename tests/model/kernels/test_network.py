"""The compiled whole of a network is its modules: energies, descriptors and gradients."""

import os
from dataclasses import replace

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from tace_al.core.errors import ModelError
from tace_al.data.graph import AtomicGraph, batch_graphs, graph_from_atoms
from tace_al.model.kernels import AtomSlots, NetworkKernel, compiled
from tace_al.model.network_weights import network_kernel
from tace_al.model.radial_splines import radial_splines
from tace_al.model.tace import Tace

pytestmark = pytest.mark.skipif(compiled() is None, reason="needs a C++ compiler")

ELEMENTS = ["H", "C", "O", "Cu"]
CUTOFF = 4.0
ERRORS = {"float64": 1e-12, "float32": 1e-5}


def frames() -> list[Atoms]:
    """Return molecules, a crystal of one atom, a clash, a lone atom and a pair at the cutoff."""
    clash = Atoms("OHCu", [[0, 0, 0], [0.3, 0.2, 0.1], [0, 1.1, 0]], cell=[3, 9, 9], pbc=[1, 0, 0])
    pair = Atoms("HO", [[0, 0, 0], [0, 0, 3.9]])
    return [molecule("CH3CH2OH"), molecule("H2O"), bulk("Cu"), clash, Atoms("H"), pair]


def batch(atoms: list[Atoms]) -> AtomicGraph:
    return batch_graphs([graph_from_atoms(frame, CUTOFF) for frame in atoms])


def network(seed: int = 0, **options: object) -> Tace:
    """Return a network of which every weight and constant acts."""
    small = {"cutoff": CUTOFF, "channels": 16, "radial_hidden": (8,), "dtype": "float64"}
    model = Tace.from_preset("tiny", elements=ELEMENTS, seed=seed, **{**small, **options})
    generator = torch.Generator().manual_seed(seed)
    head = model.head()
    with torch.no_grad():
        for tensor in (*model.parameters(), head.e0, head.scale, head.shift):
            tensor.add_(0.3 * torch.randn(tensor.shape, generator=generator).to(tensor))
    return model


def answers(call, vectors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return energies, descriptors, and the gradient of a random sum of both."""
    vectors = vectors.detach().clone().requires_grad_()
    energy, descriptors = call(vectors)
    generator = torch.Generator().manual_seed(1)
    total = sum(
        (values * torch.randn(values.shape[-2:], generator=generator).to(values)).sum()
        for values in (energy[..., None], descriptors)
    )
    (gradient,) = torch.autograd.grad(total, vectors)
    return energy.detach(), descriptors.detach(), gradient


def derived(kernel: NetworkKernel, slots: AtomSlots, vectors: torch.Tensor) -> list[torch.Tensor]:
    """Return energies, descriptors and the gradient of their sum, by vectors as they lie."""
    given = vectors.detach().requires_grad_()
    energy, descriptors = kernel(given, slots)
    (gradient,) = torch.autograd.grad(energy.sum() + descriptors.sum(), given)
    return [energy.detach(), descriptors.detach(), gradient]


def close(found: torch.Tensor, expected: torch.Tensor, error: float) -> bool:
    size = float(expected.abs().max()) if expected.numel() else 0.0
    return torch.allclose(found, expected, rtol=0.0, atol=error * size)


def compare(model: Tace, atoms: list[Atoms]) -> None:
    graph = batch(atoms)
    (splines,) = radial_splines([model])
    kernel = network_kernel([model], [splines])
    assert kernel is not None
    inputs = model.inputs(graph)
    vectors = graph.edge_vectors().to(model.embedding.dtype)
    expected = answers(lambda v: model(v, inputs, (), splines)[:2], vectors)
    found = answers(lambda v: kernel(v, inputs.slots), vectors)
    for fast, slow in zip(found, expected, strict=True):
        assert fast.dtype == slow.dtype
        assert close(fast, slow, ERRORS[model.config.dtype])


OPTIONS = [
    {},
    {"channels": 5},
    {"channels": (8, 20), "l_edge": 3, "l_hidden": 2, "correlation": 2},
    {"residual": "message", "bias": True},
    {"bias": True, "correlation": 1, "readout_width": 5, "zbl": False},
    {"num_layers": 1, "first_layer_residual": False},
    {"num_layers": 3, "channels": (6, 40, 16), "l_hidden": 0, "cutoff_power": 7},
    {"l_edge": 0, "l_hidden": 0},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_values_and_gradients(options: dict, dtype: str) -> None:
    compare(network(**options, dtype=dtype), frames())


@pytest.mark.parametrize("atoms", [[Atoms("O")], [bulk("Cu")], [Atoms("H"), Atoms("C")]])
def test_few_edges_or_none(atoms: list[Atoms]) -> None:
    compare(network(), atoms)


def test_members_answer_as_if_alone() -> None:
    members = [network(seed, average_neighbours=8.0 + seed) for seed in range(3)]
    splines = radial_splines(members)
    graph = batch(frames())
    inputs = members[0].inputs(graph)
    vectors = graph.edge_vectors() * torch.tensor([0.95, 1.0, 1.03])[:, None, None].double()
    together = network_kernel(members, splines)
    assert together is not None
    joined = answers(lambda v: together(v, inputs.slots), vectors)
    for index, (member, own) in enumerate(zip(members, splines, strict=True)):
        expected = answers(lambda v, m=member, s=own: m(v, inputs, (), s)[:2], vectors[index])
        for values, alone in zip(joined, expected, strict=True):
            assert close(values[index], alone, 1e-12)
        single = answers(lambda v, i=index: together.of_member(i)(v, inputs.slots), vectors[index])
        assert torch.equal(single[0], joined[0][index])


def test_members_that_share_their_vectors_answer_as_if_they_did_not() -> None:
    members = [network(seed) for seed in range(3)]
    kernel = network_kernel(members, radial_splines(members))
    assert kernel is not None
    graph = batch(frames())
    slots, vectors = members[0].inputs(graph).slots, graph.edge_vectors()
    shared = vectors.expand(3, *vectors.shape)

    both = (derived(kernel, slots, copies) for copies in (shared, shared.clone()))
    for one, other in zip(*both, strict=True):
        assert one.shape == other.shape
        assert torch.equal(one, other)


@pytest.mark.parametrize("threads", [2, 3, 16])
def test_threads_change_no_number(threads: int) -> None:
    members = [network(seed) for seed in range(2)]
    graph = batch([*frames(), Atoms("O"), molecule("CH4")])
    slots, vectors = members[0].inputs(graph).slots, graph.edge_vectors()
    splines = radial_splines(members)
    shared, cores = vectors.expand(2, *vectors.shape), os.sched_getaffinity(0)
    for copies in (shared, shared.clone()):
        kernel = network_kernel(members, splines)
        assert kernel is not None
        alone = derived(kernel, slots, copies)
        kernel.threads = threads
        together = derived(kernel, slots, copies)
        for one, other in zip(alone, together, strict=True):
            assert torch.equal(one, other)
    assert os.sched_getaffinity(0) == cores  # only the new threads are sent elsewhere


def test_edges_between_structures_are_refused() -> None:
    model = network()
    graph = batch(frames())
    slots = model.inputs(graph).slots
    kernel = network_kernel([model], radial_splines([model]))
    assert kernel is not None
    wrong = replace(slots, system_index=torch.arange(graph.num_atoms), num_systems=graph.num_atoms)
    with pytest.raises(IndexError, match="structures"):
        kernel(graph.edge_vectors(), wrong)


HEADS = ("a", "b", "c")


@pytest.mark.parametrize("options", [{}, {"num_layers": 3, "channels": (6, 40, 16)}])
def test_heads_of_one_network(options: dict) -> None:
    """Each head is what the modules say; their gradients one by one, or that of their sum."""
    model = network(heads=HEADS, **options)
    generator = torch.Generator().manual_seed(2)
    for name in HEADS:
        for tensor in (*model.head(name).parameters(), *model.head(name).buffers()):
            tensor.data.add_(0.3 * torch.randn(tensor.shape, generator=generator).to(tensor))
    (splines,) = radial_splines([model])
    kernel = network_kernel([model], [splines], heads=HEADS)
    assert kernel is not None
    graph = batch(frames())
    slots, vectors = model.inputs(graph).slots, graph.edge_vectors()
    factors = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    apart = vectors.expand(3, *vectors.shape).requires_grad_()
    energies, descriptors = kernel(apart, slots)
    together = vectors.clone().requires_grad_()
    same, _ = kernel(together, slots)
    assert torch.equal(energies, same)
    (gradients,) = torch.autograd.grad(factors @ energies.sum(1), apart)
    (summed,) = torch.autograd.grad(factors @ same.sum(1), together)
    assert close(gradients.sum(0), summed, 1e-12)
    for index, name in enumerate(HEADS):
        inputs = model.inputs(graph, head=name)
        own = vectors.clone().requires_grad_()
        expected = model(own, inputs, (), splines)
        assert close(energies[index].detach(), expected.node_energy.detach(), 1e-12)
        assert close(descriptors.detach(), expected.descriptors.detach(), 1e-12)
        (gradient,) = torch.autograd.grad(expected.node_energy.sum(), own)
        assert close(gradients[index], factors[index] * gradient, 1e-12)
    with pytest.raises(ValueError, match="expand"):
        kernel(apart.detach().clone(), slots)


def test_second_derivatives_are_refused() -> None:
    model = network()
    kernel = network_kernel([model], radial_splines([model]))
    assert kernel is not None
    graph = batch(frames())
    vectors = graph.edge_vectors().requires_grad_()
    energy, _ = kernel(vectors, model.inputs(graph).slots)
    with pytest.raises(ModelError, match="once"):
        torch.autograd.grad(energy.sum(), vectors, create_graph=True)


@pytest.mark.parametrize(
    "options",
    [
        {"gate": True},
        {"products": ("spatial",)},
        {"product_weights": "coupled"},
        {"charges": "uniform"},
        {"embeddings": ("total_charge",)},
        {"site_gate": "lone"},
        {"species_radial": True},
    ],
)
def test_other_networks_have_none(options: dict) -> None:
    model = network(**options)
    assert network_kernel([model], radial_splines([model])) is None


def test_what_does_not_fit_is_refused() -> None:
    model = network()
    kernel = network_kernel([model], radial_splines([model]))
    assert kernel is not None
    graph = batch(frames())
    slots = model.inputs(graph).slots
    with pytest.raises(TypeError, match="float64"):
        kernel(graph.edge_vectors().float(), slots)
    with pytest.raises(ValueError, match="2 members"):
        kernel(graph.edge_vectors().expand(2, -1, -1), slots)
    with pytest.raises(IndexError, match="not there"):
        kernel(graph.edge_vectors()[:3], slots)
