"""What a model answers with, and the names under which it is asked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor

from tace_al.core.errors import ModelError, nearest_names
from tace_al.data.conditions import describe_place
from tace_al.model.config import KNOWN_TENSORS, TaceConfig

ALWAYS = (
    "energy",
    "node_energy",
    "descriptors",
    "forces",
    "stress",
    "virial",
    "atomic_virials",
    "hessian",
)


CHARGED = frozenset({"charges", "dipole", "born_charges"})
"""What charges give: alone, or added to a declared dipole (`output_plan`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaceOutput:
    """What the network says about a batch; `output["dipole"]` is any output by its name.

    Parameters
    ----------
    energy
        (systems,) eV, float64.
    node_energy
        (atoms,) eV, float64; sums to `energy`.
    descriptors
        (atoms, sum of the layers' channels) invariant features of each atom.
    tensors
        Everything else that was asked for, by name.
    """

    energy: Float[Tensor, " systems"]
    node_energy: Float[Tensor, " atoms"]
    descriptors: Float[Tensor, "atoms features"]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def forces(self) -> Float[Tensor, "atoms 3"]:
        """(atoms, 3) eV/Angstrom, -dE/dr, in the network's dtype (float64 with charges)."""
        return self["forces"]

    @property
    def stress(self) -> Float[Tensor, "systems 3 3"]:
        """(systems, 3, 3) eV/Angstrom^3, (1/V) dE/dstrain; NaN without a volume."""
        return self["stress"]

    def __getitem__(self, name: str) -> Tensor:
        """Return an output by name."""
        if name in ("energy", "node_energy", "descriptors"):
            return getattr(self, name)
        if name not in self.tensors:
            raise ModelError(f"'{name}' was not asked for; evaluate with outputs=[..., '{name}']")
        return self.tensors[name]

    def detached(self) -> "TaceOutput":
        """Return the same numbers, of which nothing is to be differentiated any more."""
        return TaceOutput(
            energy=self.energy.detach(),
            node_energy=self.node_energy.detach(),
            descriptors=self.descriptors.detach(),
            tensors={name: tensor.detach() for name, tensor in self.tensors.items()},
        )

    def __contains__(self, name: str) -> bool:
        """Tell whether an output was computed."""
        return name in ("energy", "node_energy", "descriptors") or name in self.tensors


class NetworkOutput(NamedTuple):
    """What the network computes for the sorted atoms.

    Parameters
    ----------
    node_energy
        (atoms,) eV, float64.
    descriptors
        (atoms, features) invariant features of every layer.
    tensors
        Direct outputs by name, one entry an atom.
    """

    node_energy: Tensor
    descriptors: Tensor
    tensors: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputShape:
    """Shape of an output: so many numbers for each structure or atom."""

    per: Literal["structure", "atom"]
    shape: tuple[int, ...] = ()


def output_shapes(config: TaceConfig) -> dict[str, OutputShape]:
    """Return the shape of every output a model of this shape can be trained on."""
    available = available_outputs(config)
    shapes = {"energy": OutputShape(per="structure")} | {
        name: OutputShape(per=per, shape=(3,) * rank)
        for name, (per, rank) in KNOWN_TENSORS.items()
        if name in available and name != "atomic_virials"
    }
    declared = {
        output.name: OutputShape(per=output.per, shape=(3,) * output.rank)
        for output in config.outputs
    }
    return shapes | declared


def structure_outputs(config: TaceConfig) -> frozenset[str]:
    """Return the outputs that are one a structure; all others are one an atom."""
    shapes = output_shapes(config)
    return frozenset(name for name, shape in shapes.items() if shape.per == "structure")


def available_outputs(config: TaceConfig) -> tuple[str, ...]:
    """Return the names a model of this shape can be asked for."""
    names = [*ALWAYS]
    if "electric_field" in config.embeddings:
        names += ["dipole", "polarizability", "born_charges"]
    if "magnetic_moments" in config.embeddings:
        names.append("magnetic_forces")
    if config.charges != "none":
        names += ["charges", "dipole", "born_charges"]  # of the charges, without a field to ask
    names += [output.name for output in config.outputs]
    if "dipole" in names:
        names.append("born_charges")
    return tuple(dict.fromkeys(names))


def check_outputs(names: frozenset[str], config: TaceConfig) -> None:
    """Refuse names that the model has no answer to, saying which it has.

    Raises
    ------
    ModelError
        A name is unknown, or needs an option the model was not made with.
    """
    available = available_outputs(config)
    for name in sorted(names):
        if name in available:
            continue
        hint = nearest_names(name, available)
        if name in ("dipole", "polarizability", "born_charges"):
            hint = (
                " Train with the electric_field embedding or with charges, or declare the tensor."
            )
        if name == "magnetic_forces":
            hint = f" They need a model that reads {describe_place('magnetic_moments')}."
        raise ModelError(f"this model has no output '{name}'; it has {', '.join(available)}.{hint}")


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputPlan:
    """From where each of the outputs asked for comes.

    Parameters
    ----------
    direct
        Declared tensors, read from the features.
    of_dipole
        Derivatives of a declared dipole.
    charged
        Read off the charges.
    derived
        Derivatives of the energy.
    moved
        All that need derivatives by the variables of the energy.
    """

    direct: frozenset[str]
    of_dipole: frozenset[str]
    charged: frozenset[str]
    derived: frozenset[str]
    moved: frozenset[str]


def output_plan(names: frozenset[str], config: TaceConfig) -> OutputPlan:
    """Return from where each output comes: declared, else the field's, else the charges'.

    To a declared dipole and its Born charges those of the charges are added.

    Raises
    ------
    ModelError
        See `check_outputs`.
    """
    check_outputs(names, config)
    declared = {output.name for output in config.outputs}
    left = names - declared
    of_dipole = left & {"born_charges"} if "dipole" in declared else frozenset()
    direct = (names & declared) | ({"dipole"} if of_dipole else set())
    charged: frozenset[str] = frozenset()
    if config.charges != "none":
        by_field = "electric_field" in config.embeddings and "dipole" not in declared
        charged = names & ({"charges"} if by_field else CHARGED)
        charged |= {"dipole"} & direct
    derived = left - of_dipole - charged
    through_edges = {"forces"} if "born_charges" in charged | of_dipole else set()
    return OutputPlan(
        direct=direct,
        of_dipole=of_dipole,
        charged=charged,
        derived=derived,
        moved=derived | through_edges,
    )
