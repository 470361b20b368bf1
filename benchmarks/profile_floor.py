"""The least that an evaluation must compute and move: counted from the network's shape.

Operations are multiplications and additions of the sums, products and matrices that define the
network (`tace_al.model`), each done once, with radial weights read from splines. Bytes are those of
a perfectly fused program: a layer reads its features once an edge (a neighbour is somewhere else in
memory for every edge) and writes messages and features once an atom.

Forces need the gradient: again as much for a matrix (its input's), three times as much for the sum
over neighbours (its features', weights' and harmonics'), twice as much for the product. A training
step on forces differentiates all of that again, by the weights too: three evaluations, and the
radial networks in place of splines.
"""

import time
from dataclasses import dataclass

import torch

from tace_al.model.interaction import SpectralInteraction
from tace_al.model.product import SpectralProduct
from tace_al.model.tace import Tace

SPLINE_DEGREE = 5
HARMONIC_OPERATIONS = 60
"""Of an edge: difference, length, envelope, harmonics to l = 2, and forces from their gradient."""
GRADIENT = {"matrices": 1.0, "sum over neighbours": 3.0, "product": 2.0, "geometry": 1.0}
GRADIENT["radial weights"] = 1.0
TRAINING_FACTOR = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Floor:
    """Operations by part, bytes, and the peaks of one core that turn them into seconds."""

    operations: dict[str, float]
    moved_bytes: float
    flops_per_second: float
    bytes_per_second: float

    @property
    def arithmetic_seconds(self) -> float:
        """Seconds of arithmetic at the peak of one core."""
        return sum(self.operations.values()) / self.flops_per_second

    @property
    def memory_seconds(self) -> float:
        """Seconds of moving data at the speed of memory."""
        return self.moved_bytes / self.bytes_per_second

    @property
    def seconds(self) -> float:
        """The larger of both: neither can wait for the other."""
        return max(self.arithmetic_seconds, self.memory_seconds)


def floor_of(model: Tace, num_atoms: int, num_edges: int, *, training: bool) -> Floor:
    """Return the floor of energy and forces, or of a training step.

    Parameters
    ----------
    model
        A network with spectral products and channel-wise weights.
    num_atoms, num_edges
        Of the batch.
    training
        Count a training step.
    """
    size = torch.finfo(model.embedding.dtype).bits // 8
    operations = dict.fromkeys(GRADIENT, 0.0)
    operations["geometry"] = float(HARMONIC_OPERATIONS * num_edges)
    moved = 0.0
    for layer, (interaction, product) in enumerate(
        zip(model.interactions, model.products, strict=True)
    ):
        assert isinstance(interaction, SpectralInteraction)
        assert isinstance(product, SpectralProduct)
        channels = interaction.up.shape[-1]
        for part, count in _interaction(interaction, num_edges, training=training).items():
            operations[part] += count
        operations["matrices"] += num_atoms * _mixing(model, layer)
        operations["product"] += num_atoms * channels * _product(product)
        layout = interaction.layout
        dim_out = model.config.layer_degrees[layer] + 1
        moved += size * channels * num_edges * layout.dim_in
        moved += size * channels * num_atoms * (interaction.couplings.shape[0] + dim_out**2)
        moved += size * num_edges * (layout.dim_edge + 2)
    forward_only = sum(operations.values())
    with_gradient = {part: count * (1.0 + GRADIENT[part]) for part, count in operations.items()}
    factor = TRAINING_FACTOR if training else 1.0
    gradient = sum(with_gradient.values()) / forward_only
    return Floor(
        operations={part: factor * count for part, count in with_gradient.items()},
        moved_bytes=factor * gradient * moved,
        flops_per_second=peak_flops(model.embedding.dtype),
        bytes_per_second=peak_bytes(),
    )


def _interaction(
    interaction: SpectralInteraction, num_edges: int, *, training: bool
) -> dict[str, float]:
    """Return operations of the sum over neighbours and its radial weights, forward."""
    channels = interaction.up.shape[-1]
    per_channel = 0
    for l1, l2, paths in interaction.pairs:
        weighted = paths * (2 * l1 + 1)  # W h, then added up with every harmonic
        per_channel += weighted + 2 * weighted * (2 * l2 + 1)
    if training:
        radial = sum(2 * weight.numel() for weight in interaction.radial.weights)
    else:
        radial = 2 * SPLINE_DEGREE * interaction.num_paths * channels
    return {
        "sum over neighbours": float(num_edges * channels * per_channel),
        "radial weights": float(num_edges * radial),
    }


def _mixing(model: Tace, layer: int) -> float:
    """Return operations an atom of everything that mixes channels or couples rows, forward."""
    interaction, product = model.interactions[layer], model.products[layer]
    channels = interaction.up.shape[-1]
    square = 2 * channels * channels
    coupled = 2 * channels * int((interaction.couplings != 0).sum())
    paths = enumerate(interaction.paths_per_degree)
    mixed = square * sum((2 * l + 1) * count for l, count in paths)
    # features before the first layer are those of species: a table of a few rows
    sent = square * interaction.layout.dim_in if layer > 0 else 0
    linear = square * (product.l_out + 1) ** 2
    residual = square * min(interaction.layout.dim_in, (product.l_out + 1) ** 2)
    return float(coupled + mixed + sent + linear + residual)


def _product(product: SpectralProduct) -> float:
    """Return operations an atom and channel of the product basis, forward."""
    terms, rows = product.table.terms.shape[0], product.table.rows.shape[0]
    return float(3 * terms + 2 * rows)


def peak_flops(dtype: torch.dtype, size: int = 768, repeats: int = 8) -> float:
    """Return the operations a second of a large matrix product on one thread, best of some."""
    matrix = torch.rand(size, size, dtype=dtype)
    best = min(_seconds(lambda: matrix @ matrix) for _ in range(repeats))
    return 2.0 * size**3 / best


def peak_bytes(mebibytes: int = 64, repeats: int = 8) -> float:
    """Return the bytes a second of a copy that fits no cache, reads and writes counted."""
    source = torch.rand(mebibytes * 2**18)
    target = torch.empty_like(source)
    best = min(_seconds(lambda: target.copy_(source)) for _ in range(repeats))
    return 2.0 * source.nbytes / best


def _seconds(call: object) -> float:
    """Return the processor time of a call."""
    assert callable(call)
    began = time.process_time()
    call()
    return time.process_time() - began
