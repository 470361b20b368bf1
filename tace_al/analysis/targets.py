"""Targets by name: properties that a campaign wants to converge, with error bars.

A target is a function

    function(inputs: TargetInputs, **options) -> {name: {"value", "error_bar", "unit", ...}}

named here, or anywhere else by its import path "package.module:function". Its keyword-only
parameters are its options. It is called on a worker once a generation with the committee that
serves. `error_bar` is the target's own: scaled spread of the members and sampling error together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from tace_al.core.errors import ConfigError, SamplerError, nearest_names
from tace_al.core.named_functions import checked_options, import_path, named_callable
from tace_al.model.committee import Committee

TARGETS: dict[str, str] = {
    "observable": "tace_al.analysis.targets:observable",
    "phonon_bands": "tace_al.analysis.phonon_target:phonon_bands",
    "proton_sharing": "tace_al.analysis.proton_sharing:proton_sharing",
    "relaxed_distance": "tace_al.analysis.relaxed_distance:relaxed_distance",
    "sticking": "tace_al.analysis.sticking:sticking_target",
}
"""Short names; one line makes a new target known to campaigns."""

TargetValues = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetInputs:
    """What a target is computed from.

    Parameters
    ----------
    committee
        The members that serve.
    head
        Level of theory that answers, None for the models' only one.
    folder
        For files worth keeping; they stay with the result.
    starts
        Start structures of every channel, relaxed if the campaign relaxes them.
    observables
        What samplers observed in this generation, by channel: one mapping a chunk, with `sampler`,
        `walker` and `outcome` beside the observables.
    seed
        Of everything random.
    force_scale, energy_scale, energy_floor
        Of the committee's calibration: error bar = scale * spread, of energies
        scale * max(spread, floor), in eV and eV/A.
    """

    committee: Committee
    folder: Path
    starts: Mapping[str, Sequence[Atoms]]
    observables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    seed: int = 0
    force_scale: float = 1.0
    energy_scale: float = 1.0
    energy_floor: float = 0.0
    head: str | None = None

    def members(self) -> list[Committee]:
        """Return each member as a committee of its own, for values that members have alone."""
        return [Committee([member], head=self.head) for member in self.committee.members]


def target_function(name: str) -> Callable[..., TargetValues]:
    """Return the function of the target called `name`.

    Raises
    ------
    ConfigError
        The name is unknown, or what it stands for cannot be imported.
    """
    return named_callable(import_path(name, TARGETS, what="target"), what="target")


def target_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a target, each as the type that its function asks for.

    Raises
    ------
    ConfigError
        The target or an option is unknown, missing or of the wrong kind.
    """
    return checked_options(target_function(name), options, where=f"target {name}")


def evaluate_target(
    name: str, options: Mapping[str, Any], inputs: TargetInputs
) -> dict[str, dict[str, Any]]:
    """Return the values of a target, checked.

    Raises
    ------
    SamplerError
        The target gave no value, or one that is not finite.
    """
    values = target_function(name)(inputs, **target_options(name, options))
    checked = {}
    for key, entry in values.items():
        value, bar = float(entry["value"]), float(entry["error_bar"])
        if not (isfinite(value) and isfinite(bar) and bar >= 0.0):
            raise SamplerError(f"target {name}: {key} is {value} ± {bar}; it must be finite")
        checked[key] = {"unit": "", **entry, "value": value, "error_bar": bar}
    if not checked:
        raise SamplerError(f"target {name} gave no value; it must return at least one")
    return checked


def observable(
    inputs: TargetInputs, *, name: str, sampler: str = "", unit: str = ""
) -> dict[str, dict[str, Any]]:
    """Return the mean of what samplers observed, for each channel.

    The error bar is the standard error over chunks, which see different noise; where a sampler
    gives `<name>_error` too, their root mean square over the square root of the number of chunks is
    the least it can be.

    Parameters
    ----------
    name
        Of the observable, a number.
    sampler
        Only chunks of the sampler with this name.
    unit
        For tables and figures.
    """
    found = {}
    for channel, chunks in inputs.observables.items():
        chosen = [chunk for chunk in chunks if sampler in ("", chunk["sampler"])]
        values = np.array([chunk[name] for chunk in chosen if name in chunk], dtype=float)
        if not values.size:
            continue
        errors = [chunk[f"{name}_error"] for chunk in chosen if f"{name}_error" in chunk]
        least = float(np.sqrt(np.mean(np.square(errors)) / values.size)) if errors else 0.0
        between = float(values.std(ddof=1)) / sqrt(values.size) if values.size > 1 else 0.0
        if values.size == 1 and not errors:
            raise ConfigError(
                f"target observable: one chunk of {channel} gives {name} without {name}_error, "
                "which has no error bar; give the sampler two walkers or more"
            )
        bar = max(least, between)
        found[channel] = {"value": float(values.mean()), "error_bar": bar, "unit": unit}
    if not found:
        seen = {key for chunks in inputs.observables.values() for one in chunks for key in one}
        raise ConfigError(f"no sampler observed '{name}'.{nearest_names(name, seen)}")
    return found
