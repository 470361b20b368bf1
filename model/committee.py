"""A committee: members of one shape evaluated together.

The members' weights are stacked along a leading axis that every layer of a plain network carries:
one neighbour list and one pass of operators serve all members. Networks with embeddings, charges or
other products are evaluated one after the other. Each member's forces are the exact gradient of its
own energy, because every member differentiates its own copy of the edge vectors.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from tace_al.core.errors import ModelError
from tace_al.data.graph import AtomicGraph
from tace_al.model.checkpoint import load
from tace_al.model.ensemble import Ensemble, answers_of, predictions_of
from tace_al.model.kept_inputs import InputsKeeper
from tace_al.model.kernels import RadialSpline
from tace_al.model.network_weights import Compiled, CompiledKeeper
from tace_al.model.prediction import Prediction
from tace_al.model.tace import Tace

STACKED_SIZE = 100_000
"""Edges times channels. Up to here the number of operators counts, and one pass for all members is
faster (four members cost 1.7 times one at 9 atoms, 2.4 at 27); above it arithmetic does, and one
after the other needs less memory (measured on one core, width 64)."""

ONE_CALL_EDGES = 200_000
"""Up to here all members of a compiled network answer in one call; it keeps what each needs for its
gradient, about 1 kB an edge of four members at width 64."""


@final
class Committee(Ensemble):
    """Members of one shape that answer together.

    Parameters
    ----------
    members
        Models of the same configuration (elements, cutoff, size, dtype) on the same device; copied.
    head
        Name of the head that answers; the first by default.
    splines
        Read radial weights from splines, as `TaceCalculator` does.
    threads
        How many share the structures of a call, where the network is compiled; numbers do not
        depend on it. A structure is one thread's, so a single one gains nothing.
    """

    def __init__(
        self,
        members: Sequence[Tace],
        *,
        head: str | None = None,
        splines: bool = True,
        threads: int = 1,
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
        heads = (head,) if head else ()
        self._keeper = CompiledKeeper(self.members, heads) if splines else None
        self.threads = threads
        self._stacked_from: list[tuple[RadialSpline, ...]] | None = None
        self._tables: list[RadialSpline] = []

    @classmethod
    def load(
        cls, paths: Sequence[str | Path], *, device: str = "cpu", head: str | None = None
    ) -> "Committee":
        """Return the committee of the models in `.tace` files."""
        return cls([load(path, device=device) for path in paths], head=head)

    @property
    def is_compiled(self) -> bool:
        """Whether one compiled call answers for whole networks, which `threads` can share."""
        return self._compiled().network is not None

    def predict_batch(
        self,
        graph: AtomicGraph,
        *,
        stress: bool = False,
        descriptors: bool = False,
        member_forces: bool = True,
    ) -> list[Prediction]:
        """Return one prediction a structure; the mean of forces costs as much as all of them."""
        evaluate = self._evaluate_stacked if self._is_stacked(graph) else self._evaluate_in_turn
        answers = evaluate(graph, stress)
        return predictions_of(
            graph,
            energy=answers["energy"],
            forces=answers["forces"],
            member_forces=member_forces,
            stress=answers["stress"] if stress else None,
            descriptors=answers["descriptors"] if descriptors else None,
        )

    def _is_stacked(self, graph: AtomicGraph) -> bool:
        """Return whether all members answer in one pass."""
        if len(self) == 1 or not self._skeleton.takes_members:
            return False
        num_edges = graph.sender.shape[0]
        if self._compiled().network is not None:
            return num_edges <= ONE_CALL_EDGES
        return num_edges * max(self._skeleton.config.layer_channels) <= STACKED_SIZE

    @torch.enable_grad()
    def _evaluate_stacked(self, graph: AtomicGraph, stress: bool) -> dict[str, Tensor]:
        """Return every member's energies and forces, the mean stress, the first's descriptors."""
        inputs = self._inputs.of(graph) or self._skeleton.inputs(graph, head=self.head)
        vectors = graph.edge_vectors().to(self._skeleton.embedding.dtype)
        copies = vectors.expand(len(self), *vectors.shape)

        compiled = self._compiled()
        if compiled.network is not None:
            copies = copies.requires_grad_()
            output = self._skeleton(copies, inputs, network=compiled.network)
        else:
            copies = copies.clone().requires_grad_()
            arguments = (copies, inputs, (), self._stacked_splines(compiled.splines))
            output = torch.func.functional_call(self._skeleton, self._stacked, arguments)
        (gradient,) = torch.autograd.grad(output.node_energy.sum(), copies)
        energy = output.node_energy
        answers = answers_of(graph, inputs, energy=energy, gradient=gradient, stress=stress)
        return {**answers, "descriptors": inputs.unsorted(output.descriptors[0].detach())}

    def _compiled(self) -> Compiled:
        """Return what stands in for the members' modules, nothing where networks are used."""
        if self._keeper is None:
            return Compiled([() for _ in self.members], None)
        self._keeper.threads = self.threads
        return self._keeper.current()

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
        if stress:
            answers["stress"] = answers["stress"].mean(0)
        return {**answers, "descriptors": outputs[0].descriptors}
