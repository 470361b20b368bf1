"""A committee that shares its trunk: its members are heads of one model.

    E_k = sum_i readout_k(h_i),   F_k = -dE_k/dx

Features h are computed once and read by all heads together, whose weights are stacked along a
leading axis. Energies, their spread and the mean of the forces cost one reverse pass, of the mean
energy: hardly more than a single model. Every member's forces take as many cotangents through the
same graph, in one pass. Heads that learned from unlike samples of the data
(`tace_al.model.bootstrap_heads`) differ in their readouts alone: a cheaper, shallower view of what
is not known than that of models trained apart (`tace_al.model.committee`).
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from tace_al.core.errors import ModelError
from tace_al.data.graph import AtomicGraph
from tace_al.model.checkpoint import load
from tace_al.model.derivatives import (
    Variables,
    derived_outputs,
    edge_forces,
    edge_stress,
    variables_of,
)
from tace_al.model.embeddings import FIDELITY
from tace_al.model.ensemble import Ensemble, answers_of, predictions_of
from tace_al.model.kept_inputs import InputsKeeper
from tace_al.model.kernels import NetworkKernel, RadialSpline
from tace_al.model.network_weights import Compiled, CompiledKeeper
from tace_al.model.prediction import Prediction
from tace_al.model.tace import Tace

BATCHED_EDGES = 20_000
"""Up to here all members' forces come from one reverse pass; beyond, from one after the other,
which is as fast then and needs less memory."""


@final
class HeadCommittee(Ensemble):
    """Heads of one model that answer together; used as a `Committee`.

    Parameters
    ----------
    model
        A model with several heads; copied.
    heads
        Names of the members; all heads by default.
    splines
        Read radial weights from splines, as `TaceCalculator` does.

    Raises
    ------
    ModelError
        A head is not there or named twice, or the trunk is told which head it serves.

    Examples
    --------
    >>> from ase.build import molecule
    >>> model = Tace.from_preset("tiny", elements=["H", "O"], heads=("a", "b"))
    >>> (prediction,) = HeadCommittee(model).predict([molecule("H2O")], member_forces=False)
    >>> prediction.forces.shape, prediction.energy_spread > 0
    ((3, 3), True)
    """

    def __init__(
        self, model: Tace, heads: Sequence[str] | None = None, *, splines: bool = True
    ) -> None:
        self.heads = tuple(model.config.heads if heads is None else heads)
        if not self.heads or len(set(self.heads)) < len(self.heads):
            raise ModelError(f"{list(self.heads)} are no committee; name different heads")
        for name in self.heads:
            model.head(name)
        if FIDELITY in model.config.embeddings:
            raise ModelError(
                f"this model's trunk is told the level of theory ('{FIDELITY}' among its "
                "embeddings), so that its heads share nothing; train one without that embedding"
            )
        own = copy.deepcopy(model).requires_grad_(False).eval()
        self.members = (own,) * len(self.heads)
        self._network = _with_one_head(own, self.heads)
        self._inputs = InputsKeeper(self._network, self.heads[0])
        self._keeper = CompiledKeeper([own], self.heads) if splines else None

    @classmethod
    def load(
        cls, path: str | Path, *, device: str = "cpu", heads: Sequence[str] | None = None
    ) -> "HeadCommittee":
        """Return the committee of the heads of the model in a `.tace` file."""
        return cls(load(path, device=device), heads)

    def predict_batch(
        self,
        graph: AtomicGraph,
        *,
        stress: bool = False,
        descriptors: bool = False,
        member_forces: bool = True,
    ) -> list[Prediction]:
        """Return one prediction a structure; without `member_forces` at the price of one model."""
        compiled = self._keeper.current() if self._keeper else Compiled([()], None)
        if compiled.network is not None:
            answers = self._evaluate_compiled(graph, compiled.network, stress, member_forces)
        else:
            answers = self._evaluate_modules(graph, compiled.splines[0], stress, member_forces)
        return predictions_of(
            graph,
            energy=answers["energy"],
            forces=answers["forces"],
            member_forces=member_forces,
            stress=answers["stress"] if stress else None,
            descriptors=answers["descriptors"] if descriptors else None,
        )

    @torch.enable_grad()
    def _evaluate_compiled(
        self, graph: AtomicGraph, kernel: NetworkKernel, stress: bool, member_forces: bool
    ) -> dict[str, Tensor]:
        """Return energies, forces of each member or their mean, mean stress and descriptors."""
        network = self._network
        inputs = self._inputs.of(graph) or network.inputs(graph, head=self.heads[0])
        vectors = graph.edge_vectors().to(network.embedding.dtype)
        if member_forces:
            vectors = vectors.expand(len(self), *vectors.shape)
        vectors.requires_grad_()
        output = network(vectors, inputs, network=kernel)
        energy = output.node_energy.reshape(len(self), -1)
        total = energy.sum() if member_forces else energy.sum() / len(self)
        (gradient,) = torch.autograd.grad(total, vectors)
        by_member = gradient if member_forces else gradient.unsqueeze(0)
        answers = answers_of(graph, inputs, energy=energy, gradient=by_member, stress=stress)
        descriptors = output.descriptors.detach().reshape(graph.num_atoms, -1)
        return {**answers, "descriptors": inputs.unsorted(descriptors)}

    def _evaluate_modules(
        self,
        graph: AtomicGraph,
        splines: Sequence[RadialSpline],
        stress: bool,
        member_forces: bool,
    ) -> dict[str, Tensor]:
        """Return what `_evaluate_compiled` does, for any network."""
        network = self._network
        names = frozenset({"forces", "stress"} if stress else {"forces"})
        with torch.enable_grad():
            variables = variables_of(
                graph, names, network.embedding.dtype, absolute=network.config.reads_positions
            )
            inputs = self._inputs.of(graph) or network.inputs(
                graph, head=self.heads[0], variables=variables
            )
            output = network(variables.vectors, inputs, (), splines)
            energy = inputs.total(output.node_energy.T).T  # (members, systems)
            read = energy if member_forces else energy.mean(0, keepdim=True)
            forces, mean_stress = _mechanical(read, variables, graph, stress=stress)
        answers = {"energy": energy.detach(), "forces": forces}
        if mean_stress is not None:
            answers["stress"] = mean_stress
        return {**answers, "descriptors": inputs.unsorted(output.descriptors).detach()}


def _with_one_head(model: Tace, heads: Sequence[str]) -> Tace:
    """Return a copy in which the first head is all of them, weights on a leading axis."""
    states = [model.head(name).state_dict() for name in heads]
    network = copy.deepcopy(model)
    for name, weight in network.head(heads[0]).state_dict(keep_vars=True).items():
        weight.data = torch.stack([state[name] for state in states])
    return network


def _mechanical(
    energy: Float[Tensor, "members systems"],
    variables: Variables,
    graph: AtomicGraph,
    *,
    stress: bool,
) -> tuple[Float[Tensor, "members atoms 3"], Float[Tensor, "systems 3 3"] | None]:
    """Return the forces of each row of energies, and the mean of their stresses."""
    vectors = variables.vectors
    alone = len(energy) == 1 or len(vectors) > BATCHED_EDGES
    if alone or variables.positions is not None:
        names = frozenset({"forces", "stress"} if stress else {"forces"})
        found = [
            derived_outputs(own, variables, graph, names, create_graph=False) for own in energy
        ]
        forces = torch.stack([outputs["forces"] for outputs in found]).detach()
        if not stress:
            return forces, None
        return forces, torch.stack([outputs["stress"] for outputs in found]).mean(0).detach()
    totals = energy.sum(1)

    def gradient(cotangent: Tensor) -> Tensor:
        return torch.autograd.grad(totals, vectors, cotangent)[0]

    gradients = torch.func.vmap(gradient)(torch.eye(len(totals)).to(totals))  # (members, edges, 3)
    forces = edge_forces(gradients.transpose(0, 1), graph).transpose(0, 1)
    return forces, edge_stress(gradients.mean(0), vectors.detach(), graph) if stress else None
