"""The sum over neighbours and the product basis, compiled and in PyTorch's operators, one thread.

    python -m benchmarks.speed_kernels

The second layer's sum and the products of both layers of `small` in float32: 64 water molecules in
a periodic box, ethanol, and a batch of eight ethanols as in training. Forward, forward and
backward, and the double backward of training on forces; for evaluation also with the radial weights
read from splines, which spares their network, whose own cost is the last column. Times are
processor time of the fastest of many calls, the ways taking turns: other work on the machine only
ever adds to it.
"""

import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from benchmarks.machine import processor
from benchmarks.preset_costs import structure
from tace_al.core.atomic_write import write_bytes
from tace_al.data.graph import batch_graphs, graph_from_atoms
from tace_al.model.cartesian import split_degrees
from tace_al.model.interaction import SpectralInteraction
from tace_al.model.kernels import (
    EdgeList,
    RadialSpline,
    SumLayout,
    compiled,
    edge_sums,
    spectral_product,
    splined_edge_sums,
)
from tace_al.model.product import SpectralProduct
from tace_al.model.radial import polynomial_cutoff
from tace_al.model.tace import Tace

RESULTS = Path(__file__).parent / "results"
CASES = {"water": ("water", 1), "ethanol": ("ethanol", 1), "8 ethanols": ("ethanol", 8)}
CALLS = 40
Sums = Callable[..., Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One layer's factors and edges."""

    features: Tensor
    weights: Tensor
    harmonics: Tensor
    distances: Tensor
    slots: Tensor  # (atoms, slots), the sender of each
    edges: EdgeList
    layout: SumLayout
    spline: RadialSpline
    network: Callable[[], Tensor]
    products: tuple[SpectralProduct, ...]
    species: Tensor  # of each atom


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """Milliseconds of one way on one system; None where it does not serve."""

    system: str
    way: str
    forward: float
    forward_backward: float
    double_backward: float | None
    network: float | None


def main() -> None:
    """Measure every system, show the table and write it as JSON."""
    torch.set_num_threads(1)
    if compiled() is None:
        raise SystemExit("the kernels do not compile here; install a C++ compiler or set CXX")
    rows = [row for name in CASES for measure in (measured, products) for row in measure(name)]
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {processor()}, one thread",
        "versions": f"torch {metadata.version('torch')}",
        "dtype": "float32",
    }
    content = json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=1) + "\n"
    RESULTS.mkdir(exist_ok=True)
    write_bytes(RESULTS / "speed_kernels.json", content.encode())
    Console(width=120).print(markdown(rows))


def measured(name: str) -> list[Row]:
    """Return the rows of one system."""
    setting = prepared(*CASES[name])
    exact = (setting.features, setting.weights, setting.harmonics)
    splined = (setting.features, setting.distances, setting.harmonics)
    ways: dict[str, tuple[Sums, tuple[Tensor, ...]]] = {
        "padded slots": (lambda h, w, y: slot_sums(setting, h, w, y), exact),
        "compiled": (lambda h, w, y: edge_sums(h, w, y, setting.edges, setting.layout), exact),
        "compiled, splined": (
            lambda h, r, y: splined_edge_sums(
                h, setting.spline, r, y, setting.edges, setting.layout
            ),
            splined,
        ),
    }
    tasks: dict[str, Callable[[], object]] = {}
    for way, (sums, factors) in ways.items():
        cotangent = torch.randn_like(sums(*factors))
        tasks |= {f"{way} {kind}": task for kind, task in of_way(sums, factors, cotangent).items()}
    tasks["network"] = lambda: network_backward(setting)
    times = fastest(tasks)
    return [
        Row(
            system=name,
            way=way,
            forward=times[f"{way} forward"],
            forward_backward=times[f"{way} backward"],
            double_backward=None if "splined" in way else times[f"{way} double"],
            network=None if "splined" in way else times["network"],
        )
        for way in ways
    ]


def products(name: str) -> list[Row]:
    """Return the rows of the product bases on one system."""
    setting = prepared(*CASES[name])
    tasks: dict[str, Callable[[], object]] = {}
    names = []
    for layer in setting.products:
        shape = (len(setting.species), setting.layout.dim_edge, layer.weight.shape[2])
        factors = (torch.randn(shape).requires_grad_(), layer.weight.detach().requires_grad_())
        table, cotangent = layer.table, torch.randn(shape[0], (layer.l_out + 1) ** 2, shape[2])
        ways: dict[str, Sums] = {
            "matrices": lambda m, w, layer=layer: matrix_product(layer, m, w, setting.species),
            "compiled": lambda m, w, t=table: spectral_product(m, w, setting.species, t),
        }
        for way, product in ways.items():
            names.append(f"product to l = {layer.l_out}, {way}")
            found = of_way(product, factors, cotangent)
            tasks |= {f"{names[-1]} {kind}": task for kind, task in found.items()}
    times = fastest(tasks)
    return [
        Row(
            system=name,
            way=way,
            forward=times[f"{way} forward"],
            forward_backward=times[f"{way} backward"],
            double_backward=times[f"{way} double"],
            network=None,
        )
        for way in names
    ]


def of_way(
    sums: Sums, factors: tuple[Tensor, ...], cotangent: Tensor
) -> Mapping[str, Callable[[], object]]:
    """Return the evaluations that are timed."""
    tangents = tuple(torch.randn_like(factor) for factor in factors)

    def forward() -> Tensor:
        with torch.no_grad():
            return sums(*factors)

    def backward() -> tuple[Tensor, ...]:
        return torch.autograd.grad(sums(*factors), factors, cotangent)

    def double() -> tuple[Tensor, ...]:
        first = torch.autograd.grad(sums(*factors), factors, cotangent, create_graph=True)
        return torch.autograd.grad(first, factors, tangents)

    return {"forward": forward, "backward": backward, "double": double}


def network_backward(setting: Setting) -> tuple[Tensor, ...]:
    """Return the radial weights' gradient by the distances, through their network."""
    weights = setting.network()
    return torch.autograd.grad(weights, setting.distances, setting.weights)


def fastest(tasks: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Return the processor time of the fastest call of each task in ms."""
    for task in tasks.values():
        task()
    best = dict.fromkeys(tasks, float("inf"))
    for _ in range(CALLS):
        for name, task in tasks.items():
            began = time.process_time()
            task()
            best[name] = min(best[name], 1e3 * (time.process_time() - began))
    return best


def prepared(name: str, copies: int) -> Setting:
    """Return the second layer's factors on copies of a structure."""
    model = Tace.from_preset("small", elements=["H", "C", "O"])
    graph = batch_graphs([graph_from_atoms(structure(name), model.config.cutoff)] * copies)
    inputs = model.inputs(graph)
    interaction = model.interactions[1]
    assert isinstance(interaction, SpectralInteraction)
    exact = model.as_dtype("float64")
    layout = SumLayout(pairs=tuple(interaction.pairs))
    channels = interaction.up.shape[2]

    def weights(r: Tensor, of: Tace = model) -> Tensor:
        envelope = polynomial_cutoff(r, of.config.cutoff, of.config.cutoff_power)
        found: Tensor = of.interactions[1].radial(of.radial_basis(r, envelope))
        return found.reshape(len(r), layout.num_paths, channels)

    real = inputs.edges < graph.sender.shape[0]
    vectors = torch.full((inputs.edges.numel(), 3), 10.0 * model.config.cutoff)
    vectors[real.reshape(-1)] = graph.edge_vectors().float()[inputs.edges[real]]
    r = vectors.norm(dim=1)
    distances = r.clone().requires_grad_()
    return Setting(
        features=torch.randn(graph.num_atoms, layout.dim_in, channels).requires_grad_(),
        weights=weights(r).detach().requires_grad_(),
        harmonics=model.harmonics(vectors / r[:, None]).detach().requires_grad_(),
        distances=distances,
        slots=inputs.sender,
        edges=EdgeList.of_slots(inputs.sender, real.sum(dim=1)),
        layout=layout,
        spline=RadialSpline.of(
            lambda at: weights(at, exact), model.config.cutoff, dtype=torch.float32
        ),
        network=lambda: weights(distances),
        products=tuple(model.products),
        species=inputs.groups.species,
    )


def slot_sums(setting: Setting, features: Tensor, weights: Tensor, harmonics: Tensor) -> Tensor:
    """Return the sums as one small matrix product an atom and path, as without a compiler."""
    num_atoms, num_slots = setting.slots.shape
    channels = features.shape[2]
    sources = [
        degree.index_select(0, setting.slots.reshape(-1)) for degree in split_degrees(features)
    ]
    turned = harmonics.reshape(num_atoms, num_slots, -1).transpose(1, 2)
    angular = split_degrees(turned)
    by_pair = weights.reshape(num_atoms, num_slots, -1, 1, channels).split(
        [count for _, _, count in setting.layout.pairs], dim=2
    )
    sums = []
    for (l1, l2, _), weight in zip(setting.layout.pairs, by_pair, strict=True):
        source = sources[l1].reshape(num_atoms, num_slots, 1, 2 * l1 + 1, channels)
        carried = (weight * source).reshape(num_atoms, num_slots, -1)
        total = angular[l2] @ carried if l2 > 0 else carried.sum(dim=1)
        sums.append(total.reshape(num_atoms, -1, channels))
    return torch.cat(sums, dim=1)


def matrix_product(
    layer: SpectralProduct, message: Tensor, weight: Tensor, species: Tensor
) -> Tensor:
    """Return the product with one gathered multiplication and one matrix an order."""
    orders = [message]
    for order in range(2, layer.correlation + 1):
        first = orders[-1].index_select(1, layer.get_buffer(f"first_{order}"))
        second = message.index_select(1, layer.get_buffer(f"second_{order}"))
        orders.append(layer.get_buffer(f"matrix_{order}") @ (first * second))
    basis = torch.cat(orders, dim=1).index_select(1, layer.rows)
    own = weight.index_select(0, species).index_select(1, layer.path_of_row)
    return layer.collect @ (basis * own)


def markdown(rows: list[Row]) -> str:
    """Return the table of milliseconds."""
    lines = [
        "| system | way | forward | and backward | double backward | radial network |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        double = "" if row.double_backward is None else f"{row.double_backward:.2f}"
        network = "none" if row.network is None else f"{row.network:.2f}"
        lines.append(
            f"| {row.system} | {row.way} | {row.forward:.2f} | {row.forward_backward:.2f} "
            f"| {double} | {network} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
