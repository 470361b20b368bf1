"""Samplers by name, so that a campaign file, a command line and a worker mean the same thing.

A sampler is made by a callable

    factory(potential, thresholds, *, seed, **options) -> Sampler

named here, or anywhere else by its import path "package.module:factory". Its keyword-only
parameters are its options, checked by name and annotation; a dataclass with those two fields first
is such a callable itself. Import paths are strings, so that nothing is imported before it is used.

>>> sampler_options("langevin", {"temperature": 300, "steps": 50})
{'temperature': 300.0, 'steps': 50}
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tace_al.core.errors import ConfigError
from tace_al.core.named_functions import (
    checked_options,
    import_path,
    named_callable,
    option_parameters,
)
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.sampler import Sampler, Thresholds


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplerKind:
    """Where a sampler's factory is, and what it needs of its potential.

    Parameters
    ----------
    factory
        Import path "package.module:factory".
    stress
        Predict the stress of periodic structures too, which costs extra.
    skin
        Verlet skin in A for samplers that ask about the same moving `Atoms` again and again, as
        batched dynamics does; None for neighbour lists made anew.
    """

    factory: str
    stress: bool = False
    skin: float | None = None


SAMPLERS: dict[str, SamplerKind] = {
    "langevin": SamplerKind(factory="tace_al.engines.sampling.langevin:LangevinSampler"),
    "md": SamplerKind(factory="tace_al.engines.sampling.md:DynamicsSampler"),
    "metadynamics": SamplerKind(
        factory="tace_al.engines.sampling.metadynamics_sampler:MetadynamicsSampler", skin=0.5
    ),
    "saddle": SamplerKind(factory="tace_al.engines.sampling.saddle_sampler:SaddleSampler"),
    "pimd": SamplerKind(factory="tace_al.engines.sampling.pimd:PimdSampler", stress=True, skin=0.5),
    "beam": SamplerKind(factory="tace_al.engines.sampling.beam_sampler:BeamSampler", skin=0.5),
    "strained": SamplerKind(factory="tace_al.engines.sampling.strained:StrainedSampler"),
    "shear": SamplerKind(
        factory="tace_al.engines.sampling.shear_sampler:ShearSampler", stress=True, skin=0.5
    ),
    "two_temperature": SamplerKind(
        factory="tace_al.engines.sampling.heat_sampler:TwoTemperatureSampler", skin=0.5
    ),
    "fake": SamplerKind(factory="tace_al.engines.sampling.fake:fake_sampler"),
}
"""Short names; one line makes a new sampler known to campaigns."""

RESERVED = ("seed",)


def sampler_kind(name: str) -> SamplerKind:
    """Return what is known of the sampler called `name`; your own gets stresses, to be safe.

    Raises
    ------
    ConfigError
        The name is unknown.
    """
    known = SAMPLERS.get(name)
    paths = {short: kind.factory for short, kind in SAMPLERS.items()}
    return known or SamplerKind(factory=import_path(name, paths, what="sampler"), stress=True)


def sampler_factory(name: str) -> Callable[..., Sampler]:
    """Return what makes the sampler called `name`.

    Raises
    ------
    ConfigError
        The name is unknown, or what it stands for cannot be imported.
    """
    return named_callable(sampler_kind(name).factory, what="sampler")


def sampler_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a sampler, each as the type that its factory asks for.

    Raises
    ------
    ConfigError
        The sampler or an option is unknown, missing or of the wrong kind.
    """
    factory = sampler_factory(name)
    return checked_options(factory, options, reserved=RESERVED, where=f"sampler {name}")


def option_names(name: str) -> tuple[str, ...]:
    """Return the names of a sampler's options."""
    return tuple(option_parameters(sampler_factory(name), RESERVED))


def sampler_from_name(
    name: str,
    options: Mapping[str, Any],
    *,
    potential: Potential,
    thresholds: Thresholds,
    seed: int,
) -> Sampler:
    """Return a sampler.

    Parameters
    ----------
    name, options
        As in a campaign.
    potential, thresholds
        What drives it, and which of its frames are worth a label.
    seed
        Of everything random in the chunk.
    """
    sampler = sampler_factory(name)(
        potential, thresholds, seed=seed, **sampler_options(name, options)
    )
    if not isinstance(sampler, Sampler):
        raise ConfigError(
            f"sampler {name} made a {type(sampler).__name__}; its factory must return a "
            "tace_al.engines.sampling.sampler.Sampler"
        )
    return sampler
