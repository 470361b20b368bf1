"""From `tace-al run WORKFLOW --set key=value` to a campaign.

A workflow is a Python file with a function `campaign(...)` that returns a `Campaign`. Its
parameters are the options: the annotation says how a value on the command line is read, so there
is no second list of options to keep in step.
"""

import importlib
import importlib.util
import inspect
import json
import pkgutil
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tace_al.core.errors import ConfigError, TaceError, nearest_names

if TYPE_CHECKING:
    import pydantic

    from tace_al.campaign.config import Campaign

FUNCTION = "campaign"
PACKAGE = "tace_al.workflows"


@dataclass(frozen=True, kw_only=True, slots=True)
class Workflow:
    """A workflow's function, and the name to show for it."""

    name: str
    function: Callable[..., Any]

    @property
    def options(self) -> Mapping[str, inspect.Parameter]:
        """What `--set` may name, with annotations and defaults."""
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        parameters = inspect.signature(self.function).parameters
        return {name: item for name, item in parameters.items() if item.kind in named}


def packaged_workflows() -> list[str]:
    """Return the names of the workflows that come with the package."""
    folder = importlib.import_module(PACKAGE).__path__
    names = []
    for module in pkgutil.iter_modules(folder):
        spec = importlib.util.find_spec(f"{PACKAGE}.{module.name}")
        if spec is not None and spec.origin is not None:
            source = Path(spec.origin).read_text(encoding="utf-8")
            if f"\ndef {FUNCTION}(" in source:
                names.append(module.name)
    return sorted(names)


def load_workflow(name: str) -> Workflow:
    """Return a workflow by the path of its file or by its packaged name.

    Raises
    ------
    ConfigError
        There is no such file or name, it does not import, or it has no function `campaign`.
    """
    path = Path(name)
    if path.is_file():
        module = _module_of_file(path)
    elif path.suffix == ".py" or len(path.parts) > 1:
        raise ConfigError(
            f"there is no file {name}; give the path of a workflow or one of the names that come "
            f"with tace-al: {', '.join(packaged_workflows())}"
        )
    elif name in packaged_workflows():
        module = importlib.import_module(f"{PACKAGE}.{name}")
    else:
        hint = nearest_names(name, packaged_workflows())
        raise ConfigError(f"no workflow is called '{name}', and no file.{hint}")
    function = getattr(module, FUNCTION, None)
    if not inspect.isfunction(function):
        raise ConfigError(
            f"{name} has no function {FUNCTION}(...); define one that returns a "
            "tace_al.campaign.config.Campaign"
        )
    return Workflow(name=name, function=function)


def _module_of_file(path: Path) -> types.ModuleType:
    """Import a file, under its own name if it belongs to the package, else under a private one."""
    packaged = Path(importlib.import_module(PACKAGE).__path__[0]).resolve()
    try:
        if path.resolve().parent == packaged:
            return importlib.import_module(f"{PACKAGE}.{path.stem}")
        name = f"tace_al_workflow_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ConfigError(f"{path} is not a Python file; a workflow ends in .py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    except TaceError:
        raise
    except Exception as error:  # the user's own file may raise anything
        where = _line_of(error, path)
        raise ConfigError(
            f"{path} cannot be imported{where}: {type(error).__name__}: {error}; correct it and "
            "run the same command again"
        ) from error
    return module


def _line_of(error: BaseException, path: Path) -> str:
    """Return " (line 12)" for the last line of `path` in an error's traceback."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    if isinstance(error, SyntaxError):
        line = error.lineno
    return "" if line is None else f" (line {line})"


def parse_settings(settings: Sequence[str], option: str = "--set") -> dict[str, str]:
    """Return the arguments of `--set` as a mapping; each is key=value and no key comes twice."""
    parsed: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key:
            raise ConfigError(f"{option} {setting} is not of the form key=value")
        if key in parsed:
            raise ConfigError(f"{option} {key} is given twice; keep one of them")
        parsed[key] = value.strip()
    return parsed


def build_campaign(workflow: Workflow, settings: Mapping[str, str]) -> "Campaign":
    """Call the workflow with `settings` read by its annotations.

    A key with a dot, such as `stopping.max_labels`, sets that field of the campaign it returns.

    Raises
    ------
    ConfigError
        An option is unknown (the nearest valid name is given), missing, or has a wrong value.
    """
    import pydantic

    from tace_al.campaign.config import Campaign

    options = workflow.options
    inner = {key: text for key, text in settings.items() if "." in key}
    settings = {key: text for key, text in settings.items() if key not in inner}
    for key in settings:
        if key not in options:
            hint = nearest_names(key, options) or " It has no options."
            raise ConfigError(f"{workflow.name} has no option '{key}'.{hint}")
    missing = [
        name
        for name, parameter in options.items()
        if parameter.default is inspect.Parameter.empty and name not in settings
    ]
    if missing:
        needed = " ".join(f"--set {name}=..." for name in missing)
        raise ConfigError(f"{workflow.name} needs {', '.join(missing)}; add {needed}")
    annotations = typing.get_type_hints(workflow.function, include_extras=True)
    values = {
        key: parse_value(text, annotations.get(key, Any), where=f"--set {key}")
        for key, text in settings.items()
    }
    try:
        campaign = workflow.function(**values)
    except pydantic.ValidationError as error:
        raise ConfigError(f"{workflow.name}: {validation_text(error)}") from error
    if not isinstance(campaign, Campaign):
        raise ConfigError(
            f"{FUNCTION}(...) of {workflow.name} returned {type(campaign).__name__}, expected a "
            "tace_al.campaign.config.Campaign"
        )
    return with_fields(campaign, inner) if inner else campaign


def with_fields(campaign: "Campaign", settings: Mapping[str, str]) -> "Campaign":
    """Return the campaign with some fields set, each named by its dotted path.

    A number in a path is a place in a list, from 0: `fidelities.1.options.basis`.

    Raises
    ------
    ConfigError
        There is no such field, or the value does not fit it.
    """
    content = campaign.model_dump(mode="json")
    for path, text in settings.items():
        *parents, field = path.split(".")
        place = content
        for parent in parents:
            place = _part_of(place, parent, path)
        if isinstance(place, list):
            raise ConfigError(f"'{path}' is a whole entry of a list; name one of its fields")
        try:
            place[field] = json.loads(text)
        except json.JSONDecodeError:
            place[field] = text
    if campaign.fidelities and not any(path.startswith("labeller.") for path in settings):
        del content["labeller"]  # it is the last of the fidelities
    return type(campaign).build(**content)


def _part_of(place: Any, name: str, path: str) -> Any:
    """Return the part of a campaign's content that a step of a dotted path leads to."""
    if isinstance(place, list) and name.isdigit() and int(name) < len(place):
        found = place[int(name)]
    elif isinstance(place, dict):
        found = place.get(name)
    else:
        found = None
    if not isinstance(found, dict | list):
        names = place if isinstance(place, dict) else map(str, range(len(place)))
        raise ConfigError(f"the campaign has no part '{path}'.{nearest_names(name, names)}")
    return found


def parse_value(text: str, annotation: Any, *, where: str) -> Any:
    """Return the value that `text` means for a parameter annotated with `annotation`.

    Text is taken as it stands where the annotation allows it; JSON and comma-separated lists are
    read where it asks for a container, "none" where it allows None.

    >>> parse_value("1,2", tuple[int, ...], where=""), parse_value("[1, 2]", list[float], where="")
    ((1, 2), [1.0, 2.0])
    """
    import pydantic

    adapter = pydantic.TypeAdapter(annotation)
    readings: list[Any] = [] if annotation in (Any, inspect.Parameter.empty) else [text]
    if text.lower() in ("none", "null"):
        readings.insert(0, None)
    try:
        readings.append(json.loads(text))
    except json.JSONDecodeError:
        readings.append(text.split(",") if "," in text else [text])
    if isinstance(readings[-1], int | float | str | bool):
        readings.append(text.split(","))
    readings.append(text)
    first: pydantic.ValidationError | None = None
    for reading in readings:
        try:
            return adapter.validate_python(reading)
        except pydantic.ValidationError as error:
            first = first or error
    assert first is not None
    raise ConfigError(f"{where}={text} has a wrong value: {validation_text(first)}")


def validation_text(error: "pydantic.ValidationError") -> str:
    """Return pydantic's complaints as one line: "field: what is wrong (got 'x')"."""
    lines = []
    for item in error.errors(include_url=False):
        place = ".".join(str(part) for part in item["loc"])
        got = item["input"]
        shown = f" (got {got!r})" if isinstance(got, str | int | float | bool) else ""
        message = item["msg"].removeprefix("Value error, ")
        lines.append(f"{place}: {message}{shown}" if place else f"{message}{shown}")
    return "; ".join(dict.fromkeys(lines))
