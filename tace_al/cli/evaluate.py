"""`tace-al evaluate`: errors of a model on labelled structures."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
from tace_al.core.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from tace_al.model.config import Dtype as Precision
    from tace_al.model.evaluation import Metrics
    from tace_al.model.tace import Tace


def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A .tace checkpoint.")],
    data: Data,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the errors as JSON.")
    ] = None,
    energy_key: EnergyKey = "REF_energy",
    forces_key: ForcesKey = "REF_forces",
    stress_key: StressKey = "REF_stress",
    batch_size: BatchSize = 16,
    dtype: OwnDtype = None,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Compare a model with labels: RMSE and MAE of energies, forces and stress.

    A key left at its default gives way to the file's calculator results where it has none.

    Example: [bold]tace-al evaluate m.tace test.xyz.xz --json errors.json[/bold]
    """
    import torch
    from rich.console import Console

    from tace_al.core.atomic_write import write_bytes
    from tace_al.data.extxyz import LabelKeys, is_isolated_atom, read_labelled
    from tace_al.model import evaluation
    from tace_al.model.checkpoint import load

    check_device(device)
    torch.set_num_threads(threads)
    potential = load(model, device=device)
    if dtype is not None:
        potential = in_precision(potential, dtype).to(device).eval()
    keys = LabelKeys(energy=energy_key, forces=forces_key, stress=stress_key)
    frames = [atoms for atoms in read_labelled(data, keys) if not is_isolated_atom(atoms)]
    metrics = evaluation.evaluate(potential, frames, batch_size=batch_size)
    Console().print(metrics_table(metrics, title=f"{model.name} on {data.name}"))
    if json_file is not None:
        write_bytes(json_file, (json.dumps(metrics.to_dict(), indent=2) + "\n").encode())


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


def in_precision(model: "Tace", dtype: "Precision") -> "Tace":
    """Return a model with the same weights that computes in another precision."""
    from dataclasses import replace

    from tace_al.model.tace import Tace

    copy = Tace(replace(model.config, dtype=dtype))
    copy.load_state_dict(model.state_dict())
    return copy


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
    for name, rmse, mae in rows:
        if rmse == rmse:  # not NaN
            table.add_row(name, f"{rmse:.2f}", f"{mae:.2f}")
    return table
