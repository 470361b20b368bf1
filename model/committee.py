"""A committee: members of one shape evaluated together.

The members' weights are stacked along a leading axis and the network is mapped over it
(`torch.func.vmap`): one neighbour list, one geometry and one pass of operators serve all members.
Each member's forces are the exact gradient of its own energy, because every member differentiates
its own copy of the edge vectors.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Self, final

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from tace_al.core.errors import ModelError
from tace_al.data.graph import AtomicGraph, batch_graphs, graph_from_atoms
from tace_al.model.checkpoint import load
from tace_al.model.prediction import Prediction
from tace_al.model.tace import Tace, edge_forces, edge_stress

MAXIMUM_EDGES = 20_000
"""Edges of one batch; larger requests are answered in several calls to bound memory."""


@final
class Committee:
    """Members of one shape that answer together.

    Parameters
    ----------
    members
        Models of the same configuration (elements, cutoff, size, dtype) on the same device.
    """

    def __init__(self, members: Sequence[Tace]) -> None:
        if not members:
            raise ModelError("a committee needs at least one member")
        shapes = {str({**m.config.to_dict(), "average_neighbours": 0}) for m in members}
        if len(shapes) > 1:
            raise ModelError(
                "the members differ in shape; train them with the same preset, elements and dtype"
            )
        self.members = tuple(members)
        self._skeleton = copy.deepcopy(members[0]).requires_grad_(False)
        states = [member.state_dict() for member in members]
        self._stacked = {
            name: torch.stack([state[name].detach() for state in states]) for name in states[0]
        }
        scales = [m.config.average_neighbours for m in members]
        if len(set(scales)) > 1:
            raise ModelError("the members divide by different neighbour counts; retrain together")

    @classmethod
    def load(cls, paths: Sequence[str | Path], *, device: str = "cpu") -> Self:
        """Return the committee of the models in `.tace` files."""
        return cls([load(path, device=device) for path in paths])

    @property
    def cutoff(self) -> float:
        """Cutoff in Angstrom."""
        return self._skeleton.config.cutoff

    def __len__(self) -> int:
        """Return the number of members."""
        return len(self.members)

    def predict(
        self, frames: Sequence[Atoms], *, stress: bool = False, descriptors: bool = False
    ) -> list[Prediction]:
        """Return one prediction a frame.

        Parameters
        ----------
        frames
            Structures; evaluated in batches of bounded size.
        stress
            Also the mean stress, for frames periodic in three directions.
        descriptors
            Also the first member's invariant features of each atom.

        Raises
        ------
        ModelError
            An element is unknown to the model.
        StructureError
            Positions are not finite or atoms coincide.
        """
        device = self._skeleton.embedding.device
        predictions: list[Prediction] = []
        waiting: list[AtomicGraph] = []
        num_edges = 0
        for atoms in frames:
            graph = graph_from_atoms(atoms, self.cutoff)
            if waiting and num_edges + graph.sender.shape[0] > MAXIMUM_EDGES:
                predictions += self._predict(batch_graphs(waiting).to(device), stress, descriptors)
                waiting, num_edges = [], 0
            waiting.append(graph)
            num_edges += graph.sender.shape[0]
        if waiting:
            predictions += self._predict(batch_graphs(waiting).to(device), stress, descriptors)
        return predictions

    def _predict(self, graph: AtomicGraph, stress: bool, descriptors: bool) -> list[Prediction]:
        """Return one prediction for each structure of a batch."""
        model = self._skeleton
        inputs = model.inputs(graph)
        vectors = graph.edge_vectors().to(model.embedding.dtype)
        copies = vectors.expand(len(self), *vectors.shape).clone().requires_grad_()

        def evaluate(state: dict[str, Tensor], edges: Tensor) -> tuple[Tensor, Tensor]:
            return torch.func.functional_call(model, state, (edges, inputs))

        node_energy, features = torch.func.vmap(evaluate)(self._stacked, copies)
        (gradient,) = torch.autograd.grad(node_energy.sum(), copies)
        energy = torch.zeros(
            len(self), graph.num_systems, dtype=torch.float64, device=vectors.device
        ).index_add(1, graph.system_index, node_energy[:, inputs.place])
        forces = torch.stack([edge_forces(member, graph) for member in gradient])
        stresses = (
            torch.stack([edge_stress(member, vectors, graph) for member in gradient]).mean(0)
            if stress
            else None
        )
        ends = torch.cumsum(graph.atom_counts(), 0).tolist()
        force_array = forces.double().cpu().numpy()
        energy_array = energy.detach().cpu().numpy()
        feature_array = features[0][inputs.place].detach().cpu().numpy() if descriptors else None
        predictions = []
        for index, (start, stop) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            tensor = stresses[index].double().cpu().numpy() if stresses is not None else None
            predictions.append(
                Prediction(
                    member_energies=energy_array[:, index].copy(),
                    member_forces=force_array[:, start:stop].copy(),
                    stress=tensor if tensor is not None and np.isfinite(tensor).all() else None,
                    descriptors=(
                        feature_array[start:stop].copy() if feature_array is not None else None
                    ),
                )
            )
        return predictions
