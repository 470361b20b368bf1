"""What a campaign explores without a reaction: channels of structures, samplers, a target.

Samplers and targets are names with plain options; the callables they stand for check them when the
campaign is built (docs/decisions/0020).
"""

from typing import Any, Self

from pydantic import Field, model_validator

from tace_al.analysis.targets import target_options
from tace_al.campaign.structure import CHANNEL_PATTERN, Part, Structure
from tace_al.core.errors import ConfigError, nearest_names
from tace_al.engines.sampling.catalogue import option_names, sampler_options

OWN_TARGETS = ("barrier", "none")
"""Targets that the campaign itself knows: barriers of its bands, and nothing."""


class Channel(Part):
    """Structures that samplers start from, under one name.

    Parameters
    ----------
    name
        Name of the channel in tables and figures.
    starts
        Where walkers start.
    seeds
        Structures labelled for the first training set beside rattled copies of the starts: what the
        first committee must have seen to survive its first steps.
    relax
        Relax the starts by the labeller first.
    """

    name: str = Field(pattern=CHANNEL_PATTERN)
    starts: tuple[Structure, ...] = Field(min_length=1)
    seeds: tuple[Structure, ...] = ()
    relax: bool = True


class SamplerChoice(Part):
    """Which sampler explores, with its options.

    Parameters
    ----------
    name
        See `tace_al.engines.sampling.catalogue`.
    options
        Of that sampler.
    ladder
        Options that change: one value a generation, the last one stays.
    walkers
        In each channel and generation.
    channels
        Names of the channels it explores; all without any.
    """

    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    ladder: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    walkers: int = Field(default=1, ge=1)
    channels: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        for name, values in self.ladder.items():
            if not values:
                raise ValueError(f"ladder.{name} is empty; give one value a generation")
            if name in self.options:
                raise ValueError(
                    f"{name} is among the options and on the ladder of sampler {self.name}; keep "
                    "one of them"
                )
        try:
            for name in self.ladder:
                valid = option_names(self.name)
                if name not in valid:
                    raise ConfigError(
                        f"sampler {self.name} has no option '{name}'.{nearest_names(name, valid)}"
                    )
            for generation in range(1, 1 + max([1, *map(len, self.ladder.values())])):
                sampler_options(self.name, self.options_at(generation))
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    def options_at(self, generation: int) -> dict[str, Any]:
        """Return the options for a generation, which are numbered from 1."""
        rungs = {
            name: values[min(generation, len(values)) - 1] for name, values in self.ladder.items()
        }
        return {**self.options, **rungs}


class TargetChoice(Part):
    """What must converge: "barrier", "none", or a target of `tace_al.analysis.targets`."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        if self.name in OWN_TARGETS:
            if self.options:
                raise ValueError(f"the target {self.name} has no options; leave them out")
            return self
        try:
            target_options(self.name, self.options)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self
