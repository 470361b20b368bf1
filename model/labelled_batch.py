"""Labelled structures as tensors: graphs with reference energies, forces and stresses.

Frames carry `info["REF_energy"]` (eV), `arrays["REF_forces"]` (eV/Angstrom) and
`info["REF_stress"]` ((3, 3), eV/Angstrom^3), as `tace_al.data.extxyz` reads them; any may be absent
from any frame and is then masked with NaN.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float
from torch import Tensor

from tace_al.data.extxyz import ENERGY, FORCES, STRESS
from tace_al.data.graph import AtomicGraph, batch_graphs, graph_from_atoms


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledBatch:
    """A batch with its labels; NaN where a label is absent.

    Parameters
    ----------
    graph
        Structures.
    energy
        (systems,) eV, float64.
    forces
        (atoms, 3) eV/Angstrom.
    stress
        (systems, 3, 3) eV/Angstrom^3.
    """

    graph: AtomicGraph
    energy: Float[Tensor, " systems"]
    forces: Float[Tensor, "atoms 3"]
    stress: Float[Tensor, "systems 3 3"]

    @property
    def has_stress(self) -> bool:
        """Whether any structure has a stress label."""
        return not bool(torch.isnan(self.stress).all())


def labelled(atoms: Atoms, cutoff: float) -> LabelledBatch:
    """Return one structure with its labels."""
    forces = atoms.arrays.get(FORCES, np.full((len(atoms), 3), np.nan))
    stress = atoms.info.get(STRESS, np.full((3, 3), np.nan))
    return LabelledBatch(
        graph=graph_from_atoms(atoms, cutoff),
        energy=torch.tensor([atoms.info.get(ENERGY, np.nan)], dtype=torch.float64),
        forces=torch.as_tensor(np.array(forces), dtype=torch.float64),
        stress=torch.as_tensor(np.array(stress), dtype=torch.float64).reshape(1, 3, 3),
    )


def join(parts: Sequence[LabelledBatch], device: torch.device | str = "cpu") -> LabelledBatch:
    """Return several batches as one."""
    return LabelledBatch(
        graph=batch_graphs([part.graph for part in parts]).to(device),
        energy=torch.cat([part.energy for part in parts]).to(device),
        forces=torch.cat([part.forces for part in parts]).to(device),
        stress=torch.cat([part.stress for part in parts]).to(device),
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
