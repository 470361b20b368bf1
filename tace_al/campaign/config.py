"""What a campaign is: plain validated data that a workflow function builds and YAML can hold.

Nothing here runs anything. Unknown fields are errors that name the nearest valid one; structures
are stored whole, so that a campaign file is complete without the files it was built from.
"""

from pathlib import Path
from typing import Any, Literal, Self

import yaml
from ase import Atoms
from ase.constraints import FixAtoms
from ase.data import atomic_numbers
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    ValidationError,
    model_validator,
)

from tace_al.core.errors import ConfigError, nearest_names
from tace_al.core.hashing import content_hash
from tace_al.data.frames import (
    CHARGE,
    MULTIPLICITY,
    fixed_mask,
    spin_multiplicity,
    total_charge,
)
from tace_al.dispatch.machine import NAME_PATTERN, Machine, machine_from_name
from tace_al.model.config import preset_config

PlainValue = str | int | float | bool | None
CHANNEL_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
"""Without dots: channels are keys of documents in the database."""


class Part(BaseModel):
    """Base of every part: frozen, unknown fields and numbers that are not finite refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Structure(Part):
    """One structure as plain numbers.

    Parameters
    ----------
    symbols
        Chemical symbols, one an atom.
    positions
        (atoms, 3) in Angstrom.
    cell
        (3, 3) lattice vectors as rows in Angstrom, or empty for a molecule.
    pbc
        Periodic directions.
    charge, multiplicity
        Total charge in e, spin multiplicity 2S + 1.
    fixed
        Indices of atoms that never move.
    """

    symbols: tuple[str, ...]
    positions: tuple[tuple[float, float, float], ...]
    cell: tuple[tuple[float, float, float], ...] = ()
    pbc: tuple[bool, bool, bool] = (False, False, False)
    charge: int = 0
    multiplicity: int = 1
    fixed: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _check_shapes(self) -> Self:
        for symbol in self.symbols:
            if not atomic_numbers.get(symbol):
                raise ValueError(f"'{symbol}' is no chemical symbol")
        if len(self.positions) != len(self.symbols):
            raise ValueError(
                f"{len(self.symbols)} symbols and {len(self.positions)} positions; give one "
                "position an atom"
            )
        if len(self.cell) not in (0, 3):
            raise ValueError(f"cell has {len(self.cell)} rows; give three lattice vectors or none")
        outside = [index for index in self.fixed if not 0 <= index < len(self.symbols)]
        if outside:
            raise ValueError(
                f"fixed names atom {outside[0]}; the atoms are numbered 0 to "
                f"{len(self.symbols) - 1}"
            )
        return self

    @classmethod
    def from_atoms(cls, atoms: Atoms) -> Self:
        """Return the plain form of a structure."""
        return cls(
            symbols=tuple(atoms.get_chemical_symbols()),
            positions=tuple(map(tuple, atoms.positions.tolist())),
            cell=tuple(map(tuple, atoms.cell.array.tolist())) if atoms.cell.rank else (),
            pbc=(bool(atoms.pbc[0]), bool(atoms.pbc[1]), bool(atoms.pbc[2])),
            charge=total_charge(atoms),
            multiplicity=spin_multiplicity(atoms),
            fixed=tuple(int(index) for index in fixed_mask(atoms).nonzero()[0]),
        )

    def to_atoms(self) -> Atoms:
        """Return the structure as `ase.Atoms`."""
        atoms = Atoms(
            list(self.symbols),
            positions=self.positions,
            cell=self.cell or None,
            pbc=self.pbc,
        )
        atoms.info[CHARGE], atoms.info[MULTIPLICITY] = self.charge, self.multiplicity
        if self.fixed:
            atoms.set_constraint(FixAtoms(indices=list(self.fixed)))
        return atoms


class Reaction(Part):
    """One reaction channel, from one minimum to another.

    Parameters
    ----------
    name
        Name of the channel in tables and figures.
    initial, final
        End states with the same atoms in the same order; relaxed by the labeller at the start.
    num_images
        Images of the elastic band, end states included.
    reference_barrier
        Known barrier in eV, shown in the report beside the result, never used.
    """

    name: str = Field(pattern=CHANNEL_PATTERN)
    initial: Structure
    final: Structure
    num_images: int = Field(default=9, ge=5, le=41)
    reference_barrier: float | None = None

    @model_validator(mode="after")
    def _check_same_atoms(self) -> Self:
        if self.initial.symbols != self.final.symbols:
            raise ValueError(
                f"the end states of '{self.name}' differ in atoms or in their order; number the "
                "atoms alike in both files"
            )
        for field in ("charge", "multiplicity", "pbc", "fixed"):
            if getattr(self.initial, field) != getattr(self.final, field):
                raise ValueError(f"the end states of '{self.name}' differ in {field}")
        if any(self.initial.pbc) and self.initial.cell != self.final.cell:
            raise ValueError(f"the end states of '{self.name}' differ in cell")
        return self


class LabellerChoice(Part):
    """Which labeller, with its options, and the largest force (eV/Angstrom) a label may have."""

    name: str = "gfn2"
    options: dict[str, PlainValue] = Field(default_factory=dict)
    force_ceiling: float = Field(default=50.0, gt=0)


class ModelChoice(Part):
    """Shape and training of the committee.

    Parameters
    ----------
    preset, options
        See `tace_al.model.config`.
    members
        Models in the committee.
    first_epochs, epochs
        Passes over the training set for the first generation and for warm-started ones, at most.
    seconds
        Time limit of one member's training; the learning-rate schedule adapts.
    batch_size, learning_rate, warm_learning_rate, energy_weight, energy_gain
        See `tace_al.model.trainer`.
    validation_share
        Share of the labels each member keeps aside to choose its best epoch.
    """

    preset: str = "tiny"
    options: dict[str, Any] = Field(default_factory=dict)
    members: int = Field(default=4, ge=2, le=16)
    first_epochs: int = Field(default=150, ge=1)
    epochs: int = Field(default=80, ge=1)
    seconds: float = Field(default=60.0, gt=0)
    batch_size: int = Field(default=4, ge=1)
    learning_rate: float = Field(default=0.04, gt=0)
    warm_learning_rate: float = Field(default=0.02, gt=0)
    energy_weight: float = Field(default=4.0, gt=0)
    energy_gain: float = Field(default=30.0, gt=0)
    validation_share: float = Field(default=0.1, ge=0, lt=0.5)

    @model_validator(mode="after")
    def _check_preset(self) -> Self:
        try:
            preset_config(self.preset, **{"elements": ("H",), **self.options})
        except ConfigError as error:
            raise ValueError(str(error)) from error
        except TypeError as error:
            raise ValueError(
                f"an option of the model among {self.options} is of the wrong kind; give numbers "
                "where the presets have numbers"
            ) from error
        if "elements" in self.options:
            raise ValueError("the elements of a model are those of its reactions; leave them out")
        return self


class Exploration(Part):
    """How the committee explores.

    Parameters
    ----------
    temperatures
        Kelvin; walkers climb this ladder as generations pass.
    walkers
        Langevin walkers of each channel and generation.
    steps, timestep_fs, friction_per_fs
        Length and integrator of one chunk of a walker.
    band_fmax
        Force threshold of the elastic band, eV/Angstrom.
    band_rattle
        Random push in Angstrom on a channel's first band: between symmetric end states an
        interpolated band would stay on a symmetric ridge, above the saddle point.
    band_steps
        Optimiser steps of a band, at most.
    relax_fmax, relax_steps
        End states are relaxed by the labeller to this force, with at most so many labels each.
    num_rattled, rattle
        Displaced copies of each end state at the start, and their displacement in Angstrom.
    """

    temperatures: tuple[PositiveFloat, ...] = Field(default=(300.0, 450.0, 600.0), min_length=1)
    walkers: int = Field(default=2, ge=0)
    steps: int = Field(default=200, ge=1)
    timestep_fs: float = Field(default=0.5, gt=0)
    friction_per_fs: float = Field(default=0.02, gt=0)
    band_fmax: float = Field(default=0.05, gt=0)
    band_rattle: float = Field(default=0.05, ge=0)
    band_steps: int = Field(default=300, ge=1)
    relax_fmax: float = Field(default=0.05, gt=0)
    relax_steps: int = Field(default=60, ge=0)
    num_rattled: int = Field(default=4, ge=0)
    rattle: float = Field(default=0.08, gt=0)


class Acquisition(Part):
    """Which frames are labelled.

    Parameters
    ----------
    low, high
        Band of calibrated force error bars in eV/Angstrom: known below, broken above.
    per_generation
        Labels bought for each generation.
    audit_share
        Share of known frames labelled at random.
    calibration_share
        Share of labelled dynamics frames that no member ever trains on.
    target_coverage
        Share of errors that the error bars are meant to cover.
    """

    low: float = Field(default=0.25, gt=0)
    high: float = Field(default=6.0, gt=0)
    per_generation: int = Field(default=30, ge=1)
    audit_share: float = Field(default=0.05, ge=0, le=1)
    calibration_share: float = Field(default=0.2, ge=0, lt=1)
    target_coverage: float = Field(default=0.9, gt=0, lt=1)

    @model_validator(mode="after")
    def _check_band(self) -> Self:
        if not self.low < self.high:
            raise ValueError(
                f"low = {self.low} and high = {self.high} eV/A; frames between the two are "
                "labelled, so low must be the smaller"
            )
        return self


class Stopping(Part):
    """When the campaign ends; see `tace_al.selection.stopping`."""

    max_labels: int = Field(default=300, ge=1)
    max_seconds: float | None = Field(default=None, gt=0)
    max_generations: int = Field(default=30, ge=1)
    min_generations: int = Field(default=3, ge=2)
    window: int = Field(default=2, ge=2)
    tolerance: float = Field(default=0.01, gt=0)
    max_error: float = Field(default=0.025, gt=0)


class Campaign(Part):
    """A whole campaign.

    Parameters
    ----------
    name
        Also the default folder below `runs/`.
    reactions
        Channels whose barriers are the target.
    catalyst
        Pair of channel names (without, with): the report says how far the second lowers the
        barrier of the first.
    """

    name: str = Field(pattern=NAME_PATTERN)
    kind: Literal["reaction_barriers"] = "reaction_barriers"
    reactions: tuple[Reaction, ...] = Field(min_length=1)
    catalyst: tuple[str, str] | None = None
    labeller: LabellerChoice = Field(default_factory=LabellerChoice)
    machine: Machine = Field(default_factory=lambda: machine_from_name("local"))
    model: ModelChoice = Field(default_factory=ModelChoice)
    exploration: Exploration = Field(default_factory=Exploration)
    acquisition: Acquisition = Field(default_factory=Acquisition)
    stopping: Stopping = Field(default_factory=Stopping)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [reaction.name for reaction in self.reactions]
        if len(set(names)) < len(names):
            raise ValueError(f"two reactions have the same name among {names}")
        for name in self.catalyst or ():
            if name not in names:
                raise ValueError(
                    f"catalyst names no reaction '{name}'.{nearest_names(name, names)}"
                )
        return self

    @classmethod
    def build(cls, **content: Any) -> Self:
        """Return a campaign, or raise `ConfigError` with one sentence a problem."""
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise ConfigError(_explain(error, cls)) from error

    @classmethod
    def from_yaml(cls, path: Path) -> Self:
        """Read a campaign from a YAML file."""
        try:
            content = yaml.safe_load(path.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"{path} cannot be read as a campaign: {error}") from error
        if not isinstance(content, dict):
            raise ConfigError(f"{path} holds no campaign; it must be a mapping of options")
        return cls.build(**content)

    def to_yaml(self) -> str:
        """Return the campaign as YAML that `from_yaml` reads."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    @property
    def content_key(self) -> str:
        """Hash of everything that decides what is computed, leaving out where and how long."""
        content = self.model_dump(mode="json", exclude={"machine", "stopping"})
        return content_hash(content)


def _explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return a sentence for each problem, naming the nearest valid field for unknown ones."""
    sentences = []
    problems = error.errors()
    for problem in problems:
        if problem["type"] == "too_short" and any(
            len(other["loc"]) > len(problem["loc"]) for other in problems
        ):
            continue  # pydantic counts only the items that were right
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            owner = _owner(model, problem["loc"][:-1])
            valid = owner.model_fields if owner is not None else ()
            nearest = nearest_names(str(problem["loc"][-1]), valid)
            sentences.append(f"unknown campaign option '{where}'.{nearest}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            sentences.append(f"{where}: {message}" if where else message)
    return "; ".join(sentences)


def _owner(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel] | None:
    """Return the model class that a location in a campaign belongs to."""
    current: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        annotation = current.model_fields[part].annotation
        arguments = [annotation, *getattr(annotation, "__args__", ())]
        models = [a for a in arguments if isinstance(a, type) and issubclass(a, BaseModel)]
        if not models:
            return None
        current = models[0]
    return current if isinstance(current, type) else None
