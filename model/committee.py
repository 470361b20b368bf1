"""A committee: members of one shape evaluated together.

The members' weights are stacked along a leading axis that every layer of a plain network carries:
one neighbour list and one pass of operators serve all members. Networks with embeddings, charges or
other products are evaluated one after the other. Each member's forces are the exact gradient of its
own energy, because every member differentiates its own copy of the edge vectors.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import final

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float
from torch import Tensor

from tace_al.core.errors import ModelError
from tace_al.data.graph import AtomicGraph, batch_graphs, graph_from_atoms
from tace_al.model.checkpoint import load
from tace_al.model.derivatives import edge_forces, edge_stress
from tace_al.model.kept_inputs import InputsKeeper
from tace_al.model.kernels import RadialSpline
from tace_al.model.network_weights import Compiled, CompiledKeeper
from tace_al.model.prediction import Prediction
from tace_al.model.tace import Tace

STACKED_SIZE = 100_000
"""Edges times channels. Up to here the number of operators counts, and one pass for all members is
faster (four members cost 1.7 times one at 9 atoms, 2.4 at 27); above it arithmetic does, and one
after the other needs less memory (measured on one core, width 64)."""

MAXIMUM_EDGES = 20_000
"""Edges of one batch; larger requests are answered in several calls to bound memory."""


@final
class Committee:
    """Members of one shape that answer together.

    Parameters
    ----------
    members
        Models of the same configuration (elements, cutoff, size, dtype) on the same device; copied.
    head
        Name of the head that answers; the first by default.
    splines
        Read radial weights from splines, as `TaceCalculator` does.
    """

    def __init__(
        self, members: Sequence[Tace], *, head: str | None = None, splines: bool = True
    ) -> None:
        if not members:
            raise ModelError("a committee needs at least one member")
        shapes = {str({**m.config.to_dict(), "average_neighbours": 0}) for m in members}
        if len(shapes) > 1:
            raise ModelError(
                "the members differ in shape; train them with the same preset, elements and dtype"
            )
        self.members = tuple(copy.deepcopy(member).requires_grad_(False) for member in members)
        self._skeleton = self.members[0]
        self._skeleton.head(head)
        self.head = head
        states = [member.state_dict() for member in self.members]
        self._stacked = {name: torch.stack([state[name] for state in states]) for name in states[0]}
        self._inputs = InputsKeeper(self._skeleton, head)
        self._keeper = CompiledKeeper(self.members, head) if splines else None
        self._stacked_from: list[tuple[RadialSpline, ...]] | None = None
        self._tables: list[RadialSpline] = []

    @classmethod
    def load(
        cls, paths: Sequence[str | Path], *, device: str = "cpu", head: str | None = None
    ) -> "Committee":
        """Return the committee of the models in `.tace` files."""
        return cls([load(path, device=device) for path in paths], head=head)

    @property
    def cutoff(self) -> float:
        """Cutoff in Angstrom."""
        return self._skeleton.config.cutoff

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
            Every member's forces, or their mean alone, which costs as much here
            (`HeadCommittee` answers that for less).

        Raises
        ------
        ModelError
            An element is unknown to the model.
        StructureError
            Positions are not finite or atoms coincide.
        """
        return [
            prediction
            for batch in frame_batches(frames, self._skeleton)
            for prediction in self.predict_batch(
                batch, stress=stress, descriptors=descriptors, member_forces=member_forces
            )
        ]

    def predict_batch(
        self,
        graph: AtomicGraph,
        *,
        stress: bool = False,
        descriptors: bool = False,
        member_forces: bool = True,
    ) -> list[Prediction]:
        """Return one prediction for each structure of a batch, as `predict` does."""
        size = graph.sender.shape[0] * max(self._skeleton.config.layer_channels)
        plain = self._skeleton.takes_members
        stacked = len(self) > 1 and size <= STACKED_SIZE and plain
        evaluate = self._evaluate_stacked if stacked else self._evaluate_in_turn
        answers = evaluate(graph, stress)
        return predictions_of(
            graph,
            energy=answers["energy"],
            forces=answers["forces"],
            member_forces=member_forces,
            stress=answers["stress"].mean(0) if stress else None,
            descriptors=answers["descriptors"] if descriptors else None,
        )

    def _evaluate_stacked(self, graph: AtomicGraph, stress: bool) -> dict[str, Tensor]:
        """Return energies, forces and stresses of each member, and the first one's descriptors."""
        inputs = self._inputs.of(graph) or self._skeleton.inputs(graph, head=self.head)
        vectors = graph.edge_vectors().to(self._skeleton.embedding.dtype)
        copies = vectors.expand(len(self), *vectors.shape).clone().requires_grad_()

        compiled = self._compiled()
        if compiled.network is not None:
            output = self._skeleton(copies, inputs, network=compiled.network)
        else:
            arguments = (copies, inputs, (), self._stacked_splines(compiled.splines))
            output = torch.func.functional_call(self._skeleton, self._stacked, arguments)
        (gradient,) = torch.autograd.grad(output.node_energy.sum(), copies)
        answers = {
            "energy": inputs.total(output.node_energy.detach().T).T,
            "forces": edge_forces(gradient.transpose(0, 1), graph).transpose(0, 1),
            "descriptors": inputs.unsorted(output.descriptors[0].detach()),
        }
        if stress:  # the mean is all that is asked for
            answers["stress"] = edge_stress(gradient.mean(0), vectors, graph).unsqueeze(0)
        return answers

    def _compiled(self) -> Compiled:
        """Return what stands in for the members' modules, nothing where networks are used."""
        return (
            self._keeper.current() if self._keeper else Compiled([() for _ in self.members], None)
        )

    def _stacked_splines(self, by_member: list[tuple[RadialSpline, ...]]) -> list[RadialSpline]:
        """Return the splines of every layer, members on a leading axis."""
        if by_member is not self._stacked_from:
            self._stacked_from = by_member
            self._tables = [
                replace(layer[0], table=torch.stack([spline.table for spline in layer]))
                for layer in zip(*by_member, strict=True)
            ]
        return self._tables

    def _evaluate_in_turn(self, graph: AtomicGraph, stress: bool) -> dict[str, Tensor]:
        """Return what `_evaluate_stacked` does, one member after the other."""
        names = ("forces", "stress") if stress else ("forces",)
        splines, network = self._compiled()
        outputs = [
            member.evaluate(
                graph,
                names,
                head=self.head,
                inputs=self._inputs.of(graph),
                splines=splines[index],
                network=network and network.of_member(index),
            )
            for index, member in enumerate(self.members)
        ]
        answers = {
            name: torch.stack([output[name] for output in outputs]) for name in ("energy", *names)
        }
        return {**answers, "descriptors": outputs[0].descriptors}


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
