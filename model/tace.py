"""The Tensor Atomic Cluster Expansion network (arXiv 2509.14961).

Per layer: neighbours' features are coupled with harmonics of the edges and summed (interaction),
symmetric powers of the sum build the many-body features (product), a species-dependent linear of
the layer's input is added (residual). Heads read the invariant part after every layer.

Energies depend on positions and cells only through the edge vectors r_ij, so one derivative
g_ij = dE/dr_ij gives everything: force_i = -sum_j g_ij + sum_j g_ji, and the stress
(1/V) sum_ij r_ij g_ij^T, equal to (1/V) dE/dstrain (compressed < 0).
"""

import math
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tace_al.core.errors import ModelError
from tace_al.data.graph import AtomicGraph
from tace_al.model.config import Dtype, TaceConfig, preset_config
from tace_al.model.harmonics import CartesianHarmonics
from tace_al.model.head import Head
from tace_al.model.interaction import SpectralInteraction
from tace_al.model.linear import SpeciesGroups, SpeciesLinear
from tace_al.model.product import SpectralProduct
from tace_al.model.radial import BesselBasis, polynomial_cutoff
from tace_al.model.zbl import ZBL

TORCH_DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True, kw_only=True, slots=True)
class TaceOutput:
    """What the network says about a batch.

    Parameters
    ----------
    energy
        (systems,) eV, float64.
    node_energy
        (atoms,) eV, float64; sums to `energy`.
    forces
        (atoms, 3) eV/Angstrom, -dE/dr.
    stress
        (systems, 3, 3) eV/Angstrom^3, (1/V) dE/dstrain; NaN for structures without a volume.
    descriptors
        (atoms, num_layers * channels) invariant features of each atom.
    """

    energy: Float[Tensor, " systems"]
    node_energy: Float[Tensor, " atoms"]
    forces: Float[Tensor, "atoms 3"] | None
    stress: Float[Tensor, "systems 3 3"] | None
    descriptors: Float[Tensor, "atoms features"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkInputs:
    """The discrete part of a batch, atoms sorted by species.

    Parameters
    ----------
    groups
        Species of the sorted atoms.
    edges
        Edges that end at each sorted atom, filled up to one length with the number of edges, which
        stands for no edge.
    sender
        Sorted place of the atom where each of them begins.
    place
        Sorted place of each atom of the graph.
    """

    groups: SpeciesGroups
    edges: Int[Tensor, "atoms slots"]
    sender: Int[Tensor, "atoms slots"]
    place: Int[Tensor, " atoms"]


@final
class Tace(nn.Module):
    """A TACE potential with random weights; training or `tace_al.load` gives useful ones."""

    def __init__(self, config: TaceConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.metadata: dict[str, Any] = {}
        num_species = len(config.elements)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embedding = nn.Parameter(torch.randn(num_species, config.channels))
            self.radial_basis = BesselBasis(config.num_bessel, config.cutoff)
            self.harmonics = CartesianHarmonics(config.l_edge)
            self.interactions = nn.ModuleList()
            self.products = nn.ModuleList()
            self.residuals = nn.ModuleList()
            for layer in range(config.num_layers):
                l_feature = 0 if layer == 0 else config.l_hidden
                l_out = 0 if layer == config.num_layers - 1 else config.l_hidden
                self.interactions.append(
                    SpectralInteraction(
                        l_feature=l_feature,
                        l_edge=config.l_edge,
                        channels=config.channels,
                        num_radial=config.num_bessel,
                        radial_hidden=config.radial_hidden,
                        average_neighbours=config.average_neighbours,
                    )
                )
                self.products.append(
                    SpectralProduct(
                        l_in=config.l_edge,
                        l_out=l_out,
                        correlation=config.correlation,
                        channels=config.channels,
                        num_species=num_species,
                    )
                )
                self.residuals.append(
                    SpeciesLinear(min(l_feature, l_out), config.channels, num_species)
                )
            self.heads = nn.ModuleDict(
                {
                    name: Head(
                        num_layers=config.num_layers,
                        channels=config.channels,
                        num_species=num_species,
                    )
                    for name in config.heads
                }
            )
        self.zbl = ZBL(config.numbers, config.cutoff) if config.zbl else None
        species_of_number = torch.full((119,), -1, dtype=torch.int64)
        species_of_number[torch.tensor(config.numbers)] = torch.arange(num_species)
        self.register_buffer("species_of_number", species_of_number, persistent=False)
        self.species_of_number: Tensor
        self._set_dtype(TORCH_DTYPES[config.dtype])

    @classmethod
    def from_preset(
        cls, preset: str, *, elements: list[str], seed: int = 0, **options: Any
    ) -> "Tace":
        """Return an untrained model of a named shape.

        >>> model = Tace.from_preset("small", elements=["H", "O"], seed=0)
        >>> model.config.channels
        64
        """
        return cls(preset_config(preset, elements=tuple(elements), **options), seed=seed)

    def _set_dtype(self, dtype: torch.dtype) -> None:
        """Put network arithmetic in `dtype`; energies and head constants stay float64."""
        constants = {"e0", "scale", "shift"}
        for module in self.modules():
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)
            for name, buffer in module.named_buffers(recurse=False):
                if buffer.is_floating_point() and name not in constants:
                    setattr(module, name, buffer.to(dtype))

    def as_dtype(self, dtype: Dtype) -> "Tace":
        """Return a copy whose arithmetic is "float32" or "float64"."""
        if dtype not in TORCH_DTYPES:
            raise ModelError(f"dtype '{dtype}' is not one of {', '.join(TORCH_DTYPES)}")
        copy = type(self)(replace(self.config, dtype=dtype))
        copy.load_state_dict(self.state_dict())
        copy.metadata = dict(self.metadata)
        return copy.to(self.embedding.device)

    @property
    def num_parameters(self) -> int:
        """Number of trainable numbers."""
        return sum(parameter.numel() for parameter in self.parameters())

    def head(self, name: str | None = None) -> Head:
        """Return a head by name; the first one when no name is given."""
        name = name or self.config.heads[0]
        if name not in self.heads:
            raise ModelError(f"no head '{name}'; this model has {', '.join(self.config.heads)}")
        head = self.heads[name]
        assert isinstance(head, Head)
        return head

    def species(self, numbers: Int[Tensor, " atoms"]) -> Int[Tensor, " atoms"]:
        """Return the species index of each atomic number.

        Raises
        ------
        ModelError
            An element is not one of the model's.
        """
        species = self.species_of_number[numbers]
        if bool((species < 0).any()):
            unknown = sorted(set(numbers[species < 0].tolist()))
            raise ModelError(
                f"atomic numbers {unknown} are unknown to this model, which was made for "
                f"{', '.join(self.config.elements)}; train one that includes them"
            )
        return species

    def inputs(self, graph: AtomicGraph) -> NetworkInputs:
        """Return what `forward` reads, with atoms sorted by species."""
        species = self.species(graph.numbers)
        order = torch.argsort(species, stable=True)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        counts = torch.bincount(species, minlength=len(self.config.elements)).tolist()
        edges = edge_slots(place[graph.receiver], graph.num_atoms)
        return NetworkInputs(
            groups=SpeciesGroups(species=species[order], counts=counts),
            edges=edges,
            sender=nn.functional.pad(place[graph.sender], (0, 1))[edges],
            place=place,
        )

    def forward(
        self,
        vectors: Float[Tensor, "edges 3"],
        inputs: NetworkInputs,
        head: str | None = None,
    ) -> tuple[Float[Tensor, " atoms"], Float[Tensor, "atoms features"]]:
        """Return site energies (eV, float64) and invariant descriptors of the sorted atoms.

        A pure function of the edge vectors r_ij (Angstrom, the network's dtype) and the weights, so
        that `torch.func` transforms apply; `evaluate` is the way to energies, forces and stress.
        """
        groups, sender, species = inputs.groups, inputs.sender, inputs.groups.species
        num_atoms, num_slots = sender.shape
        # an empty slot holds a vector far beyond every cutoff
        slots = nn.functional.pad(vectors, (0, 0, 0, 1), value=10.0 * self.config.cutoff)
        slots = slots.index_select(0, inputs.edges.reshape(-1))  # (atoms * slots, 3)
        r = slots.norm(dim=1)
        envelope = polynomial_cutoff(r, self.config.cutoff)
        radial = self.radial_basis(r, envelope)
        harmonics = self.harmonics(slots / r.unsqueeze(1)).reshape(num_atoms, num_slots, -1)
        harmonics = harmonics.transpose(1, 2)
        features = self.embedding.index_select(0, species).unsqueeze(1)  # (atoms, 1, channels)
        layer_scalars = []
        for interaction, product, residual in zip(
            self.interactions, self.products, self.residuals, strict=True
        ):
            message = interaction(features, harmonics, radial, sender)
            updated = product(message, groups)
            carried = residual(features, groups)
            if carried.shape[1] < updated.shape[1]:
                missing = updated.shape[1] - carried.shape[1]
                carried = nn.functional.pad(carried, (0, 0, 0, missing))
            features = (updated + carried) * math.sqrt(0.5)
            layer_scalars.append(features[:, 0])
        coordination = envelope.reshape(num_atoms, num_slots).sum(dim=1)
        energy = self.head(head)(layer_scalars, species, coordination)
        if self.zbl is not None:
            repulsion = self.zbl(r.reshape(num_atoms, num_slots), species[sender], species)
            energy = energy + repulsion.sum(dim=1).double()
        return energy, torch.cat(layer_scalars, dim=1)

    def evaluate(
        self,
        graph: AtomicGraph,
        *,
        forces: bool = True,
        stress: bool = False,
        create_graph: bool = False,
        head: str | None = None,
    ) -> TaceOutput:
        """Return energies, forces and stresses of a batch.

        `create_graph` keeps the graph of the forces, so that a loss on them can be differentiated.
        """
        vectors = graph.edge_vectors().to(self.embedding.dtype)
        derivative = forces or stress
        vectors.requires_grad_(derivative)
        inputs = self.inputs(graph)
        sorted_energy, sorted_descriptors = self(vectors, inputs, head)
        node_energy = sorted_energy.index_select(0, inputs.place)
        energy = torch.zeros(
            graph.num_systems, dtype=torch.float64, device=node_energy.device
        ).index_add(0, graph.system_index, node_energy)
        gradient = (
            torch.autograd.grad(energy.sum(), vectors, create_graph=create_graph)[0]
            if derivative
            else None
        )
        if not create_graph:  # nothing that follows is to be differentiated
            energy, node_energy = energy.detach(), node_energy.detach()
            vectors, sorted_descriptors = vectors.detach(), sorted_descriptors.detach()
        return TaceOutput(
            energy=energy,
            node_energy=node_energy,
            forces=edge_forces(gradient, graph) if gradient is not None and forces else None,
            stress=(
                edge_stress(gradient, vectors, graph) if gradient is not None and stress else None
            ),
            descriptors=sorted_descriptors.index_select(0, inputs.place),
        )


def edge_slots(receiver: Int[Tensor, " edges"], num_atoms: int) -> Int[Tensor, "atoms slots"]:
    """Return the edges that end at each atom, in rows of one length.

    Rows are filled with the number of edges; there is at least one column.
    """
    num_edges = receiver.shape[0]
    order = torch.argsort(receiver, stable=True)
    counts = torch.bincount(receiver, minlength=num_atoms)
    width = max(int(counts.max()), 1) if num_edges else 1
    ends = torch.cumsum(counts, dim=0)
    column = torch.arange(num_edges, device=receiver.device) - (ends - counts)[receiver[order]]
    slots = torch.full((num_atoms, width), num_edges, device=receiver.device)
    slots[receiver[order], column] = order
    return slots


def edge_forces(gradient: Float[Tensor, "edges 3"], graph: AtomicGraph) -> Float[Tensor, "atoms 3"]:
    """Return -dE/dr_i from g_ij = dE/dr_ij with r_ij = r_i - r_j."""
    forces = torch.zeros(graph.num_atoms, 3, dtype=gradient.dtype, device=gradient.device)
    return forces.index_add(0, graph.sender, gradient).index_add(0, graph.receiver, -gradient)


def edge_stress(
    gradient: Float[Tensor, "edges 3"], vectors: Float[Tensor, "edges 3"], graph: AtomicGraph
) -> Float[Tensor, "systems 3 3"]:
    """Return (1/V) sum_ij r_ij g_ij^T, made symmetric; NaN where a structure has no volume."""
    outer = vectors.unsqueeze(2) * gradient.unsqueeze(1)
    virial = torch.zeros(
        graph.num_systems, 3, 3, dtype=gradient.dtype, device=gradient.device
    ).index_add(0, graph.system_index[graph.sender], outer)
    symmetric = 0.5 * (virial + virial.transpose(1, 2))
    volumes = graph.volumes.to(symmetric.dtype)[:, None, None]
    bounded = ~torch.isnan(volumes)
    # divide by a finite number everywhere: NaN in a masked branch would poison the gradient
    stress = symmetric / torch.where(bounded, volumes, torch.ones_like(volumes))
    return torch.where(bounded, stress, torch.full_like(stress, math.nan))
