"""`tace-al evaluate`: errors of a model on labelled structures."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tace_al.cli.model_options import OtherKeys, label_keys, label_names
from tace_al.cli.options import (
    BatchSize,
    Data,
    Device,
    EnergyKey,
    ForcesKey,
    OwnDtype,
    StressKey,
    Threads,
)
from tace_al.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rich.table import Table

    from tace_al.model.evaluation import Metrics


def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A .tace checkpoint.")],
    data: Data,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            metavar="FILE",
            help="Write the errors as JSON, by level if there are several.",
        ),
    ] = None,
    energy_key: EnergyKey = "REF_energy",
    forces_key: ForcesKey = "REF_forces",
    stress_key: StressKey = "REF_stress",
    other_keys: OtherKeys = None,
    head: Annotated[
        str | None,
        typer.Option("--head", help="Level of theory that answers; default: what frames name."),
    ] = None,
    batch_size: BatchSize = 16,
    dtype: OwnDtype = None,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Compare a model with labels: RMSE and MAE of every labelled output, level by level.

    A key left at its default gives way to the file's calculator results where it has none.
    Example: [bold]tace-al evaluate m.tace test.xyz.xz --json errors.json[/bold]
    """
    import torch
    from rich.console import Console

    from tace_al.core.atomic_write import write_bytes
    from tace_al.data.extxyz import is_isolated_atom, read_labelled
    from tace_al.model import evaluation
    from tace_al.model.checkpoint import load

    check_device(device)
    torch.set_num_threads(threads)
    potential = load(model, device=device)
    if dtype is not None:
        potential = potential.as_dtype(dtype).eval()
    others = label_names(other_keys, potential.config)
    keys = label_keys(energy_key, forces_key, stress_key, others=others)
    frames = [atoms for atoms in read_labelled(data, keys) if not is_isolated_atom(atoms)]
    if not frames:
        raise DataError(f"{data} has isolated atoms only; give structures with neighbours")
    levels = (
        {head: evaluation.evaluate(potential, frames, batch_size=batch_size, head=head)}
        if head is not None
        else evaluation.evaluate_by_head(potential, frames, batch_size=batch_size)
    )
    for level, metrics in levels.items():
        named = f", {level}" if len(potential.config.heads) > 1 else ""
        Console().print(metrics_table(metrics, title=f"{model.name} on {data.name}{named}"))
    if json_file is not None:
        found = {level: metrics.to_dict() for level, metrics in levels.items()}
        one = head is not None or len(potential.config.heads) == 1
        content = next(iter(found.values())) if one else found
        write_bytes(json_file, (json.dumps(content, indent=2) + "\n").encode())


def check_device(device: str) -> None:
    """Refuse a device that torch cannot use here."""
    import torch

    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ConfigError(f"there is no device '{device}'; use cpu or cuda") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: torch finds no CUDA device here; use --device cpu")
    if kind not in ("cpu", "cuda"):
        raise ConfigError(f"models run on cpu or cuda, not on '{device}'")


def metrics_table(metrics: "Metrics", *, title: str) -> "Table":
    """Return the errors as a table; what the data has no labels for is left out."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column(f"{metrics.num_structures} structures")
    for column in ("RMSE", "MAE"):
        table.add_column(column, justify="right")
    rows = (
        ("energy, meV/atom", metrics.energy_rmse_mev_per_atom, metrics.energy_mae_mev_per_atom),
        (
            "forces, meV/Å",
            metrics.forces_rmse_mev_per_angstrom,
            metrics.forces_mae_mev_per_angstrom,
        ),
        (
            "stress, meV/Å³",
            metrics.stress_rmse_mev_per_angstrom3,
            metrics.stress_mae_mev_per_angstrom3,
        ),
    )
    others = tuple((name.replace("_", " "), *errors) for name, errors in metrics.others.items())
    for name, rmse, mae in rows + others:
        if rmse == rmse:  # not NaN
            table.add_row(name, f"{rmse:.4g}", f"{mae:.4g}")
    return table
