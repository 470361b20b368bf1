"""The Tensor Atomic Cluster Expansion network (arXiv 2509.14961).

Per layer: neighbours' features are coupled with harmonics of the edges and summed (interaction),
conditions such as fields are added, symmetric powers of the sum build the many-body features
(product), a species-dependent linear of the layer's input is added (residual). Heads read the
invariant part after every layer; charges and declared tensors are read in the same way.
"""

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tace_al.core.errors import ModelError
from tace_al.data.graph import AtomicGraph
from tace_al.model import derivatives
from tace_al.model.charge_outputs import charge_outputs
from tace_al.model.charges import ChargeReadout
from tace_al.model.config import Dtype, TaceConfig, preset_config
from tace_al.model.distance_transform import AgnesiTransform
from tace_al.model.edges import EdgeFunctions, compiled_edge_functions, edge_functions
from tace_al.model.embeddings import INVARIANTS, InvariantEmbeddings
from tace_al.model.ewald import ewald_energy
from tace_al.model.ewald_mesh import mesh_ewald_energy
from tace_al.model.gate import EquivariantGate
from tace_al.model.harmonics import CartesianHarmonics
from tace_al.model.head import Head, lone_gate, smooth_gate
from tace_al.model.inputs import NetworkInputs, heads_of, network_inputs
from tace_al.model.interaction import SplinedWeights
from tace_al.model.kernels import GeometryKernel, NetworkKernel, RadialSpline, fused
from tace_al.model.layer import (
    MessageConditions,
    make_basis,
    make_interaction,
    make_product,
    make_residual,
)
from tace_al.model.linear import SpeciesLinear, joined
from tace_al.model.outputs import NetworkOutput, OutputPlan, TaceOutput, output_plan
from tace_al.model.tensor_readout import TensorReadout
from tace_al.model.zbl import ZBL

_SEEDING = threading.Lock()  # the generator that modules draw their weights from is everybody's
TORCH_DTYPES = {"float32": torch.float32, "float64": torch.float64}


@final
class Tace(nn.Module):
    """A TACE potential with random weights; training or `tace_al.load` gives useful ones."""

    def __init__(self, config: TaceConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.metadata: dict[str, Any] = {}
        with _SEEDING, torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embedding = nn.Parameter(
                torch.randn(len(config.elements), config.layer_channels[0])
            )
            self.radial_basis = make_basis(config)
            self.harmonics = CartesianHarmonics(config.l_edge)
            self._add_layers(config)
            self._add_readouts(config)
        self.distance_transform = (
            AgnesiTransform(config.numbers, config.cutoff)
            if config.distance_transform == "agnesi"
            else None
        )
        self.zbl = ZBL(config.numbers, config.cutoff) if config.zbl else None
        self.geometry = GeometryKernel(
            l_max=config.l_edge,
            cutoff=config.cutoff,
            power=config.cutoff_power,
            repulsion=None if self.zbl is None else self.zbl.constants(),
        )
        species_of_number = torch.full((119,), -1, dtype=torch.int64)
        species_of_number[torch.tensor(config.numbers)] = torch.arange(len(config.elements))
        self.register_buffer("species_of_number", species_of_number, persistent=False)
        self.species_of_number: Tensor
        self._set_dtype(TORCH_DTYPES[config.dtype])

    def _add_layers(self, config: TaceConfig) -> None:
        """Make what carries features from layer to layer."""
        layers = range(config.num_layers)
        self.interactions = nn.ModuleList()
        self.products = nn.ModuleList()
        self.residuals = nn.ModuleList()
        for layer in layers:
            self.interactions.append(make_interaction(config, layer))
            self.products.append(make_product(config, layer))
            self.residuals.append(make_residual(config, layer))
        conditioned = {"electric_field", "magnetic_moments"} & set(config.embeddings)
        self.message_conditions = nn.ModuleList(
            MessageConditions(config, layer) for layer in layers if conditioned
        )
        self.gates = nn.ModuleList(
            EquivariantGate(config.layer_degrees[layer], config.layer_channels[layer])
            for layer in layers
            if config.gate
        )
        invariants = [name for name in config.embeddings if name in INVARIANTS]
        self.scalar_embeddings = (
            InvariantEmbeddings(
                invariants,
                config.layer_channels[0],
                config.heads,
                width=config.embedding_width,
                activation=config.embedding_activation,
            )
            if invariants
            else None
        )

    def _add_readouts(self, config: TaceConfig) -> None:
        """Make what reads the features: heads, charges and declared tensors."""
        channels, num_species = config.layer_channels, len(config.elements)
        self.heads = nn.ModuleDict(
            {
                name: Head(channels=channels, num_species=num_species, width=config.readout_width)
                for name in config.heads
            }
        )
        self.charges = (
            ChargeReadout(channels=channels, num_species=num_species, constraint=config.charges)
            if config.charges != "none"
            else None
        )
        shapes = list(zip(config.layer_degrees, channels, strict=True))
        self.tensor_readouts = nn.ModuleDict(
            {
                output.name: TensorReadout(
                    output.rank, output.symmetry, layer_shapes=shapes, num_species=num_species
                )
                for output in config.outputs
            }
        )

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
        constants = {"e0", "scale", "shift", "reference"}
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

    @property
    def takes_members(self) -> bool:
        """Whether `forward` carries a leading axis of members: spectral layers and heads alone."""
        config = self.config
        return (
            all(product == "spectral" for product in config.layer_products)
            and config.product_weights == "channel"
            and config.radial_envelope == "basis"
            and config.distance_transform == "none"
            and not config.embeddings
            and config.charges == "none"
            and not (config.gate or config.species_radial or config.density_normalisation)
        )

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
        return network_inputs(
            graph,
            self.config,
            species=self.species(graph.numbers),
            heads=heads_of(graph, self.config, head),
            variables=variables,
            dtype=self.embedding.dtype,
        )

    def forward(
        self,
        vectors: Float[Tensor, "*members edges 3"],
        inputs: NetworkInputs,
        outputs: Sequence[str] = (),
        splines: Sequence[RadialSpline] = (),
        network: NetworkKernel | None = None,
    ) -> NetworkOutput:
        """Return site energies, descriptors and direct outputs of the sorted atoms.

        A pure function of the edge vectors r_ij (Angstrom, the network's dtype), the inputs and the
        weights, so that `torch.func` transforms apply; `evaluate` is the way to everything else.
        A network that `takes_members` also evaluates many sets of weights, stacked on a leading
        axis, at as many sets of vectors.
        """
        compiled = fused(vectors)
        if compiled and network and not outputs and inputs.heads == (network.head,):
            return NetworkOutput(*network(vectors, inputs.slots), {})
        species = inputs.groups.species
        evaluated = bool(splines) and compiled
        edges = (compiled_edge_functions if evaluated else edge_functions)(self, vectors, inputs)
        layers = self._features(edges, inputs, splines)
        scalars = [layer[..., 0, :] for layer in layers]
        energy = self._site_energy(scalars, inputs, edges.coordination)
        if edges.repulsion is not None:
            energy = energy + edges.repulsion.double()
        tensors: dict[str, Tensor] = {}
        if self.charges is not None:
            charges = self._charges(scalars, inputs, edges.coordination)
            energy = energy + self._electrostatic(charges, inputs)
            tensors["charges"] = charges
        for name in outputs:
            if name in self.tensor_readouts:
                readout = self.tensor_readouts[name]
                tensors[name] = readout(layers, species, edges.coordination)
        return NetworkOutput(energy, torch.cat(scalars, dim=-1), tensors)

    def radial_functions(self, graph: AtomicGraph) -> Float[Tensor, "edges functions"]:
        """Return what the radial networks read of every edge, slot by slot."""
        inputs = self.inputs(graph)
        edges = edge_functions(self, graph.edge_vectors().to(self.embedding.dtype), inputs)
        assert edges.radial is not None
        return edges.radial[(inputs.edges < graph.sender.shape[0]).reshape(-1)]

    def _features(
        self, edges: EdgeFunctions, inputs: NetworkInputs, splines: Sequence[RadialSpline]
    ) -> list[Tensor]:
        """Return the features after each layer, (atoms, components, channels)."""
        groups, sender, species = inputs.groups, inputs.sender, inputs.groups.species
        scalars = self.embedding.index_select(-2, species)
        # before the first layer features are those of species: a table instead of every atom's
        sources, rows = self.embedding.unsqueeze(-2), inputs.sender_species
        if self.scalar_embeddings is not None:
            scalars = self.scalar_embeddings(
                scalars, inputs.conditions, heads=inputs.heads, head_index=inputs.head_index
            )
            sources, rows = scalars.unsqueeze(-2), sender
        features = scalars.unsqueeze(-2)  # (atoms, 1, channels)
        layers: list[Tensor] = []
        for index, (interaction, product, residual) in enumerate(
            zip(self.interactions, self.products, self.residuals, strict=True)
        ):
            if index > 0:
                sources, rows = features, sender
            message = interaction(
                sources,
                edges.harmonics,
                edges.radial,
                rows,
                pairs=edges.pairs,
                edges=replace(inputs.blocks, sender=rows.reshape(-1)),
                splined=SplinedWeights(spline=splines[index], distances=edges.r)
                if splines
                else None,
            )
            source = message if self.config.residual == "message" else features
            if len(self.message_conditions):
                add_conditions = self.message_conditions[index]
                message = add_conditions(message, inputs, edges.radial, edges.harmonics)
            updated = product(message, groups)
            if len(self.gates):
                updated = self.gates[index](updated)
            features = updated
            if isinstance(residual, SpeciesLinear):
                features = joined(updated, residual(source, groups))
            layers.append(features)
        return layers

    def _charges(
        self, scalars: Sequence[Tensor], inputs: NetworkInputs, coordination: Tensor
    ) -> Float[Tensor, " atoms"]:
        """Return the charges of the sorted atoms in e."""
        assert inputs.geometry is not None
        assert self.charges is not None
        return self.charges(
            scalars,
            inputs.groups.species,
            coordination=coordination,
            total_charge=inputs.geometry.total_charge,
            system_index=inputs.system_index,
        )

    def _electrostatic(
        self, charges: Float[Tensor, " atoms"], inputs: NetworkInputs
    ) -> Float[Tensor, " atoms"]:
        """Return the long-range energy of each sorted atom in eV."""
        geometry = inputs.geometry
        if geometry is None or self.config.long_range == "none":
            return torch.zeros_like(charges)
        energy_of = mesh_ewald_energy if self.config.long_range == "pme" else ewald_energy
        return energy_of(
            geometry.positions,
            charges,
            cells=geometry.cells,
            pbc=geometry.pbc,
            system_index=inputs.system_index,
            sigma=self.config.ewald_width,
        )

    def _site_energy(
        self,
        layer_scalars: Sequence[Float[Tensor, "*#members atoms _"]],
        inputs: NetworkInputs,
        coordination: Float[Tensor, "*#members atoms"],
    ) -> Float[Tensor, "*#members atoms"]:
        """Return the site energies that each atom's head reads."""
        species = inputs.groups.species
        gate = (
            smooth_gate(coordination)
            if self.config.site_gate == "smooth"
            else lone_gate(coordination, inputs.system_index, inputs.num_systems)
        )
        energies = [self.head(name)(layer_scalars, species, gate) for name in inputs.heads]
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
        inputs: NetworkInputs | None = None,
        splines: Sequence[RadialSpline] = (),
        network: NetworkKernel | None = None,
    ) -> TaceOutput:
        """Return energies and whatever else is named (`tace_al.model.outputs`).

        Parameters
        ----------
        graph
            A batch with the conditions of `config.conditions`.
        outputs
            All but "energy", "node_energy" and "descriptors"; nothing else is computed.
        head
            Name of the head, or one name a structure; the first head by default.
        create_graph
            Keep the graph of every output, so that a loss on them can be differentiated.
        inputs
            Those of this batch and head if they are known (`tace_al.model.kept_inputs`).
        splines, network
            Radial weights of every layer, and the whole network, in place of the modules
            (`tace_al.model.network_weights.Compiled`); those of these very weights.

        Raises
        ------
        ModelError
            An output, head, element or condition is not there, or splines cannot serve.
        """
        plan = output_plan(frozenset(outputs), self.config)
        if "hessian" in plan.derived and graph.num_systems > 1:
            raise ModelError("a Hessian is that of one structure; evaluate them one by one")
        twice = create_graph or plan.derived & derivatives.SECOND or plan.of_dipole
        if twice and (splines or network):
            raise ModelError("splines serve first derivatives; leave them out here")
        with torch.set_grad_enabled(create_graph or bool(plan.moved)):
            variables = derivatives.variables_of(
                graph, plan.moved, self.embedding.dtype, absolute=self.config.reads_positions
            )
            if inputs is None:
                inputs = self.inputs(graph, head=head, variables=variables)
            found = self(variables.vectors, inputs, tuple(sorted(plan.direct)), splines, network)
            node_energy = inputs.unsorted(found.node_energy)
            energy = inputs.total(found.node_energy)
            tensors = self._read(found, inputs, variables, graph, plan, create_graph=create_graph)
            tensors |= derivatives.derived_outputs(
                energy, variables, graph, plan.derived, create_graph=create_graph
            )
        output = TaceOutput(
            energy=energy,
            node_energy=node_energy,
            descriptors=inputs.unsorted(found.descriptors),
            tensors=tensors,
        )
        return output if create_graph else output.detached()

    def _read(
        self,
        network: NetworkOutput,
        inputs: NetworkInputs,
        variables: derivatives.Variables,
        graph: AtomicGraph,
        plan: OutputPlan,
        *,
        create_graph: bool,
    ) -> dict[str, Tensor]:
        """Return what is read off features and charges, and what follows from such a dipole."""
        tensors = self._direct(network, inputs, graph, plan.direct)
        if plan.of_dipole:
            tensors["born_charges"] = derivatives.born_charges_of(
                tensors["dipole"], variables, graph, create_graph=create_graph
            )
        if plan.charged:  # added to what is read directly
            charges = inputs.unsorted(network.tensors["charges"])
            found = charge_outputs(
                charges, variables.vectors, graph, plan.charged, create_graph=create_graph
            )
            tensors |= {name: tensors.get(name, 0.0) + part for name, part in found.items()}
        return tensors

    def _direct(
        self,
        network: NetworkOutput,
        inputs: NetworkInputs,
        graph: AtomicGraph,
        names: frozenset[str],
    ) -> dict[str, Tensor]:
        """Return declared tensors, summed over each structure where they belong to structures.

        A declared stress is divided by the volume.
        """
        kinds = {output.name: output.per for output in self.config.outputs}
        tensors = {
            name: inputs.total(network.tensors[name])
            if kinds[name] == "structure"
            else inputs.unsorted(network.tensors[name])
            for name in names
        }
        if "stress" in tensors:
            tensors["stress"] = derivatives.stress_of(tensors["stress"], graph)
        return tensors
