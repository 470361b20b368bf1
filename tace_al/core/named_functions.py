"""Functions and classes by name, with their options as plain data.

A catalogue maps short names to import paths "package.module:name"; any other callable is asked for
by its own import path. What may be set are its keyword-only parameters: their names and annotations
are the only list of options, so that a campaign file, a command line and a worker mean the same.

>>> path = import_path("nearest", {"nearest": "tace_al.core.errors:nearest_names"}, what="function")
>>> callable(named_callable(path, what="function"))
True
"""

import importlib
import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any

import pydantic

from tace_al.core.errors import ConfigError, nearest_names


def import_path(name: str, catalogue: Mapping[str, str], *, what: str) -> str:
    """Return the import path of a short name, or the name itself where it is one.

    Raises
    ------
    ConfigError
        The name is neither in the catalogue nor "package.module:name".
    """
    if ":" in name:
        return name
    if name not in catalogue:
        raise ConfigError(
            f"no {what} is called '{name}'.{nearest_names(name, catalogue)} "
            f"Your own {what} is 'package.module:name'."
        )
    return catalogue[name]


def named_callable(path: str, *, what: str) -> Callable[..., Any]:
    """Import "package.module:name".

    Raises
    ------
    ConfigError
        There is no such module or name, or it cannot be called.
    """
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"the {what} {path} cannot be imported ({error}); check the name, and that its package "
            "is installed in the environment of the workers"
        ) from error
    if not callable(found):
        raise ConfigError(f"the {what} {path} is no function or class; name one that can be called")
    return typing.cast(Callable[..., Any], found)


def checked_options(
    function: Callable[..., Any],
    options: Mapping[str, Any],
    *,
    reserved: Collection[str] = (),
    where: str,
) -> dict[str, Any]:
    """Return options as the types that a callable's keyword-only parameters are annotated with.

    Parameters
    ----------
    function
        What will be called with them.
    options
        Plain values by name, as JSON or YAML holds them.
    reserved
        Keyword parameters that the caller fills in, which are no options.
    where
        Begins the sentence of a complaint: "sampler beam".

    Raises
    ------
    ConfigError
        An option is unknown, missing or of the wrong kind.
    """
    valid = option_parameters(function, reserved)
    hints = _annotations(function)
    checked: dict[str, Any] = {}
    for name, value in options.items():
        if name not in valid:
            hint = nearest_names(name, valid) if valid else " It has no options."
            raise ConfigError(f"{where} has no option '{name}'.{hint}")
        try:
            adapter = pydantic.TypeAdapter(hints.get(name, Any))
            checked[name] = adapter.validate_python(value)
        except pydantic.ValidationError as error:
            problem = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            raise ConfigError(f"{where}: option {name} is {value!r}; {problem}") from error
    empty = inspect.Parameter.empty
    missing = [name for name, one in valid.items() if one.default is empty and name not in options]
    if missing:
        raise ConfigError(f"{where} needs a value for: {', '.join(missing)}")
    return checked


def option_parameters(
    function: Callable[..., Any], reserved: Collection[str] = ()
) -> dict[str, inspect.Parameter]:
    """Return the keyword-only parameters of a callable by name, without the reserved ones."""
    return {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name not in reserved
    }


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a function's parameters, or of a class's constructor."""
    if not inspect.isclass(function):
        return typing.get_type_hints(function)
    own = typing.get_type_hints(function)  # of a dataclass, its fields
    return own | typing.get_type_hints(function.__init__)
