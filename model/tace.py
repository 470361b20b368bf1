"""The Tensor Atomic Cluster Expansion network (arXiv 2509.14961).

Per layer: neighbours' features are coupled with harmonics of the edges and summed (interaction),
conditions such as fields are added, symmetric powers of the sum build the many-body features
(product), a species-dependent linear of the layer's input is added (residual). Heads read the
invariant part after every layer; charges and declared tensors are read in the same way.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tace_al.core.errors import ModelError
from tace_al.data.conditions import CONDITIONS, describe_place
from tace_al.data.graph import AtomicGraph
from tace_al.model import derivatives
from tace_al.model.config import Dtype, TaceConfig, preset_config
from tace_al.model.harmonics import CartesianHarmonics
from tace_al.model.head import Head
from tace_al.model.inputs import Geometry, NetworkInputs, edge_slots, slot_vectors
from tace_al.model.interaction import SpectralInteraction
from tace_al.model.linear import SpeciesGroups, SpeciesLinear
from tace_al.model.outputs import NetworkOutput, TaceOutput, check_outputs
from tace_al.model.product import SpectralProduct
from tace_al.model.radial import BesselBasis, polynomial_cutoff
from tace_al.model.zbl import ZBL

TORCH_DTYPES = {"float32": torch.float32, "float64": torch.float64}


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

    def inputs(
        self,
        graph: AtomicGraph,
        *,
        head: str | Sequence[str] | None = None,
        variables: derivatives.Variables | None = None,
    ) -> NetworkInputs:
        """Return what `forward` reads, with atoms sorted by species.

        Parameters
        ----------
        graph
            A batch with the conditions of `config.conditions`.
        head
            Name of the head, or one name a structure; the first head by default.
        variables
            Conditions, positions and cells to take instead of the graph's.

        Raises
        ------
        ModelError
            An element, head or required condition is missing.
        """
        species = self.species(graph.numbers)
        order = torch.argsort(species, stable=True)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        counts = torch.bincount(species, minlength=len(self.config.elements)).tolist()
        edges = edge_slots(place[graph.receiver], graph.num_atoms)
        system_index = graph.system_index[order]
        heads, head_of_system = self._heads_of(graph, head)
        geometry = None
        if self.reads_positions:
            moved = variables is not None and variables.positions is not None
            positions = variables.positions if moved else graph.positions
            cells = variables.cells if moved else graph.cells
            geometry = Geometry(
                positions=positions.index_select(0, order), cells=cells, pbc=graph.pbc
            )
        return NetworkInputs(
            groups=SpeciesGroups(species=species[order], counts=counts),
            edges=edges,
            sender=nn.functional.pad(place[graph.sender], (0, 1))[edges],
            place=place,
            system_index=system_index,
            num_systems=graph.num_systems,
            heads=heads,
            head_index=None if head_of_system is None else head_of_system[system_index],
            conditions=self._conditions_of(graph, variables, order),
            geometry=geometry,
        )

    def _heads_of(
        self, graph: AtomicGraph, head: str | Sequence[str] | None
    ) -> tuple[tuple[str, ...], Int[Tensor, " systems"] | None]:
        """Return the heads that read a batch and, if several, which reads each structure."""
        if head is None or isinstance(head, str):
            name = head or self.config.heads[0]
            self.head(name)
            return (name,), None
        if len(head) != graph.num_systems:
            raise ModelError(f"{len(head)} heads are named for {graph.num_systems} structures")
        present = tuple(dict.fromkeys(head))
        for name in present:
            self.head(name)
        if len(present) == 1:
            return present, None
        places = [present.index(name) for name in head]
        return present, torch.tensor(places, device=graph.numbers.device)

    def _conditions_of(
        self,
        graph: AtomicGraph,
        variables: derivatives.Variables | None,
        order: Int[Tensor, " atoms"],
    ) -> dict[str, Tensor]:
        """Return the conditions of each sorted atom in the network's dtype.

        Raises
        ------
        ModelError
            One that every training structure had is absent.
        """
        given = graph.conditions if variables is None else variables.conditions
        gathered = {}
        for name in self.config.conditions:
            if name not in graph.conditions:
                raise ModelError(
                    f"this model reads {name}, which the batch was made without; build it with "
                    f"graph_from_atoms(atoms, cutoff, conditions=model.config.conditions)"
                )
            if name in self.config.required_conditions and graph.conditions[name].isnan().any():
                raise ModelError(
                    f"this model was trained with {name} on every structure, and one here has "
                    f"none; set {describe_place(name)}"
                )
            per_structure = CONDITIONS[name].per == "structure"
            rows = graph.system_index[order] if per_structure else order
            gathered[name] = given[name].index_select(0, rows).to(self.embedding.dtype)
        return gathered

    @property
    def reads_positions(self) -> bool:
        """Whether absolute positions matter, not edge vectors alone."""
        return self.config.charges != "none"

    def forward(
        self,
        vectors: Float[Tensor, "edges 3"],
        inputs: NetworkInputs,
        outputs: Sequence[str] = (),
    ) -> NetworkOutput:
        """Return site energies, descriptors and direct outputs of the sorted atoms.

        A pure function of the edge vectors r_ij (Angstrom, the network's dtype), the inputs and the
        weights, so that `torch.func` transforms apply; `evaluate` is the way to everything else.
        """
        groups, sender, species = inputs.groups, inputs.sender, inputs.groups.species
        num_atoms, num_slots = sender.shape
        # an empty slot holds a vector far beyond every cutoff
        slots = slot_vectors(vectors, inputs.edges, outside=10.0 * self.config.cutoff)
        r = slots.norm(dim=1)
        envelope = polynomial_cutoff(r, self.config.cutoff)
        radial = self.radial_basis(r, envelope)
        harmonics = self.harmonics(slots / r.unsqueeze(1)).reshape(num_atoms, num_slots, -1)
        harmonics = harmonics.transpose(1, 2)
        features = self.embedding.index_select(0, species).unsqueeze(1)  # (atoms, 1, channels)
        layers = []
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
            layers.append(features)
        coordination = envelope.reshape(num_atoms, num_slots).sum(dim=1)
        layer_scalars = [layer[:, 0] for layer in layers]
        energy = self._site_energy(layer_scalars, inputs, coordination)
        if self.zbl is not None:
            repulsion = self.zbl(r.reshape(num_atoms, num_slots), species[sender], species)
            energy = energy + repulsion.sum(dim=1).double()
        return NetworkOutput(energy, torch.cat(layer_scalars, dim=1), {})

    def _site_energy(
        self,
        layer_scalars: Sequence[Float[Tensor, "atoms channels"]],
        inputs: NetworkInputs,
        coordination: Float[Tensor, " atoms"],
    ) -> Float[Tensor, " atoms"]:
        """Return the site energies that each atom's head reads."""
        species = inputs.groups.species
        energies = [self.head(name)(layer_scalars, species, coordination) for name in inputs.heads]
        energy = energies[0]
        for index, other in enumerate(energies[1:], start=1):
            assert inputs.head_index is not None
            energy = torch.where(inputs.head_index == index, other, energy)
        return energy

    def evaluate(
        self,
        graph: AtomicGraph,
        outputs: Sequence[str] = ("forces",),
        *,
        head: str | Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> TaceOutput:
        """Return energies and whatever else is named (`tace_al.model.outputs`).

        Parameters
        ----------
        graph
            A batch with the conditions of `config.conditions`.
        outputs
            Names besides "energy", "node_energy" and "descriptors", which are always there.
            Nothing else is computed.
        head
            Name of the head, or one name a structure; the first head by default.
        create_graph
            Keep the graph of every output, so that a loss on them can be differentiated.

        Raises
        ------
        ModelError
            An output, head, element or condition is not there.
        """
        names = frozenset(outputs)
        check_outputs(names, self.config)
        direct = names & {output.name for output in self.config.outputs}
        derived = names - direct
        variables = derivatives.variables_of(
            graph, derived, self.embedding.dtype, absolute=self.reads_positions
        )
        inputs = self.inputs(graph, head=head, variables=variables)
        with torch.set_grad_enabled(create_graph or bool(derived)):
            network = self(variables.vectors, inputs, tuple(sorted(names)))
        node_energy = inputs.unsorted(network.node_energy)
        energy = inputs.total(network.node_energy)
        tensors = self._direct(network, inputs, direct)
        tensors |= derivatives.derived_outputs(
            energy, variables, graph, derived, create_graph=create_graph
        )
        descriptors = inputs.unsorted(network.descriptors)
        if not create_graph:  # nothing that follows is to be differentiated
            energy, node_energy = energy.detach(), node_energy.detach()
            descriptors = descriptors.detach()
            tensors = {name: tensor.detach() for name, tensor in tensors.items()}
        return TaceOutput(
            energy=energy, node_energy=node_energy, descriptors=descriptors, tensors=tensors
        )

    def _direct(
        self, network: NetworkOutput, inputs: NetworkInputs, names: frozenset[str]
    ) -> dict[str, Tensor]:
        """Return declared tensors, summed over each structure where they belong to structures."""
        kinds = {output.name: output.per for output in self.config.outputs}
        return {
            name: inputs.total(network.tensors[name])
            if kinds[name] == "structure"
            else inputs.unsorted(network.tensors[name])
            for name in names
        }
