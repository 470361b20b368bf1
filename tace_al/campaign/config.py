"""What a campaign is: plain validated data that a workflow function builds and YAML can hold.

Nothing here runs anything. Unknown fields are errors that name the nearest valid one.
"""

from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    Field,
    PositiveFloat,
    ValidationError,
    model_validator,
)

from tace_al.campaign.sampling import Channel, SamplerChoice, TargetChoice
from tace_al.campaign.structure import CHANNEL_PATTERN, Part
from tace_al.campaign.structure import Structure as Structure
from tace_al.core.errors import ConfigError, nearest_names
from tace_al.core.hashing import content_hash
from tace_al.dispatch.machine import NAME_PATTERN, Machine, machine_from_name
from tace_al.model.config import preset_config
from tace_al.selection.calibration import FORCE_FLOOR

PlainValue = str | int | float | bool | None


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
    """Which labeller, with its options, the largest force (eV/Angstrom) and time of a label.

    A label that takes longer than `max_seconds` is tried once more and then a failed one.
    """

    name: str = "gfn2"
    options: dict[str, PlainValue] = Field(default_factory=dict)
    force_ceiling: float = Field(default=50.0, gt=0)
    max_seconds: float = Field(default=7200.0, gt=0)


class ExpensiveLabels(Part):
    """How labels are shared between two levels of theory; see `tace_al.selection.fidelities`.

    Parameters
    ----------
    first
        Seeds of each channel, evenly along its path, that begin with a label of either level.
    per_generation
        Expensive labels bought for each generation where the difference is uncertain.
    low
        Calibrated error bar in eV/Angstrom of the difference between the levels' forces up to which
        a structure needs no expensive label.
    calibration_share
        Share of the structures kept for calibration that get an expensive label too.
    repeats
        An expensive label is seen at most so many times an epoch, until those of either level are
        seen equally often.
    relax_cycles
        Expensive labels of an end state's relaxation on the cheap level, at most.
    """

    first: int = Field(default=3, ge=1)
    per_generation: int = Field(default=4, ge=1)
    low: float = Field(default=0.1, gt=0)
    calibration_share: float = Field(default=0.2, ge=0, le=1)
    repeats: int = Field(default=3, ge=1)
    relax_cycles: int = Field(default=8, ge=1)


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
    force_floor
        Smallest spread of forces taken at its word, eV/Angstrom; small displacements want less.
    """

    low: float = Field(default=0.25, gt=0)
    high: float = Field(default=6.0, gt=0)
    per_generation: int = Field(default=30, ge=1)
    audit_share: float = Field(default=0.05, ge=0, le=1)
    calibration_share: float = Field(default=0.2, ge=0, lt=1)
    target_coverage: float = Field(default=0.9, gt=0, lt=1)
    force_floor: float = Field(default=FORCE_FLOOR, gt=0)

    @model_validator(mode="after")
    def _check_band(self) -> Self:
        if not self.low < self.high:
            raise ValueError(
                f"low = {self.low} and high = {self.high} eV/A; frames between the two are "
                "labelled, so low must be the smaller"
            )
        return self


class Stopping(Part):
    """When the campaign ends; see `tace_al.selection.stopping`.

    `max_labels` counts the labels of every level of theory, `max_expensive_labels` those of the
    last of two `fidelities`.
    """

    max_labels: int = Field(default=300, ge=1)
    max_expensive_labels: int | None = Field(default=None, ge=1)
    max_seconds: float | None = Field(default=None, gt=0)
    max_generations: int = Field(default=30, ge=1)
    min_generations: int = Field(default=3, ge=2)
    window: int = Field(default=2, ge=2)
    tolerance: float = Field(default=0.01, gt=0)
    max_error: float = Field(default=0.025, gt=0)
    max_flagged_share: float | None = Field(default=None, ge=0, le=1)
    min_coverage: float = Field(default=0.85, ge=0, le=1)


class Campaign(Part):
    """A whole campaign.

    Parameters
    ----------
    name
        Also the default folder below `runs/`.
    reactions
        Channels from one minimum to another; their barriers are the target unless another is named.
    structures
        Channels of start structures without a reaction.
    samplers
        What explores every channel, in place of the Langevin walkers of `exploration`.
    target
        What must converge; without one the barriers of the reactions, or nothing.
    catalyst
        Pair of channel names (without, with): the report says how far the second lowers the
        barrier of the first.
    labeller
        Level of theory of the result.
    fidelities
        Two levels, the cheap one first; the second is then the `labeller`. A name stands for a
        choice without options.
    expensive
        How the labels of the second level are spent.
    """

    name: str = Field(pattern=NAME_PATTERN)
    kind: Literal["reaction_barriers", "sampling"] = "reaction_barriers"
    reactions: tuple[Reaction, ...] = ()
    structures: tuple[Channel, ...] = ()
    samplers: tuple[SamplerChoice, ...] = ()
    target: TargetChoice | None = None
    catalyst: tuple[str, str] | None = None
    labeller: LabellerChoice = Field(default_factory=LabellerChoice)
    fidelities: tuple[LabellerChoice, ...] = ()
    expensive: ExpensiveLabels = Field(default_factory=ExpensiveLabels)
    machine: Machine = Field(default_factory=lambda: machine_from_name("local"))
    model: ModelChoice = Field(default_factory=ModelChoice)
    exploration: Exploration = Field(default_factory=Exploration)
    acquisition: Acquisition = Field(default_factory=Acquisition)
    stopping: Stopping = Field(default_factory=Stopping)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _read_fidelities(cls, content: Any) -> Any:
        """Let names stand for choices, and the expensive level be the labeller."""
        if not isinstance(content, dict) or not content.get("fidelities"):
            return content
        choices = [
            {"name": choice} if isinstance(choice, str) else choice
            for choice in content["fidelities"]
        ]
        return {"labeller": choices[-1], **content, "fidelities": choices}

    @model_validator(mode="after")
    def _check_fidelities(self) -> Self:
        if not self.fidelities:
            if self.stopping.max_expensive_labels is not None:
                raise ValueError(
                    "stopping.max_expensive_labels counts labels of the second of two fidelities; "
                    "name them, or use stopping.max_labels"
                )
            return self
        if len(self.fidelities) != 2:
            raise ValueError(
                f"fidelities names {len(self.fidelities)} level; give two, the cheap one first, or "
                "none"
            )
        cheap, expensive = self.fidelities
        if (cheap.name, cheap.options) == (expensive.name, expensive.options):
            raise ValueError(f"the two fidelities are the same, '{cheap.name}'; give two levels")
        if self.labeller != expensive:
            raise ValueError(
                f"labeller is '{self.labeller.name}' and the last of the fidelities "
                f"'{expensive.name}'; leave the labeller out, it is the last of the fidelities"
            )
        return self

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if not self.channels:
            raise ValueError(
                "reactions: there are none; give at least one, or structures to sample from"
            )
        names = list(self.channels)
        if len(set(names)) < len(names):
            what = "channels" if self.structures else "reactions"
            raise ValueError(f"two {what} have the same name among {names}")
        for sampler in self.samplers:
            for name in sampler.channels:
                if name not in names:
                    raise ValueError(
                        f"sampler {sampler.name} names no channel '{name}'."
                        f"{nearest_names(name, names)}"
                    )
        if self.target_name == "barrier" and not self.reactions:
            raise ValueError("target: a barrier needs reactions; name another target, or none")
        names = [reaction.name for reaction in self.reactions]
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
        left_out = {"machine", "stopping"}
        if not self.fidelities:
            left_out |= {"fidelities", "expensive"}
        for name in ("structures", "samplers", "target"):  # unset, the key is that of before them
            if not getattr(self, name):
                left_out.add(name)
        content = self.model_dump(mode="json", exclude=left_out)
        for choice in (content["labeller"], *content.get("fidelities", ())):
            del choice["max_seconds"]  # how long, not what
        if self.acquisition.force_floor == FORCE_FLOOR:
            del content["acquisition"]["force_floor"]
        return content_hash(content)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of all channels, reactions first."""
        names = [reaction.name for reaction in self.reactions]
        return (*names, *(channel.name for channel in self.structures))

    @property
    def elements(self) -> tuple[str, ...]:
        """Symbols of every element that a structure of the campaign has, sorted."""
        return tuple(sorted({symbol for one in self.start_structures for symbol in one.symbols}))

    @property
    def start_structures(self) -> tuple[Structure, ...]:
        """Every structure that the campaign names: end states, starts and seeds."""
        ends = [end for one in self.reactions for end in (one.initial, one.final)]
        return (*ends, *(part for one in self.structures for part in (*one.starts, *one.seeds)))

    @property
    def target_name(self) -> str:
        """What must converge: "barrier", "none" or a target of the catalogue."""
        if self.target is not None:
            return self.target.name
        return "barrier" if self.reactions else "none"


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
