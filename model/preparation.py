"""A model before its first step: what is measured on the training set, not learnt.

Per head: E0 (isolated atoms or a fit of the composition), scale (root mean square of the forces)
and shift (mean of what E0 leaves). Per direct output: its isotropic part for each species and the
scale of the rest. For all: the average number of neighbours <n>, the size in which
radial functions enter, and which conditions every structure declares.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from ase import Atoms

from tace_al.core.errors import TrainingError
from tace_al.core.random_generators import random_seed
from tace_al.data.extxyz import is_isolated_atom
from tace_al.model.config import TaceConfig, TensorOutput
from tace_al.model.heads import add_head
from tace_al.model.initialisation import scale_to_data
from tace_al.model.labelled_batch import HEAD, LabelledBatch, labelled
from tace_al.model.reference_energies import fit_reference_energies
from tace_al.model.tace import Tace
from tace_al.model.tensor_readout import TensorReadout

logger = logging.getLogger(__name__)


def labelled_parts(frames: Sequence[Atoms], config: TaceConfig) -> list[LabelledBatch]:
    """Return the frames that are not isolated atoms, refusing what cannot be trained on."""
    parts = []
    for index, atoms in enumerate(frames):
        unknown = sorted(set(atoms.get_chemical_symbols()) - set(config.elements))
        if unknown:
            raise TrainingError(
                f"structure {index} contains {', '.join(unknown)}, the model is made for "
                f"{', '.join(config.elements)}; add the element or leave the structure out"
            )
        part = labelled(atoms, config)
        if any(bool(label.isinf().any()) for label in part.targets.values()):
            raise TrainingError(
                f"a label of structure {index} is infinite; repair or remove that structure"
            )
        if not is_isolated_atom(atoms):
            parts.append(part)
    return parts


def prepare_model(
    frames: Sequence[Atoms], *, config: TaceConfig, seed: int, start: Tace | None
) -> Tace:
    """Return the model before its first step.

    With `start`, its weights and constants are kept, and heads that `config` names beyond its own
    are added and fitted to the frames of that level.
    """
    parts = labelled_parts(frames, config)
    if start is not None:
        return _extended(start, config, frames, parts)
    required = tuple(
        name
        for name in config.conditions
        if name in config.embeddings
        and all(not part.graph.conditions[name].isnan().any() for part in parts)
    )
    num_atoms = sum(part.graph.num_atoms for part in parts)
    num_edges = sum(part.graph.sender.shape[0] for part in parts)
    config = replace(
        config,
        average_neighbours=max(num_edges / max(num_atoms, 1), 1.0),
        required_conditions=required,
    )
    model = Tace(config, seed=random_seed(seed, "weights"))
    scale_to_data(model, [part.graph for part in parts])
    if not any("energy" in part.targets for part in parts):
        logger.warning("no frame has an energy: the model's energies will lack a constant")
    for name in config.heads:
        _fit_head(model, name, frames, parts)
    for output in config.outputs:
        _fit_tensor(model, output, parts)
    return model


def _extended(
    start: Tace, config: TaceConfig, frames: Sequence[Atoms], parts: Sequence[LabelledBatch]
) -> Tace:
    """Return a copy of a trained model with the heads of `config`."""
    model = Tace(start.config)
    model.load_state_dict(start.state_dict())
    model.metadata = dict(start.metadata)
    for name in config.heads:
        if name not in model.config.heads:
            model = add_head(model, name)
            _fit_head(model, name, frames, parts)
    return model


def _fit_head(
    model: Tace, name: str, frames: Sequence[Atoms], parts: Sequence[LabelledBatch]
) -> None:
    """Set E0, scale and shift of a head from the frames of its level.

    A level without energies keeps what it has (zero, or the constants of the head it copies).
    """
    numbers = model.config.numbers
    own = [part for part in parts if part.heads[0] == name]
    level = [atoms for atoms in frames if _level(atoms, model.config) == name]
    head = model.head(name)
    forces = [part.targets["forces"].flatten() for part in own if "forces" in part.targets]
    if not any("energy" in part.targets for part in own):
        return
    e0 = fit_reference_energies(level, numbers)
    element = {z: i for i, z in enumerate(numbers)}
    shifts = [
        (float(part.targets["energy"]) - sum(e0[element[z]] for z in part.graph.numbers.tolist()))
        / part.graph.num_atoms
        for part in own
        if "energy" in part.targets
    ]
    known = [shift for shift in shifts if not math.isnan(shift)]
    with torch.no_grad():
        head.e0.copy_(torch.from_numpy(e0))
        head.shift.fill_(float(np.mean(known)) if known else 0.0)
        if forces:
            scale = float(torch.cat(forces).square().mean().sqrt())
            head.scale.fill_(max(scale, 1e-3))


def _fit_tensor(model: Tace, output: TensorOutput, parts: Sequence[LabelledBatch]) -> None:
    """Set the isotropic reference of each species and the scale of a direct output."""
    own = [part for part in parts if output.name in part.targets]
    if not own:
        return
    species = torch.arange(len(model.config.elements))
    members = [model.species(part.graph.numbers).unsqueeze(1) == species for part in own]
    per_atom = output.per == "atom"
    readout = model.tensor_readouts[output.name]
    assert isinstance(readout, TensorReadout)
    readout.standardise(
        torch.cat([part.targets[output.name] for part in own]),
        torch.cat([m if per_atom else m.sum(dim=0, keepdim=True) for m in members]),
    )


def _level(atoms: Atoms, config: TaceConfig) -> str:
    """Return the level of theory of a frame; the first head where it names none."""
    return str(atoms.info.get(HEAD, config.heads[0]))
