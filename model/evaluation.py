"""Errors of a model or committee on labelled structures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase import Atoms

from tace_al.model.labelled_batch import LabelledBatch, batches, labelled
from tace_al.model.tace import Tace


@dataclass(frozen=True, kw_only=True, slots=True)
class Metrics:
    """Errors; NaN where the data has no such label.

    Energies in meV/atom, forces in meV/Angstrom (over components), stress in meV/Angstrom^3.
    """

    energy_rmse_mev_per_atom: float
    energy_mae_mev_per_atom: float
    forces_rmse_mev_per_angstrom: float
    forces_mae_mev_per_angstrom: float
    stress_rmse_mev_per_angstrom3: float
    stress_mae_mev_per_angstrom3: float
    num_structures: int

    def to_dict(self) -> dict[str, Any]:
        """Return what is known, as plain content for JSON."""
        content = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in content.items() if not math.isnan(value)}


def evaluate(
    model: Tace, frames: Sequence[Atoms], *, batch_size: int = 16, head: str | None = None
) -> Metrics:
    """Return the errors of a model on labelled frames (keys as `tace_al.model.labelled_batch`)."""
    parts = [labelled(atoms, model.config, head=head) for atoms in frames]
    return evaluate_parts(model, parts, batch_size=batch_size, head=head)


def evaluate_parts(
    model: Tace,
    parts: Sequence[LabelledBatch],
    *,
    batch_size: int = 16,
    head: str | None = None,
) -> Metrics:
    """Return the errors of a model on structures that are already graphs."""
    energy_errors, force_errors, stress_errors = [], [], []
    for batch in batches(parts, batch_size, device=model.embedding.device):
        output = model.evaluate(batch.graph, batch.names, head=head or batch.heads)
        counts = batch.graph.atom_counts()
        targets = batch.targets
        if "energy" in targets:
            energy_errors.append((output.energy - targets["energy"]) / counts)
        if "forces" in targets:
            force_errors.append((output.forces - targets["forces"]).ravel())
        if "stress" in targets:
            stress_errors.append((output.stress - targets["stress"]).ravel())
    energy = _rmse_mae(energy_errors)
    forces = _rmse_mae(force_errors)
    stress = _rmse_mae(stress_errors)
    return Metrics(
        energy_rmse_mev_per_atom=energy[0],
        energy_mae_mev_per_atom=energy[1],
        forces_rmse_mev_per_angstrom=forces[0],
        forces_mae_mev_per_angstrom=forces[1],
        stress_rmse_mev_per_angstrom3=stress[0],
        stress_mae_mev_per_angstrom3=stress[1],
        num_structures=len(parts),
    )


def _rmse_mae(errors: list[torch.Tensor]) -> tuple[float, float]:
    """Return root mean square and mean absolute error in thousandths, NaN without data."""
    if not errors:
        return math.nan, math.nan
    values = torch.cat(errors).double().cpu().numpy()
    values = values[~np.isnan(values)]
    if not len(values):
        return math.nan, math.nan
    return 1e3 * float(np.sqrt(np.mean(values**2))), 1e3 * float(np.mean(np.abs(values)))
