"""The networks that the contract is checked on, what they are asked, and how answers transform.

Twenty-four small networks cover every product, option, embedding, output and charge model; each
runs through each contract that applies to it. Every weight is moved from where training would start
(embedding tables and last layers begin at zero), so that no check passes because nothing acts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from ase import Atoms
from torch import Tensor

from tace_al.data.conditions import CONDITIONS
from tace_al.data.graph import AtomicGraph, batch_graphs, graph_from_atoms
from tace_al.model.config import FIDELITY, TaceConfig, TensorOutput
from tace_al.model.derivatives import SECOND
from tace_al.model.network_weights import Compiled, CompiledKeeper
from tace_al.model.outputs import available_outputs
from tace_al.model.tace import Tace

CUTOFF = 4.0
ELEMENTS = ("H", "C", "O", "Cu", "Au")
EXACT = 1e-10
"""float64: of the largest value."""
SINGLE = 2e-4
"""float32: rounding of 1e-7 through two to three layers, powers up to four, and derivatives."""

INVARIANTS = (
    "total_charge",
    "spin_multiplicity",
    "electronic_temperature",
    "initial_charges",
    "collinear_moments",
)
MAGNETIC = ("magnetic_moments", "magnetic_field")
TENSORS = (
    TensorOutput(name="volume", rank=0, per="atom"),
    TensorOutput(name="velocity", rank=1, per="atom"),
    TensorOutput(name="moment", rank=1),
    TensorOutput(name="quadrupole", rank=2, symmetry="ij=ji"),
    TensorOutput(name="shielding", rank=2, per="atom"),
    TensorOutput(name="rotation", rank=2, symmetry="ij=-ji"),
    TensorOutput(name="piezo", rank=3, symmetry="ijk=ikj"),
    TensorOutput(name="chiral", rank=3, symmetry="ijk=-jik=-ikj"),
    TensorOutput(name="hyper", rank=3),
    TensorOutput(name="elastic", rank=4, symmetry="ijkl=jikl=klij"),
    TensorOutput(name="fourth", rank=4, per="atom"),
)

NOT_COMPILED = Compiled([()], None)

POTENTIALS: dict[str, dict] = {
    "tiny": {},
    "decaying": {"radial_decay": 1.0},
    "wide": {"channels": 6, "l_edge": 3, "l_hidden": 2, "num_layers": 3},
    "spatial": {
        "products": ("spatial",),
        "radial_basis": "chebyshev",
        "gate": True,
        "heads": ("gfn2", "pbe"),
    },
    "moment": {
        "products": ("moment",),
        "l_edge": 3,
        "radial_basis": "gaussian",
        "species_radial": True,
        "first_layer_residual": False,
    },
    "coupled": {
        "product_weights": "coupled",
        "residual": "message",
        "cutoff_power": 6,
        "embeddings": ("spin_multiplicity", "electronic_temperature"),
        "embedding_activation": "silu",
        "embedding_width": 8,
        "readout_width": 8,
    },
    "mixed products": {
        "products": ("moment", "spatial", "spectral"),
        "num_layers": 3,
        "channels": (4, 6, 5),
        "distance_transform": "agnesi",
        "density_normalisation": True,
    },
    "invariants": {
        "embeddings": (*INVARIANTS, FIDELITY),
        "heads": ("gfn2", "pbe", "ccsd"),
        "species_radial": True,
        "distance_transform": "agnesi",
        "gate": True,
    },
    "electric field": {
        "embeddings": ("electric_field", "total_charge"),
        "correlation": 4,
        "density_normalisation": True,
    },
    "spin-orbit": {"embeddings": MAGNETIC, "products": ("spatial",), "l_hidden": 2},
    "exchange": {"embeddings": MAGNETIC, "spin_orbit": False, "gate": True},
    "fields on moments": {
        "embeddings": ("electric_field", *MAGNETIC),
        "products": ("moment",),
        "first_layer_residual": False,
    },
    "tensors": {
        "outputs": TENSORS,
        "channels": (4, 6),
        "l_edge": 4,
        "l_hidden": 2,
        "correlation": 2,
    },
    "tensors of moments": {
        "outputs": TENSORS[:6],
        "products": ("moment", "spatial"),
        "gate": True,
        "embeddings": ("electric_field",),
    },
    "equilibrated": {"charges": "equilibrated", "long_range": "ewald", "species_radial": True},
    "uniform": {
        "charges": "uniform",
        "long_range": "ewald",
        "products": ("moment",),
        "embeddings": ("spin_multiplicity",),
    },
    "free": {
        "charges": "free",
        "long_range": "ewald",
        "ewald_width": 0.4,
        "products": ("spatial",),
        "embeddings": ("electric_field",),
    },
    "charges and dipole": {
        "charges": "uniform",
        "embeddings": ("total_charge",),
        "outputs": (
            TensorOutput(name="dipole", rank=1),
            TensorOutput(name="polarizability", rank=2, symmetry="ij=ji"),
        ),
    },
    "charges alone": {"charges": "equilibrated", "num_layers": 1, "distance_transform": "agnesi"},
    "splined": {"products": ("spectral", "spatial"), "gate": True, "splined": True},
    "plain, splined": {"channels": (6, 10), "l_hidden": 2, "splined": True},
    "splined in float32": {"num_layers": 3, "splined": True, "dtype": "float32"},
    "everything": {
        "products": ("spatial", "moment", "spectral"),
        "num_layers": 3,
        "channels": (5, 4, 6),
        "radial_basis": "chebyshev",
        "distance_transform": "agnesi",
        "species_radial": True,
        "density_normalisation": True,
        "gate": True,
        "heads": ("gfn2", "pbe", "ccsd"),
        "embeddings": (*INVARIANTS, "electric_field", *MAGNETIC, FIDELITY),
        "outputs": (TENSORS[1], TENSORS[3]),
        "charges": "equilibrated",
        "long_range": "ewald",
    },
    "everything in float32": {
        "products": ("moment", "spectral"),
        "radial_basis": "gaussian",
        "species_radial": True,
        "density_normalisation": True,
        "gate": True,
        "heads": ("gfn2", "pbe"),
        "embeddings": (*INVARIANTS, "electric_field", *MAGNETIC, FIDELITY),
        "outputs": (TENSORS[1], TENSORS[3]),
        "charges": "uniform",
        "long_range": "ewald",
        "dtype": "float32",
    },
}
"""Options by name; what is not said is that of the preset "tiny"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Law:
    """How an output changes with its structure.

    Parameters
    ----------
    per
        "structure" or "atom".
    rank
        Number of Cartesian indices, each turned like a position.
    axial
        An inversion leaves its sign alone where it would flip that of a position.
    time_odd
        It flips with all spins and magnetic fields.
    """

    per: str
    rank: int = 0
    axial: bool = False
    time_odd: bool = False

    def turned(self, values: Tensor, rotation: Tensor) -> Tensor:
        """Return what the output becomes in a structure turned by a proper or improper rotation."""
        leading = values.dim() - self.rank
        for axis in range(leading, values.dim()):
            values = torch.tensordot(values, rotation, dims=([axis], [1])).movedim(-1, axis)
        return values * torch.linalg.det(rotation).sign() if self.axial else values


_LAWS = {
    "energy": Law(per="structure"),
    "node_energy": Law(per="atom"),
    "descriptors": Law(per="atom"),
    "forces": Law(per="atom", rank=1),
    "stress": Law(per="structure", rank=2),
    "virial": Law(per="structure", rank=2),
    "atomic_virials": Law(per="atom", rank=2),
    "dipole": Law(per="structure", rank=1),
    "polarizability": Law(per="structure", rank=2),
    "born_charges": Law(per="atom", rank=2),
    "charges": Law(per="atom"),
    "magnetic_forces": Law(per="atom", rank=1, axial=True, time_odd=True),
}


def laws(config: TaceConfig) -> dict[str, Law]:
    """Return the law of every output of a batch that a model has."""
    declared = {output.name: Law(per=output.per, rank=output.rank) for output in config.outputs}
    known = {name: _LAWS[name] for name in available_outputs(config) if name in _LAWS}
    return known | declared


@dataclass(frozen=True, kw_only=True, slots=True)
class Potential:
    """A network with what the contract needs to know of it."""

    name: str
    model: Tace
    compiled: Compiled = NOT_COMPILED

    @property
    def config(self) -> TaceConfig:
        """Shape of the network."""
        return self.model.config

    @property
    def tolerance(self) -> float:
        """What an exact symmetry is held to."""
        return EXACT if self.config.dtype == "float64" else SINGLE

    @property
    def laws(self) -> dict[str, Law]:
        """Every output that a batch can be asked for, and how it transforms."""
        return laws(self.config)

    @property
    def long_range(self) -> bool:
        """Whether the energy reaches beyond the cutoff."""
        return self.config.long_range != "none"

    @property
    def global_charge(self) -> bool:
        """Whether every atom feels how many atoms share the total charge."""
        return self.config.charges in ("equilibrated", "uniform")

    def graph(self, frames: Sequence[Atoms]) -> AtomicGraph:
        """Return a batch with the conditions that the model reads."""
        return batch_graphs([graph_from_atoms(a, CUTOFF, self.config.conditions) for a in frames])

    def answers(
        self, frames: Sequence[Atoms], names: Sequence[str] | None = None
    ) -> list[dict[str, Tensor]]:
        """Return the named outputs (default all) of each frame, evaluated as one batch.

        Frames say their head in info["head"], the first head by default.
        """
        names = tuple(self.laws) if names is None else tuple(names)
        heads = [frame.info.get("head", self.config.heads[0]) for frame in frames]
        always = ("energy", "node_energy", "descriptors")
        asked = [name for name in names if name not in always]
        # as calculators do: second derivatives go through the networks
        compiled = NOT_COMPILED if SECOND.intersection(asked) else self.compiled
        output = self.model.evaluate(
            self.graph(frames),
            asked,
            head=heads,
            splines=compiled.splines[0],
            network=compiled.network,
        )
        counts = [len(frame) for frame in frames]
        parts: dict[str, Sequence[Tensor]] = {}
        for name in names:
            per_atom = self.laws[name].per == "atom"
            parts[name] = output[name].split(counts) if per_atom else output[name]
        return [{name: part[index] for name, part in parts.items()} for index in range(len(frames))]

    def energies(self, frames: Sequence[Atoms]) -> Tensor:
        """Return energies alone."""
        return torch.stack([answer["energy"] for answer in self.answers(frames, ["energy"])])

    def hessian(self, frame: Atoms) -> Tensor:
        """Return the Hessian of one frame, (atoms, 3, atoms, 3)."""
        head = frame.info.get("head", self.config.heads[0])
        return self.model.evaluate(self.graph([frame]), ["hessian"], head=head)["hessian"]


@cache
def potential(name: str, seed: int = 4) -> Potential:
    """Return a network of `POTENTIALS` whose every weight and constant is far from its default."""
    options = {"cutoff": CUTOFF, "channels": 8, "dtype": "float64", **POTENTIALS[name]}
    options.setdefault("radial_decay", 0.0)  # so that effects at the cutoff stand out of rounding
    dtype, splined = options.pop("dtype"), options.pop("splined", False)
    radial = {} if name in ("tiny", "wide") else {"radial_hidden": (16, 16)}
    model = Tace.from_preset(
        "tiny", elements=list(ELEMENTS), seed=seed, dtype="float64", **{**radial, **options}
    )
    generator = torch.Generator().manual_seed(seed)

    def noise(shape: Sequence[int]) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    with torch.no_grad():
        for parameter in model.parameters():
            size = 0.1 if parameter.any() else 0.2
            parameter.add_(size * noise(parameter.shape))
        for head in model.config.heads:
            constants = model.head(head)
            constants.e0.copy_(-3.5 + noise(constants.e0.shape))
            constants.scale.fill_(0.7)
            constants.shift.fill_(-1.3)
        for readout in model.tensor_readouts.values():
            readout.reference.copy_(noise(readout.reference.shape))
            readout.scale.fill_(3.0)
    model = model if dtype == "float64" else model.as_dtype(dtype)
    compiled = CompiledKeeper([model]).current() if splined else NOT_COMPILED
    return Potential(name=name, model=model, compiled=compiled)


def in_double(model: Potential) -> Potential:
    """Return a network whose differences can be resolved."""
    if model.config.dtype == "float64":
        return model
    double = model.model.as_dtype("float64")
    splined = model.compiled is not NOT_COMPILED
    compiled = CompiledKeeper([double]).current() if splined else NOT_COMPILED
    return replace(model, model=double, compiled=compiled)


def close(first: Tensor, second: Tensor, tolerance: float = EXACT) -> bool:
    """Whether two answers agree to a fraction of the largest value.

    Below it counts 0.01 instead in float64 and 1 in float32: what a symmetry makes zero is a sum
    of numbers as large as 10, none of which is exact.
    """
    first, second = first.double(), second.double()
    finite = first[torch.isfinite(first)]
    floor = 1.0 if tolerance > EXACT else 0.01
    scale = max(floor, float(finite.abs().max())) if finite.numel() else floor
    return torch.allclose(first, second, rtol=0.0, atol=tolerance * scale, equal_nan=True)


def reads(model: Potential, name: str) -> bool:
    """Whether a model reads a condition."""
    assert name in (*CONDITIONS, FIDELITY)
    return name in (*model.config.conditions, *model.config.embeddings)
