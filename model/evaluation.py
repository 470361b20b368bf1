"""Errors of a model on labelled structures: of energies, forces, stress and any other output."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from tace_al.model.labelled_batch import HEAD, LabelledBatch, batches, labelled
from tace_al.model.loss import nearest_polarization
from tace_al.model.tace import Tace

MECHANICAL = ("energy", "forces", "stress")
"""Outputs that every model has, whose errors have fields of their own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Metrics:
    """Errors; NaN where the data has no such label.

    Energies in meV/atom, forces in meV/Angstrom (over components), stress in meV/Angstrom^3;
    `others` holds root mean square and mean absolute error over components of every other labelled
    output, in its own unit (dipole e Angstrom, born_charges e, ...).
    """

    energy_rmse_mev_per_atom: float
    energy_mae_mev_per_atom: float
    forces_rmse_mev_per_angstrom: float
    forces_mae_mev_per_angstrom: float
    stress_rmse_mev_per_angstrom3: float
    stress_mae_mev_per_angstrom3: float
    num_structures: int
    others: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return what is known, as plain content for JSON: others as "<output>_rmse", "_mae"."""
        content = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name, errors in content.pop("others").items():
            content |= {f"{name}_rmse": errors[0], f"{name}_mae": errors[1]}
        return {name: value for name, value in content.items() if not math.isnan(value)}


def evaluate(
    model: Tace, frames: Sequence[Atoms], *, batch_size: int = 16, head: str | None = None
) -> Metrics:
    """Return the errors of a model on labelled frames (keys as `tace_al.model.labelled_batch`).

    With `head`, every frame is predicted with that head, whatever level it was labelled at.
    """
    if head is not None:
        model.head(head)
        frames = [_at_level(atoms, head) for atoms in frames]
    parts = [labelled(atoms, model.config) for atoms in frames]
    return evaluate_parts(model, parts, batch_size=batch_size)


def _at_level(atoms: Atoms, head: str) -> Atoms:
    """Return a copy of a frame with its labels taken for those of another level."""
    copy = atoms.copy()
    copy.info[HEAD] = head
    return copy


def evaluate_by_head(
    model: Tace, frames: Sequence[Atoms], *, batch_size: int = 16
) -> dict[str, Metrics]:
    """Return the errors of each head on the frames of its level; heads without frames are left out.

    A frame that names no level belongs to the first head.
    """
    parts = [labelled(atoms, model.config) for atoms in frames]
    levels = {
        name: [part for part in parts if part.heads == (name,)] for name in model.config.heads
    }
    return {
        name: evaluate_parts(model, own, batch_size=batch_size)
        for name, own in levels.items()
        if own
    }


def evaluate_parts(model: Tace, parts: Sequence[LabelledBatch], *, batch_size: int = 16) -> Metrics:
    """Return the errors of a model on structures that are already graphs."""
    errors: dict[str, list[Tensor]] = {name: [] for name in MECHANICAL}
    for batch in batches(parts, batch_size, device=model.embedding.device):
        output = model.evaluate(batch.graph, batch.names, head=batch.heads)
        for name, target in batch.targets.items():
            error = output[name].detach() - target
            if name == "energy":
                error = error / batch.graph.atom_counts()
            if name == "dipole":
                error = nearest_polarization(error, batch.graph)
            errors.setdefault(name, []).append(error.ravel())
    measured = {name: _rmse_mae(values) for name, values in errors.items()}
    return Metrics(
        energy_rmse_mev_per_atom=1e3 * measured["energy"][0],
        energy_mae_mev_per_atom=1e3 * measured["energy"][1],
        forces_rmse_mev_per_angstrom=1e3 * measured["forces"][0],
        forces_mae_mev_per_angstrom=1e3 * measured["forces"][1],
        stress_rmse_mev_per_angstrom3=1e3 * measured["stress"][0],
        stress_mae_mev_per_angstrom3=1e3 * measured["stress"][1],
        num_structures=len(parts),
        others={name: value for name, value in measured.items() if name not in MECHANICAL},
    )


def _rmse_mae(errors: Sequence[Tensor]) -> tuple[float, float]:
    """Return root mean square and mean absolute error, NaN without data."""
    if not errors:
        return math.nan, math.nan
    values = torch.cat(list(errors)).double().cpu().numpy()
    values = values[~np.isnan(values)]
    if not len(values):
        return math.nan, math.nan
    return float(np.sqrt(np.mean(values**2))), float(np.mean(np.abs(values)))
