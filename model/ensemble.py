"""Models, or heads of one model, that answer together: what committees have in common."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float
from torch import Tensor

from tace_al.data.graph import AtomicGraph, batch_graphs, graph_from_atoms
from tace_al.model.derivatives import edge_forces, edge_stress
from tace_al.model.inputs import NetworkInputs
from tace_al.model.prediction import Prediction
from tace_al.model.tace import Tace

MAXIMUM_EDGES = 20_000
"""Edges of one batch; larger requests are answered in several calls to bound memory."""


class Ensemble(ABC):
    """Members that answer together.

    Attributes
    ----------
    members
        The model behind each member, the same one for heads of one model.
    """

    members: tuple[Tace, ...]

    @property
    def cutoff(self) -> float:
        """Cutoff in Angstrom."""
        return self.members[0].config.cutoff

    def __len__(self) -> int:
        """Return the number of members."""
        return len(self.members)

    def predict(
        self,
        frames: Sequence[Atoms],
        *,
        stress: bool = False,
        descriptors: bool = False,
        member_forces: bool = True,
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
        member_forces
            Every member's forces, or their mean alone, without `Prediction.force_spread`: no
            cheaper for models trained apart, and at the price of one for heads of one model.

        Raises
        ------
        ModelError
            An element is unknown to the model.
        StructureError
            Positions are not finite or atoms coincide.
        """
        return [
            prediction
            for batch in frame_batches(frames, self.members[0])
            for prediction in self.predict_batch(
                batch, stress=stress, descriptors=descriptors, member_forces=member_forces
            )
        ]

    @abstractmethod
    def predict_batch(
        self,
        graph: AtomicGraph,
        *,
        stress: bool = False,
        descriptors: bool = False,
        member_forces: bool = True,
    ) -> list[Prediction]:
        """Return one prediction for each structure of a batch, as `predict` does."""


def frame_batches(frames: Sequence[Atoms], model: Tace) -> Iterator[AtomicGraph]:
    """Yield the graphs of a model's structures, on its device, in batches of bounded size."""
    waiting: list[AtomicGraph] = []
    num_edges = 0
    for atoms in frames:
        graph = graph_from_atoms(atoms, model.config.cutoff, model.config.conditions)
        if waiting and num_edges + graph.sender.shape[0] > MAXIMUM_EDGES:
            yield batch_graphs(waiting).to(model.embedding.device)
            waiting, num_edges = [], 0
        waiting.append(graph)
        num_edges += graph.sender.shape[0]
    if waiting:
        yield batch_graphs(waiting).to(model.embedding.device)


def answers_of(
    graph: AtomicGraph,
    inputs: NetworkInputs,
    *,
    energy: Float[Tensor, "members atoms"],
    gradient: Float[Tensor, "_ edges 3"],
    stress: bool,
) -> dict[str, Tensor]:
    """Return the energy and forces of each member, and their mean stress if asked for.

    From energies of the sorted atoms and gradients by the edge vectors.
    """
    answers = {
        "energy": inputs.total(energy.detach().T).T,
        "forces": edge_forces(gradient.transpose(0, 1), graph).transpose(0, 1),
    }
    if stress:
        vectors = graph.edge_vectors().to(gradient.dtype)
        answers["stress"] = edge_stress(gradient.mean(0), vectors, graph)
    return answers


def predictions_of(
    graph: AtomicGraph,
    *,
    energy: Float[Tensor, "members systems"],
    forces: Float[Tensor, "_ atoms 3"],
    member_forces: bool,
    stress: Float[Tensor, "systems 3 3"] | None,
    descriptors: Float[Tensor, "atoms features"] | None,
) -> list[Prediction]:
    """Return one prediction a structure from the arrays of a batch.

    `member_forces` says whether to keep the forces of each member or their mean alone.
    """
    ends = torch.cumsum(graph.atom_counts(), 0).tolist()
    energies, all_forces = energy.cpu().numpy(), forces.double().cpu().numpy()
    mean = None if member_forces else all_forces.mean(axis=0)
    if mean is not None:
        all_forces = all_forces[:0]
    features = descriptors.cpu().numpy() if descriptors is not None else None
    predictions = []
    for index, (start, stop) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        tensor = stress[index].double().cpu().numpy() if stress is not None else None
        predictions.append(
            Prediction(
                member_energies=energies[:, index].copy(),
                member_forces=all_forces[:, start:stop].copy(),
                stress=tensor if tensor is not None and np.isfinite(tensor).all() else None,
                descriptors=features[start:stop].copy() if features is not None else None,
                mean_forces=None if mean is None else mean[start:stop].copy(),
            )
        )
    return predictions
