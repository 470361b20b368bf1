"""What drives a calculation on the command line: models, or a calculator by name.

`MODEL...` are checkpoints or folders of campaigns, whose serving committee is taken with its
calibration; several make one committee. `--calculator NAME` is any labeller of the catalogue, or
"package.module:Calculator". Exactly one of the two is given. Commands write their parameters with
the annotated types below and pass them to `choose_potential`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tace_al.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from tace_al.core.labels import Setting
    from tace_al.engines.sampling.potential import Potential
    from tace_al.model.committee import Committee

Models = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[MODEL]...",
        help=".tace checkpoints, or folders of campaigns, as one committee.",
        show_default=False,
    ),
]
CalculatorName = Annotated[
    str | None,
    typer.Option(
        "--calculator",
        metavar="NAME",
        help="Instead of models: gfn1, gfn2, emt, ..., or package.module:Calculator.",
    ),
]
CalculatorOptions = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="KEY=VALUE", help="Option of the calculator. Repeat."),
]
Head = Annotated[
    str | None,
    typer.Option("--head", metavar="NAME", help="Level of theory; default: the models' first."),
]
DtypeName = Literal["float32", "float64"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ChosenPotential:
    """What drives a calculation, and how to say so in its summary.

    Parameters
    ----------
    potential
        Predicts energies and forces, of every member where it is a committee.
    description
        Names, hashes and settings, plain enough for JSON.
    num_members
        1 for a calculator or a single model, whose spreads are all zero.
    force_scale, energy_scale
        Calibration of a campaign's committee: error bar = scale * spread.
    """

    potential: "Potential"
    description: dict[str, Any]
    num_members: int = 1
    force_scale: float = 1.0
    energy_scale: float = 1.0

    @property
    def committee(self) -> "Committee | None":
        """The models behind the potential, None where it is a calculator."""
        from tace_al.engines.sampling.committee_potential import CommitteePotential
        from tace_al.model.committee import Committee

        if not isinstance(self.potential, CommitteePotential):
            return None
        committee = self.potential.committee
        return committee if isinstance(committee, Committee) else None


def choose_potential(
    models: Sequence[Path] | None,
    calculator: str | None,
    *,
    options: Sequence[str] | None = None,
    device: str = "cpu",
    dtype: DtypeName | None = None,
    head: str | None = None,
    stress: bool = False,
    skin: float | None = None,
) -> ChosenPotential:
    """Return what the options of a command choose.

    Parameters
    ----------
    models, calculator
        One of the two.
    options
        KEY=VALUE texts for the calculator.
    device, dtype, head
        Of models; `dtype` None keeps each model's own.
    stress
        Predict the stress of periodic structures too, where it costs extra.
    skin
        Verlet skin in A for samplers that ask about the same moving `Atoms` again and again.

    Raises
    ------
    ConfigError
        Both or neither are given, or options that do not go with the choice.
    """
    if not models and calculator is None:
        raise ConfigError(
            "nothing to calculate with; give one or more MODELs (.tace files or a campaign's "
            "folder), or --calculator NAME such as gfn2 or emt"
        )
    if models and calculator is not None:
        raise ConfigError(
            f"both models ({', '.join(map(str, models))}) and --calculator {calculator} are given; "
            "keep one of the two"
        )
    if calculator is not None:
        if head is not None or dtype is not None or device != "cpu":
            raise ConfigError(
                f"--head, --dtype and --device are for models and say nothing to {calculator}; "
                "leave them out"
            )
        return _calculator(calculator, options or ())
    if options:
        raise ConfigError("--option is for --calculator NAME; leave it out with models")
    return _committee(
        list(models or ()), device=device, dtype=dtype, head=head, stress=stress, skin=skin
    )


def _calculator(name: str, texts: Sequence[str]) -> ChosenPotential:
    """Return a labeller as a potential."""
    from tace_al.cli.label import setting
    from tace_al.cli.workflow_file import parse_settings
    from tace_al.engines.labelling.catalogue import labeller_from_name
    from tace_al.engines.sampling.labeller_potential import LabellerPotential

    options: dict[str, Setting] = {
        key: setting(text) for key, text in parse_settings(texts, "--option").items()
    }
    labeller = labeller_from_name(name, options)
    fidelity = labeller.fidelity
    description = {
        "calculator": name,
        "code": fidelity.code,
        "settings": dict(fidelity.settings),
        "fidelity_key": fidelity.key,
    }
    return ChosenPotential(potential=LabellerPotential(labeller), description=description)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Checkpoints:
    """Files of the members, and the calibration of the campaign they come from."""

    paths: tuple[Path, ...]
    force_scale: float = 1.0
    energy_scale: float = 1.0
    origin: dict[str, Any] = field(default_factory=dict)


def _committee(
    models: Sequence[Path],
    *,
    device: str,
    dtype: DtypeName | None,
    head: str | None,
    stress: bool,
    skin: float | None,
) -> ChosenPotential:
    """Return checkpoints as one committee."""
    from tace_al.cli.evaluate import check_device
    from tace_al.engines.sampling.committee_potential import CommitteePotential
    from tace_al.model.checkpoint import load
    from tace_al.model.committee import Committee

    check_device(device)
    found = _checkpoints(models)
    members = [load(path, device=device) for path in found.paths]
    if dtype is not None:
        members = [member.as_dtype(dtype).eval() for member in members]
    committee = Committee(members, head=head)
    description = {
        "models": [str(path) for path in found.paths],
        "sha256": [hashlib.sha256(path.read_bytes()).hexdigest() for path in found.paths],
        "head": head or members[0].config.heads[0],
        "dtype": members[0].config.dtype,
        "device": device,
        **found.origin,
    }
    return ChosenPotential(
        potential=CommitteePotential(committee, stress=stress, skin=skin),
        description=description,
        num_members=len(members),
        force_scale=found.force_scale,
        energy_scale=found.energy_scale,
    )


def _checkpoints(models: Sequence[Path]) -> _Checkpoints:
    """Return the files that were named, a campaign's folder read as its serving committee."""
    folders = [path for path in models if path.is_dir()]
    if len(folders) == 1 and len(models) == 1:
        return _serving_committee(folders[0])
    paths: list[Path] = []
    for path in models:
        if path.is_dir():
            paths.extend(_serving_committee(path).paths)
        elif path.is_file():
            paths.append(path)
        else:
            raise DataError(
                f"{path} does not exist; give a .tace checkpoint or the folder of a campaign"
            )
    return _Checkpoints(paths=tuple(paths))


def _serving_committee(directory: Path) -> _Checkpoints:
    """Return the newest committee that a campaign trusts."""
    from tace_al.store.store import Store

    with Store.open(directory, create=False) as store:
        record = store.serving()
        if record is None:
            raise DataError(
                f"the campaign in {directory} has no serving committee yet; let "
                "`tace-al run` finish its first generation"
            )
        paths = tuple(directory / store.model(key).path for key in record.models)
        calibration = record.audit.get("calibration") or {}
        number = int(record.number)
    return _Checkpoints(
        paths=paths,
        force_scale=float(calibration.get("scale", 1.0)),
        energy_scale=float(calibration.get("energy_scale", 1.0)),
        origin={"campaign": str(directory), "generation": number},
    )
