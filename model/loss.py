"""The training loss: squared errors of every labelled output, absent labels masked.

    L = w_E <(dE/N)^2> + w_F <dF^2> + w_S <(V/N dS)^2> + sum_t w_t <dT_t^2>

in eV and Angstrom; the stress enters as virial per atom, so that its weight does not depend on the
cell, and other tensors T of a structure are divided by the square root of its number of atoms.
Averages run over the components that are labelled. Other tensors come in units as far apart as e
and A^3, so a weight that is not given follows from the training set (`balanced`): what T varies by
counts as much as what forces do. The dipole of a crystal is only defined up to a
lattice vector times e (King-Smith and Vanderbilt, 10.1103/PhysRevB.47.1651): the difference counts
to the nearest equivalent.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from tace_al.core.errors import ConfigError
from tace_al.data.graph import AtomicGraph
from tace_al.model.labelled_batch import LabelledBatch
from tace_al.model.outputs import TaceOutput

SMALLEST_VARIATION = 0.1
"""Variation of a label, as a share of its size, below which it is not worth more weight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossWeights:
    """Weights of energy per atom (1/eV^2), forces (A^2/eV^2), virial per atom (1/eV^2), others.

    `others` holds weights by output name, in the inverse square of the output's unit; the weight
    of an output that is labelled but not named is measured on the training set (`balanced`).
    """

    energy: float = 4.0
    forces: float = 1.0
    stress: float = 10.0
    others: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse weights that would reward errors."""
        weights = {"energy": self.energy, "forces": self.forces, "stress": self.stress}
        for name, weight in {**weights, **self.others}.items():
            if not 0.0 <= weight < math.inf:
                raise ConfigError(f"the weight of {name} is {weight}; give zero or more")

    def of(self, name: str) -> float:
        """Return the weight of an output."""
        named = {"energy": self.energy, "forces": self.forces, "stress": self.stress}
        return named[name] if name in named else self.others.get(name, 1.0)


def training_loss(output: TaceOutput, batch: LabelledBatch, weights: LossWeights) -> Tensor:
    """Return the loss of a batch, a scalar that is differentiable in the weights."""
    # differentiable even where nothing is labelled
    return 0.0 * output.energy.sum() + weighted_sum(mean_squares(output, batch), weights)


def weighted_sum(squares: Mapping[str, Tensor], weights: LossWeights) -> Tensor | float:
    """Return the loss that mean squares by output make; zero where nothing is labelled."""
    return sum((weights.of(name) * square for name, square in squares.items()), start=0.0)


def mean_squares(output: TaceOutput, batch: LabelledBatch) -> dict[str, Tensor]:
    """Return the mean square error of every labelled output in the unit of its weight."""
    return {
        name: _mean_square(scaled_error(name, output[name], target, batch))
        for name, target in batch.targets.items()
    }


def balanced(weights: LossWeights, parts: Sequence[LabelledBatch]) -> LossWeights:
    """Return weights with those that are not given measured on a training set.

    The weight of T is w_F <F^2> / <dT^2>, with dT what a constant for each species (or, for a
    tensor of atoms, their mean) leaves, but not less than a tenth of T itself: a tensor that hardly
    varies is not worth any precision. Without forces the numerator is one.
    """
    others = dict(weights.others)
    given = {"energy", "forces", "stress", *others}
    names = dict.fromkeys(name for part in parts for name in part.targets if name not in given)
    squares = [part.targets["forces"].flatten() for part in parts if "forces" in part.targets]
    whole = float(_mean_square(torch.cat(squares))) if squares else 0.0
    for name in names:
        labelled = [part for part in parts if name in part.targets]
        variance = _variance(name, labelled)
        if variance > 0.0:
            others[name] = (weights.forces * whole if whole > 0.0 else 1.0) / variance
    return replace(weights, others=others)


def _variance(name: str, parts: Sequence[LabelledBatch]) -> float:
    """Return the mean square of a label's variation in the unit of its weight."""
    per_atom = parts[0].shapes[name].per == "atom"
    values = torch.cat([part.targets[name].reshape(_rows(part, per_atom), -1) for part in parts])
    elements = torch.cat([part.graph.numbers for part in parts]).unique()
    members = [part.graph.numbers.unsqueeze(1) == elements for part in parts]
    composition = torch.cat([m if per_atom else m.sum(dim=0, keepdim=True) for m in members])
    usable = torch.isfinite(values).all(dim=1)
    values, composition = values[usable], composition[usable].double()
    if not len(values):
        return 0.0
    fit = torch.linalg.lstsq(composition, values, driver="gelsd").solution
    norm = composition.sum(dim=1, keepdim=True).sqrt()  # 1 for an atom, sqrt(N) for a structure
    left = float(((values - composition @ fit) / norm).square().mean())
    return max(left, SMALLEST_VARIATION**2 * float((values / norm).square().mean()))


def _rows(part: LabelledBatch, per_atom: bool) -> int:
    """Return the number of labelled things in a batch."""
    return part.graph.num_atoms if per_atom else part.graph.num_systems


def scaled_error(name: str, value: Tensor, target: Tensor, batch: LabelledBatch) -> Tensor:
    """Return the error of an output in the unit its weight refers to; NaN where not labelled."""
    graph = batch.graph
    error = value - target
    if batch.shapes[name].per == "atom":
        return error
    counts = graph.atom_counts().to(error.dtype)
    counts = counts.reshape(-1, *(1,) * (error.ndim - 1))
    if name == "energy":
        return error / counts
    if name == "stress":
        return error * torch.nan_to_num(graph.volumes, nan=1.0)[:, None, None] / counts
    if name == "dipole":
        error = nearest_polarization(error, graph)
    return error / counts.sqrt()


def nearest_polarization(difference: Tensor, graph: AtomicGraph) -> Tensor:
    """Return differences of dipoles, (systems, 3) e Angstrom, less whole lattice vectors times e.

    Only structures periodic in three directions are changed.
    """
    periodic = graph.pbc.all(dim=1)
    unit = torch.eye(3, dtype=graph.cells.dtype, device=graph.cells.device)
    cells = torch.where(periodic[:, None, None], graph.cells, unit)
    whole = torch.linalg.solve(cells.transpose(1, 2), difference.detach().unsqueeze(2)).round()
    shift = (cells.transpose(1, 2) @ torch.nan_to_num(whole)).squeeze(2)
    return difference - torch.where(periodic[:, None], shift, torch.zeros_like(shift))


def _mean_square(error: Tensor) -> Tensor:
    """Return the mean square of the entries that are not NaN; zero where all are."""
    present = ~torch.isnan(error)
    count = present.sum().clamp(min=1)
    return torch.where(present, error, torch.zeros_like(error)).square().sum() / count
