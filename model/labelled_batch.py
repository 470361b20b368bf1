"""Labelled structures as tensors: graphs with reference values of any output.

A frame carries the label of an output under "REF_<output>", in `info` if there is one a structure
and in `arrays` if there is one an atom: `REF_energy` (eV), `REF_forces` (eV/Angstrom), `REF_stress`
(eV/Angstrom^3), `REF_dipole` (e Angstrom), `REF_born_charges` (e), any declared tensor, ... A label
may be absent from any frame and is then masked with NaN. `info["head"]` names the level of theory.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from tace_al.core.errors import DataError
from tace_al.data.graph import AtomicGraph, batch_graphs, graph_from_atoms
from tace_al.model.config import TaceConfig
from tace_al.model.outputs import OutputShape, output_shapes

HEAD = "head"
"""Entry of `info` that names the level of theory of a frame's labels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledBatch:
    """A batch with its labels; NaN where a label is absent.

    Parameters
    ----------
    graph
        Structures.
    targets
        Labels by output name, shaped as the outputs are; those that no structure has are left out.
    shapes
        Shape of every output the model could be trained on.
    heads
        Level of theory of each structure.
    """

    graph: AtomicGraph
    targets: Mapping[str, Tensor]
    shapes: Mapping[str, OutputShape]
    heads: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Outputs that a loss on this batch needs, besides the energy."""
        return tuple(sorted(name for name in self.targets if name != "energy"))


def labelled(atoms: Atoms, config: TaceConfig, *, head: str | None = None) -> LabelledBatch:
    """Return one structure with its labels.

    `head` is the level of frames that name none; the model's first by default.

    Raises
    ------
    DataError
        A label has the wrong shape, or a head is not one of the model's.
    """
    name = str(atoms.info.get(HEAD, head or config.heads[0]))
    if name not in config.heads:
        raise DataError(
            f"a frame is labelled at '{name}', the model has the heads {', '.join(config.heads)}; "
            f'add the head or correct atoms.info["{HEAD}"]'
        )
    targets = {}
    shapes = output_shapes(config)
    for output, shape in shapes.items():
        value = _label(atoms, output, shape)
        if value is not None:
            targets[output] = value
    return LabelledBatch(
        graph=graph_from_atoms(atoms, config.cutoff, config.conditions),
        targets=targets,
        shapes=shapes,
        heads=(name,),
    )


def join(parts: Sequence[LabelledBatch], device: torch.device | str = "cpu") -> LabelledBatch:
    """Return several batches as one."""
    graph = batch_graphs([part.graph for part in parts]).to(device)
    names = dict.fromkeys(name for part in parts for name in part.targets)
    targets = {name: _joined(parts, name).to(device) for name in names}
    return LabelledBatch(
        graph=graph,
        targets=targets,
        shapes=parts[0].shapes,
        heads=tuple(head for part in parts for head in part.heads),
    )


def batches(
    parts: Sequence[LabelledBatch],
    batch_size: int,
    *,
    generator: np.random.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[LabelledBatch]:
    """Yield batches, shuffled when a generator is given."""
    order = np.arange(len(parts)) if generator is None else generator.permutation(len(parts))
    for start in range(0, len(parts), batch_size):
        yield join([parts[index] for index in order[start : start + batch_size]], device)


def _label(atoms: Atoms, output: str, shape: OutputShape) -> Tensor | None:
    """Return one label with its leading axis, None where the frame lacks it."""
    place = atoms.info if shape.per == "structure" else atoms.arrays
    value = place.get(f"REF_{output}")
    if value is None:
        return None
    count = 1 if shape.per == "structure" else len(atoms)
    expected = (count, *shape.shape)
    numbers = np.asarray(value)
    if numbers.dtype.kind not in "iuf":
        raise DataError(f"REF_{output} is {value!r}, expected numbers; correct the frame")
    numbers = numbers.astype(np.float64)
    if numbers.size != np.prod(expected):
        raise DataError(
            f"REF_{output} has shape {numbers.shape}, expected {expected[1:] or 'one number'} per "
            f"{shape.per}"
        )
    return torch.as_tensor(numbers.reshape(expected).copy())


def _joined(parts: Sequence[LabelledBatch], name: str) -> Tensor:
    """Return one label of several batches, NaN where a batch has none."""
    shape = parts[0].shapes[name]
    rows = []
    for part in parts:
        count = part.graph.num_atoms if shape.per == "atom" else part.graph.num_systems
        absent = torch.full((count, *shape.shape), torch.nan, dtype=torch.float64)
        rows.append(part.targets.get(name, absent))
    return torch.cat(rows)
