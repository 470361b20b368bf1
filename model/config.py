"""The shape of a network: everything needed to rebuild it, stored in every checkpoint."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from ase.data import atomic_numbers
from torch import nn

from tace_al.core.errors import ConfigError, nearest_names
from tace_al.data.conditions import CONDITIONS
from tace_al.model.ewald import PURE_RECIPROCAL
from tace_al.model.tensor_readout import required_degree

Dtype = Literal["float32", "float64"]
Product = Literal["spectral", "spatial", "moment"]
RadialBasis = Literal["bessel", "chebyshev", "gaussian"]
DistanceTransform = Literal["none", "agnesi"]
ProductWeights = Literal["channel", "coupled"]
RadialEnvelope = Literal["basis", "weights"]
Residual = Literal["input", "message"]
SiteGate = Literal["smooth", "lone"]
EmbeddingActivation = Literal["none", "silu"]
Charges = Literal["none", "equilibrated", "uniform", "free"]
LongRange = Literal["none", "ewald", "pme"]

FIDELITY = "fidelity"
"""The embedding that tells the trunk which head will read it."""

KNOWN_TENSORS: dict[str, tuple[Literal["structure", "atom"], int]] = {
    "forces": ("atom", 1),
    "stress": ("structure", 2),
    "virial": ("structure", 2),
    "atomic_virials": ("atom", 2),
    "dipole": ("structure", 1),
    "polarizability": ("structure", 2),
    "born_charges": ("atom", 2),
    "charges": ("atom", 0),
    "magnetic_forces": ("atom", 1),
}
"""Outputs whose names mean something: what each belongs to, and its rank."""

TRUNK = "trunk"
"""Everything that heads share: no head can be called so."""


def is_reserved(name: str) -> bool:
    """Return whether a part of a network cannot have this name: torch uses it for itself.

    >>> is_reserved("keys"), is_reserved("ccsd(t)")
    (True, False)
    """
    return hasattr(nn.ModuleDict(), name) or hasattr(nn.ParameterDict(), name)


def check_choice(option: str, value: str, kind: Any) -> None:
    """Refuse a value that is not one of a Literal's words."""
    if value not in get_args(kind):
        raise ConfigError(f"{option} '{value}' is not one of {', '.join(get_args(kind))}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorOutput:
    """A tensor that is read from the features directly, not derived from the energy.

    Parameters
    ----------
    name
        Under which it is asked for; its labels are "REF_<name>".
    rank
        Number of Cartesian indices, 0 to 4.
    symmetry
        Index symmetry such as "ij=ji"; none by default.
    per
        "structure" (the sum over atoms) or "atom".
    """

    name: str
    rank: int
    symmetry: str = ""
    per: Literal["structure", "atom"] = "structure"

    def __post_init__(self) -> None:
        """Refuse what cannot be named or decomposed."""
        if not self.name.isidentifier():
            raise ConfigError(f"the output name {self.name!r} must be letters, digits and _")
        if self.name in ("energy", "node_energy", "descriptors", "hessian"):
            raise ConfigError(f"every model has the output {self.name}; choose another name")
        if is_reserved(self.name):
            raise ConfigError(
                f"the output name '{self.name}' means something to torch; choose another"
            )
        if self.per not in ("structure", "atom"):
            raise ConfigError(f"output {self.name}: per is '{self.per}', not structure or atom")
        per, rank = KNOWN_TENSORS.get(self.name, (self.per, self.rank))
        if (self.per, self.rank) != (per, rank):
            raise ConfigError(
                f"{self.name} is of rank {rank} and one per {per}; declare it so, or choose "
                "another name"
            )
        try:
            required_degree(self.rank, self.symmetry)
        except ValueError as error:
            raise ConfigError(f"output {self.name}: {error}") from error

    @property
    def degree(self) -> int:
        """Degree of features its readout needs."""
        return required_degree(self.rank, self.symmetry)


@dataclass(frozen=True, kw_only=True, slots=True)
class TaceConfig:
    """Hyperparameters of a TACE network.

    Parameters
    ----------
    elements
        Chemical symbols the model knows, sorted by atomic number.
    cutoff
        Angstrom.
    num_layers
        Interaction layers; the receptive field is num_layers * cutoff.
    channels
        Channels of every feature; or one number a layer.
    l_edge
        Largest degree of harmonics and messages.
    l_hidden
        Largest degree passed from layer to layer.
    products
        How each layer builds many-body features, "spectral", "spatial" or "moment": one for all
        layers or one a layer.
    correlation
        nu: the product basis reaches body order nu + 1.
    radial_basis, num_bessel, radial_hidden
        Kind and number of radial functions, and widths of the radial network.
    radial_decay
        Bessel functions are divided by their number to this power (`tace_al.model.radial`).
    distance_transform
        "agnesi" compresses distances by the pair's covalent radii before the basis.
    radial_envelope
        Where the cutoff function acts: on the radial "basis", or on the "weights" made of it
        (`tace_al.model.open_radial`).
    species_radial
        Radial weights depend on the species of both atoms.
    density_normalisation
        Messages are divided by a learned local density instead of <n>.
    product_weights
        "channel": one number a path, channel and species, then a linear; "coupled": one
        channel-mixing matrix a path and species.
    gate
        An equivariant gate after every product.
    residual
        What the residual linear of a layer reads: its "input", or its "message" before conditions.
    bias
        Constants in degree 0: of what neighbours send, and a species, of the residual linears.
    first_layer_residual
        Add a linear of the species embedding to the first layer's output.
    average_neighbours
        <n>, measured on the training set, by which messages are divided.
    zbl
        Add screened nuclear repulsion at short range.
    heads
        Names of the levels of theory.
    embeddings
        Conditions the network reads (`tace_al.data.conditions`), and "fidelity" for the head.
    required_conditions
        Those that every training structure had, without which nothing is predicted.
    spin_orbit
        Moments feel the lattice; otherwise rotating all of them alone changes nothing.
    outputs
        Tensors read directly.
    charges
        Atomic charges: "equilibrated" or "uniform" (both sum to the total charge), or "free".
    long_range
        Electrostatics of the charges: "ewald", or "pme" for large cells.
    ewald_width
        Smearing of the charges, Angstrom.
    site_gate
        Whose learned energy is off: "smooth", the fewer the neighbours the more; "lone", only that
        of an atom alone in its structure (models of `tace-al import-tace`).
    readout_width
        Width of the last readout's hidden layer.
    cutoff_power
        p of the polynomial cutoff.
    embedding_activation, embedding_width
        "silu" passes the sum of the invariant embeddings through SiLU; width of their networks.
    length_offset
        Angstrom, added to every distance (models of `tace-al import-tace`).
    dtype
        Arithmetic of the network; energies are always summed in float64.
    """

    elements: tuple[str, ...]
    cutoff: float = 5.0
    num_layers: int = 2
    channels: int | tuple[int, ...] = 64
    l_edge: int = 2
    l_hidden: int = 1
    products: tuple[Product, ...] = ("spectral",)
    correlation: int = 3
    radial_basis: RadialBasis = "bessel"
    num_bessel: int = 8
    radial_hidden: tuple[int, ...] = (64, 64, 64)
    radial_decay: float = 0.0
    distance_transform: DistanceTransform = "none"
    radial_envelope: RadialEnvelope = "basis"
    species_radial: bool = False
    density_normalisation: bool = False
    product_weights: ProductWeights = "channel"
    gate: bool = False
    residual: Residual = "input"
    bias: bool = False
    first_layer_residual: bool = True
    average_neighbours: float = 10.0
    zbl: bool = True
    heads: tuple[str, ...] = ("default",)
    embeddings: tuple[str, ...] = ()
    required_conditions: tuple[str, ...] = ()
    spin_orbit: bool = True
    outputs: tuple[TensorOutput, ...] = ()
    charges: Charges = "none"
    long_range: LongRange = "none"
    ewald_width: float = 1.0
    site_gate: SiteGate = "smooth"
    readout_width: int = 16
    cutoff_power: int = 5
    embedding_activation: EmbeddingActivation = "none"
    embedding_width: int = 32
    length_offset: float = 0.0
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        """Check ranges and put the elements in order."""
        unknown = [symbol for symbol in self.elements if not atomic_numbers.get(symbol)]
        if unknown or not self.elements:
            raise ConfigError(
                f"elements {list(self.elements)} must be chemical symbols such as 'H' or 'Pt'"
            )
        ordered = tuple(sorted(set(self.elements), key=lambda symbol: atomic_numbers[symbol]))
        object.__setattr__(self, "elements", ordered)
        positive = ("cutoff", "num_layers", "correlation", "average_neighbours", "ewald_width")
        for name in positive:
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be positive")
        if not 0 <= self.l_hidden <= self.l_edge <= 6:
            raise ConfigError(
                f"l_hidden = {self.l_hidden} and l_edge = {self.l_edge}: "
                "0 <= l_hidden <= l_edge <= 6 is needed"
            )
        self._check_heads()
        self._check_layers()
        self._check_choices()
        self._check_conditions()

    def _check_heads(self) -> None:
        """Check the names of the levels of theory."""
        if not self.heads or len(set(self.heads)) < len(self.heads) or "." in "".join(self.heads):
            raise ConfigError(
                f"heads = {list(self.heads)}: at least one name is needed, all different, "
                "without dots"
            )
        for name in self.heads:
            if not name or name != name.strip():
                raise ConfigError(f"the head name {name!r} is empty or padded; write a plain name")
            if name == TRUNK:
                raise ConfigError(f"'{TRUNK}' means what all heads share; choose another name")
            if is_reserved(name):
                raise ConfigError(
                    f"the head name '{name}' means something to torch; choose another, such as "
                    f"'{name}_level'"
                )

    def _check_layers(self) -> None:
        """Check what may be given once or layer by layer."""
        if isinstance(self.channels, tuple) and len(self.channels) != self.num_layers:
            raise ConfigError(
                f"channels = {list(self.channels)} for {self.num_layers} layers; give one number, "
                "or one a layer"
            )
        if min(self.layer_channels) < 1:
            raise ConfigError(f"channels is {self.channels}; it must be positive")
        if len(self.products) not in (1, self.num_layers):
            raise ConfigError(
                f"products = {list(self.products)} for {self.num_layers} layers; give one, or one "
                "a layer"
            )
        if self.correlation > 4:
            raise ConfigError(f"correlation is {self.correlation}; products reach order 4")
        special = {"spatial", "moment"} & set(self.products)
        if special and (
            self.product_weights == "coupled" or self.residual == "message" or self.bias
        ):
            raise ConfigError(
                f"coupled product weights, a residual of the message and biases need spectral "
                f"products, not {', '.join(sorted(special))}"
            )
        if self.radial_envelope == "weights" and (
            special or self.density_normalisation or "magnetic_moments" in self.embeddings
        ):
            raise ConfigError(
                "radial_envelope 'weights' goes with spectral products, without "
                "density_normalisation and magnetic_moments"
            )
        if not 0.0 <= self.radial_decay <= 4.0:
            raise ConfigError(f"radial_decay is {self.radial_decay}; give 0 to 4")
        if self.cutoff_power < 3 or self.readout_width < 1 or self.embedding_width < 1:
            raise ConfigError("cutoff_power is at least 3, widths are at least 1")
        if self.l_last > self.l_edge:
            raise ConfigError(
                f"the outputs need features of degree {self.l_last}, but l_edge = {self.l_edge}; "
                "raise l_edge"
            )

    def _check_choices(self) -> None:
        """Check every option that is one of a few words."""
        choices: list[tuple[str, Iterable[str], Any]] = [
            ("dtype", [self.dtype], Dtype),
            ("products", self.products, Product),
            ("product_weights", [self.product_weights], ProductWeights),
            ("residual", [self.residual], Residual),
            ("radial_envelope", [self.radial_envelope], RadialEnvelope),
            ("site_gate", [self.site_gate], SiteGate),
            ("embedding_activation", [self.embedding_activation], EmbeddingActivation),
            ("radial_basis", [self.radial_basis], RadialBasis),
            ("distance_transform", [self.distance_transform], DistanceTransform),
            ("charges", [self.charges], Charges),
            ("long_range", [self.long_range], LongRange),
        ]
        for name, values, kind in choices:
            for value in values:
                check_choice(name, value, kind)
        if self.long_range != "none" and self.charges == "none":
            raise ConfigError(
                f"long_range '{self.long_range}' acts between charges; set charges to "
                "equilibrated, uniform or free"
            )

        if self.long_range == "pme" and self.ewald_width < PURE_RECIPROCAL:
            raise ConfigError(
                f"ewald_width = {self.ewald_width} is too sharp for a mesh; use "
                f"{PURE_RECIPROCAL} or more, or long_range 'ewald'"
            )

    def _check_conditions(self) -> None:
        """Check the names of embeddings and outputs."""
        for name in self.embeddings:
            if name not in (*CONDITIONS, FIDELITY):
                raise ConfigError(
                    f"unknown embedding '{name}'.{nearest_names(name, [*CONDITIONS, FIDELITY])}"
                )
        if "magnetic_moments" in self.embeddings and self.spin_orbit and self.l_edge < 2:
            raise ConfigError("spin_orbit couples moments to degree 2; set l_edge to 2 or more")
        if "electric_field" in self.embeddings and self.l_edge < 1:
            raise ConfigError("an electric field enters at degree 1; set l_edge to 1 or more")
        if "magnetic_field" in self.embeddings and "magnetic_moments" not in self.embeddings:
            raise ConfigError("the embedding magnetic_field acts on magnetic_moments; add them")
        missing = sorted(set(self.required_conditions) - set(self.conditions))
        if missing:
            raise ConfigError(f"required conditions {missing} are not among those the model reads")
        names = [output.name for output in self.outputs]
        if "charges" in names and self.charges != "none":
            raise ConfigError(f"charges are {self.charges} already; declare no output of that name")
        if self.site_gate == "lone" and (names or self.charges != "none"):
            raise ConfigError("charges and declared outputs need the smooth site gate")
        if len(set(names)) < len(names):
            raise ConfigError(f"outputs {names} repeat a name")

    @property
    def layer_channels(self) -> tuple[int, ...]:
        """Channels after each layer."""
        if isinstance(self.channels, tuple):
            return self.channels
        return (self.channels,) * self.num_layers

    @property
    def layer_products(self) -> tuple[Product, ...]:
        """Kind of product of each layer."""
        return self.products * (self.num_layers if len(self.products) == 1 else 1)

    @property
    def l_last(self) -> int:
        """Largest degree of the last layer's features: what the direct outputs need."""
        return max((output.degree for output in self.outputs), default=0)

    @property
    def layer_degrees(self) -> tuple[int, ...]:
        """Largest degree of the features after each layer."""
        return (self.l_hidden,) * (self.num_layers - 1) + (self.l_last,)

    @property
    def reads_positions(self) -> bool:
        """Whether absolute positions matter, not edge vectors alone."""
        return self.charges != "none"

    @property
    def conditions(self) -> tuple[str, ...]:
        """Conditions to read from a frame."""
        names = [name for name in self.embeddings if name != FIDELITY]
        if self.charges in ("equilibrated", "uniform") and "total_charge" not in names:
            names.append("total_charge")
        return tuple(names)

    @property
    def numbers(self) -> list[int]:
        """Atomic numbers of the elements, ascending."""
        return [atomic_numbers[symbol] for symbol in self.elements]

    def to_dict(self) -> dict[str, Any]:
        """Return plain content for a header or a database."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "TaceConfig":
        """Rebuild a configuration; an unknown field is an error."""
        known = {field.name for field in fields(cls)}
        for name in content:
            if name not in known:
                raise ConfigError(f"unknown model option '{name}'.{nearest_names(name, known)}")
        arguments: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in content.items()
        }
        if isinstance(arguments.get("products"), str):
            arguments["products"] = (arguments["products"],)
        arguments["outputs"] = tuple(
            TensorOutput(**output) if isinstance(output, dict) else output
            for output in arguments.get("outputs", ())
        )
        return cls(**arguments)


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"channels": 32, "l_edge": 2, "l_hidden": 1, "radial_hidden": (32, 32)},
    "small": {"channels": 64, "l_edge": 2, "l_hidden": 1, "radial_hidden": (16,)},
    "medium": {"channels": 128, "l_edge": 3, "l_hidden": 1, "radial_hidden": (16,)},
    "large": {"channels": 128, "l_edge": 3, "l_hidden": 2, "radial_hidden": (16,)},
}
"""Named shapes; anything else but the decay keeps the defaults of `TaceConfig`."""
PRESET_DECAY = 1.0
"""`radial_decay` of presets; stored shapes without one, of models trained earlier, have none."""


def preset_config(name: str, **options: Any) -> TaceConfig:
    """Return the configuration of a preset with some options replaced.

    Raises
    ------
    ConfigError
        The preset or an option is unknown; the nearest valid name is given.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset '{name}'.{nearest_names(name, PRESETS)}")
    return TaceConfig.from_dict({"radial_decay": PRESET_DECAY, **PRESETS[name], **options})
