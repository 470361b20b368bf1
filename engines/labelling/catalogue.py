"""Labellers by name, so that a campaign file, a command line and a worker mean the same thing.

>>> labeller_from_name("gfn2", {"accuracy": 0.1}).fidelity.name
'gfn2'
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from tace_al.core.errors import ConfigError, nearest_names
from tace_al.core.labels import Setting
from tace_al.engines.labelling.ase_calculator import ASELabeller
from tace_al.engines.labelling.emt import EMTLabeller
from tace_al.engines.labelling.fake import FakeLabeller
from tace_al.engines.labelling.gpaw import GPAWLabeller
from tace_al.engines.labelling.labeller import Labeller
from tace_al.engines.labelling.pyscf import PySCFLabeller
from tace_al.engines.labelling.xtb import XTBLabeller

_BY_NAME: dict[str, tuple[type[Any], dict[str, Setting]]] = {
    "gfn1": (XTBLabeller, {"method": "gfn1"}),
    "gfn2": (XTBLabeller, {"method": "gfn2"}),
    "emt": (EMTLabeller, {}),
    "gpaw": (GPAWLabeller, {}),
    "pyscf": (PySCFLabeller, {}),
    "dft": (PySCFLabeller, {"method": "dft", "name": "dft"}),
    "hf": (PySCFLabeller, {"method": "hf"}),
    "mp2": (PySCFLabeller, {"method": "mp2"}),
    "fake": (FakeLabeller, {}),
}

LABELLER_NAMES = tuple(_BY_NAME)
"""Names a campaign can ask for, beside "package.module:Name" of any ASE calculator."""

_ASE_OPTIONS = ("charge_option", "multiplicity_option")


def labeller_from_name(name: str, options: Mapping[str, Setting] | None = None) -> Labeller:
    """Return the labeller called `name`.

    Parameters
    ----------
    name
        One of `LABELLER_NAMES`, or "package.module:Name" of an ASE calculator.
    options
        Settings of that labeller, as its class documents them; of an ASE calculator, its keyword
        arguments (and `charge_option`, `multiplicity_option`).

    Raises
    ------
    ConfigError
        The name or an option is unknown, or a value is of the wrong type or out of range.
    """
    given = dict(options or {})
    if ":" in name:
        own = {key: given.pop(key) for key in _ASE_OPTIONS if key in given}
        for key, value in own.items():
            if not isinstance(value, str):
                raise ConfigError(f"option {key} of labeller {name} is {value!r}, expected a name")
        return ASELabeller(factory=name, options=given, **own)  # type: ignore[arg-type]
    if name not in _BY_NAME:
        raise ConfigError(
            f"no labeller is called '{name}'."
            + nearest_names(name, LABELLER_NAMES)
            + " Any ASE calculator is 'package.module:Name'."
        )
    kind, preset = _BY_NAME[name]
    defaults = {
        field.name: field.default for field in dataclasses.fields(kind) if field.name not in preset
    }
    for key, value in given.items():
        if key not in defaults:
            hint = nearest_names(key, defaults) if defaults else " It has no options."
            raise ConfigError(f"labeller {name} has no option '{key}'." + hint)
        given[key] = _of_type(value, defaults[key], where=f"option {key} of labeller {name}")
    try:
        labeller: Labeller = kind(**preset, **given)
    except ValueError as error:
        raise ConfigError(f"labeller {name}: {error}") from error
    return labeller


def name_and_options(labeller: Labeller) -> tuple[str, dict[str, Setting]]:
    """Return what `labeller_from_name` builds the labeller from, options at their default left out.

    >>> name_and_options(labeller_from_name("gfn2", {"accuracy": 0.1}))
    ('gfn2', {'accuracy': 0.1})
    """
    if isinstance(labeller, ASELabeller):
        own = {name: getattr(labeller, name) for name in _ASE_OPTIONS}
        given = {name: value for name, value in own.items() if value is not None}
        return labeller.factory, {**labeller.options, **given}
    fitting = [
        (name, preset)
        for name, (kind, preset) in _BY_NAME.items()
        if type(labeller) is kind
        and all(getattr(labeller, field) == value for field, value in preset.items())
    ]
    if not fitting:
        raise ConfigError(
            f"{type(labeller).__name__} has no name a worker could build it from; use one of "
            f"{', '.join(LABELLER_NAMES)} or 'package.module:Name' of an ASE calculator"
        )
    name, preset = max(fitting, key=lambda entry: len(entry[1]))
    options = {
        field.name: getattr(labeller, field.name)
        for field in dataclasses.fields(labeller)  # type: ignore[arg-type]
        if field.name not in preset and getattr(labeller, field.name) != field.default
    }
    return name, options


def _of_type(value: Setting, default: Any, *, where: str) -> Setting:
    """Return `value` as the type of `default`, an int passing for a float."""
    wanted = type(default)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not wanted:
        raise ConfigError(f"{where} is {value!r}, expected a value like {default!r}")
    return value
