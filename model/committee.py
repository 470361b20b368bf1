"""A committee: members of one shape evaluated together.

The members' weights are stacked along a leading axis and the network is mapped over it
(`torch.func.vmap`): one neighbour list, one geometry and one pass of operators serve all members.
Each member's forces are the exact gradient of its own energy, because every member differentiates
its own copy of the edge vectors.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import final

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from tace_al.core.errors import ModelError
from tace_al.data.graph import AtomicGraph, batch_graphs, graph_from_atoms
from tace_al.model.checkpoint import load
from tace_al.model.derivatives import edge_forces, edge_stress
from tace_al.model.kernels import RadialSpline
from tace_al.model.prediction import Prediction
from tace_al.model.radial_splines import SplineKeeper
from tace_al.model.tace import Tace

STACKED_SIZE = 12_000
"""Edges times channels. Up to here the cost is the number of operators, and one pass for all
members is faster; above it is memory traffic, and members one after the other stay in the cache
(measured on one core)."""

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
        self._keeper = SplineKeeper(self.members) if splines else None

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
            graph = graph_from_atoms(atoms, self.cutoff, self._skeleton.config.conditions)
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
        size = graph.sender.shape[0] * max(self._skeleton.config.layer_channels)
        whole = self._skeleton.config.reads_positions  # the energy is more than a function of edges
        stacked = len(self) > 1 and size <= STACKED_SIZE and not whole
        evaluate = self._evaluate_stacked if stacked else self._evaluate_in_turn
        answers = evaluate(graph, stress)
        return _split(
            graph,
            energy=answers["energy"],
            forces=answers["forces"],
            stress=answers["stress"].mean(0) if stress else None,
            descriptors=answers["descriptors"] if descriptors else None,
        )

    def _evaluate_stacked(self, graph: AtomicGraph, stress: bool) -> dict[str, Tensor]:
        """Return energies, forces and stresses of each member, and the first one's descriptors."""
        inputs = self._skeleton.inputs(graph, head=self.head)
        vectors = graph.edge_vectors().to(self._skeleton.embedding.dtype)
        copies = vectors.expand(len(self), *vectors.shape).clone().requires_grad_()

        by_member = self._splines()
        tables = [
            torch.stack([spline.table for spline in layer])
            for layer in zip(*by_member, strict=True)
        ]

        def evaluate(
            state: dict[str, Tensor], edges: Tensor, tables: list[Tensor]
        ) -> tuple[Tensor, Tensor]:
            splines = [
                replace(spline, table=table)
                for spline, table in zip(by_member[0], tables, strict=True)
            ]
            arguments = (edges, inputs, (), splines)
            output = torch.func.functional_call(self._skeleton, state, arguments)
            return output.node_energy, output.descriptors

        node_energy, features = torch.func.vmap(evaluate)(self._stacked, copies, tables)
        (gradient,) = torch.autograd.grad(node_energy.sum(), copies)
        answers = {
            "energy": torch.stack([inputs.total(member) for member in node_energy.detach()]),
            "forces": torch.stack([edge_forces(member, graph) for member in gradient]),
            "descriptors": inputs.unsorted(features[0].detach()),
        }
        if stress:
            stresses = [edge_stress(member, vectors, graph) for member in gradient]
            answers["stress"] = torch.stack(stresses)
        return answers

    def _splines(self) -> list[tuple[RadialSpline, ...]]:
        """Return the splines of each member, nothing where networks are used."""
        return self._keeper.current() if self._keeper else [() for _ in self.members]

    def _evaluate_in_turn(self, graph: AtomicGraph, stress: bool) -> dict[str, Tensor]:
        """Return what `_evaluate_stacked` does, one member after the other."""
        names = ("forces", "stress") if stress else ("forces",)
        outputs = [
            member.evaluate(graph, names, head=self.head, splines=splines)
            for member, splines in zip(self.members, self._splines(), strict=True)
        ]
        answers = {
            name: torch.stack([output[name] for output in outputs]) for name in ("energy", *names)
        }
        return {**answers, "descriptors": outputs[0].descriptors}


def _split(
    graph: AtomicGraph,
    *,
    energy: Tensor,
    forces: Tensor,
    stress: Tensor | None,
    descriptors: Tensor | None,
) -> list[Prediction]:
    """Return one prediction a structure from the arrays of a batch."""
    ends = torch.cumsum(graph.atom_counts(), 0).tolist()
    energies, all_forces = energy.cpu().numpy(), forces.double().cpu().numpy()
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
            )
        )
    return predictions
