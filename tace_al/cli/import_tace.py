"""`tace-al import-tace`: a published Cartesian TACE model as a checkpoint of this package."""

from pathlib import Path
from typing import Annotated

import typer

from tace_al.cli.options import OwnDtype


def import_tace(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A .pt or .ckpt of tace==0.1.0.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT.tace", help="The checkpoint to write.")],
    heads: Annotated[
        str | None,
        typer.Option(
            "--heads", metavar="NAMES", help="Names for its levels, in order: pbe,r2scan."
        ),
    ] = None,
    dtype: OwnDtype = None,
) -> None:
    """Convert a Cartesian model of the reference package tace==0.1.0 exactly.

    Reads what its trainer, [bold]tace-export[/bold] or [bold]torch.save[/bold] wrote, without
    running anything in it. What has no exact counterpart here is refused by name.

    Example: [bold]tace-al import-tace model.ckpt model.tace[/bold]
    """
    from rich.console import Console

    from tace_al.model.checkpoint import save
    from tace_al.model.reference.convert import import_reference

    names = [name.strip() for name in heads.split(",")] if heads else []
    model = import_reference(checkpoint, head_names=names, dtype=dtype)
    save(model, out)
    config = model.config
    Console().print(
        f"{out}: {len(config.elements)} elements, {config.num_layers} layers of "
        f"{config.layer_channels[0]} channels, l ≤ {config.l_edge}, order {config.correlation}, "
        f"cutoff {config.cutoff:g} Å, heads {', '.join(config.heads)}, "
        f"{model.num_parameters} parameters, {config.dtype}",
        soft_wrap=True,
    )
