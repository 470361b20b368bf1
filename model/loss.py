"""The training loss: squared errors of energy per atom, forces and stress, absent labels masked.

    L = w_E <(dE/N)^2> + w_F <dF^2> + w_S <(V/N dS)^2>

in eV and Angstrom; the stress enters as virial per atom, so that its weight does not depend on the
cell. Forces average over components, energies and stresses over structures.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tace_al.model.labelled_batch import LabelledBatch
from tace_al.model.tace import TaceOutput


@dataclass(frozen=True, kw_only=True, slots=True)
class LossWeights:
    """Weights of energy per atom (1/eV^2), forces (A^2/eV^2) and virial per atom (1/eV^2)."""

    energy: float = 4.0
    forces: float = 1.0
    stress: float = 10.0


def training_loss(output: TaceOutput, batch: LabelledBatch, weights: LossWeights) -> Tensor:
    """Return the loss of a batch, a scalar that is differentiable in the weights."""
    counts = batch.graph.atom_counts().to(output.energy.dtype)
    loss = weights.energy * _mean_square((output.energy - batch.energy) / counts)
    if output.forces is not None:
        loss = loss + weights.forces * _mean_square(output.forces - batch.forces)
    if output.stress is not None:
        scale = (torch.nan_to_num(batch.graph.volumes, nan=1.0) / counts)[:, None, None]
        loss = loss + weights.stress * _mean_square((output.stress - batch.stress) * scale)
    return loss


def _mean_square(error: Tensor) -> Tensor:
    """Return the mean square of the entries that are not NaN; zero where all are."""
    present = ~torch.isnan(error)
    count = present.sum().clamp(min=1)
    return torch.where(present, error, torch.zeros_like(error)).square().sum() / count
