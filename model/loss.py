"""The training loss: squared errors of every labelled output, absent labels masked.

    L = w_E <(dE/N)^2> + w_F <dF^2> + w_S <(V/N dS)^2> + sum_t w_t <dT_t^2>

in eV and Angstrom; the stress enters as virial per atom, so that its weight does not depend on the
cell, and other tensors T of a structure are divided by the square root of its number of atoms.
Averages run over the components that are labelled. The dipole of a crystal is only defined up to a
lattice vector times e (King-Smith and Vanderbilt, 10.1103/PhysRevB.47.1651): the difference counts
to the nearest equivalent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tace_al.data.graph import AtomicGraph
from tace_al.model.labelled_batch import LabelledBatch
from tace_al.model.outputs import TaceOutput


@dataclass(frozen=True, kw_only=True, slots=True)
class LossWeights:
    """Weights of energy per atom (1/eV^2), forces (A^2/eV^2), virial per atom (1/eV^2), others.

    `others` holds weights by output name, in the inverse square of the output's unit; an output
    that is labelled but not named weighs 1.
    """

    energy: float = 4.0
    forces: float = 1.0
    stress: float = 10.0
    others: Mapping[str, float] = field(default_factory=dict)

    def of(self, name: str) -> float:
        """Return the weight of an output."""
        named = {"energy": self.energy, "forces": self.forces, "stress": self.stress}
        return named[name] if name in named else self.others.get(name, 1.0)


def training_loss(output: TaceOutput, batch: LabelledBatch, weights: LossWeights) -> Tensor:
    """Return the loss of a batch, a scalar that is differentiable in the weights."""
    loss = 0.0 * output.energy.sum()  # differentiable even where nothing is labelled
    for name, target in batch.targets.items():
        error = scaled_error(name, output[name], target, batch)
        loss = loss + weights.of(name) * _mean_square(error)
    return loss


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
