"""Options of `tace-al train` alone."""

from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the model goes.")]
Validation = Annotated[
    Path | None,
    typer.Option("--valid", metavar="FILE", help="Held-out structures; default: a share."),
]
ValidFraction = Annotated[
    float, typer.Option("--valid-fraction", min=0.0, max=0.9, help="Share of DATA to hold out.")
]
Level = Annotated[
    str | None,
    typer.Option("--head", help="Level of theory of DATA, where a frame does not say head=."),
]
Also = Annotated[
    list[str] | None,
    typer.Option("--also", metavar="HEAD=FILE", help="More data, of another level. Repeatable."),
]
Members = Annotated[
    int | None,
    typer.Option(
        "--members", min=2, help="Heads member-0, ... that each learn from a bootstrap of DATA."
    ),
]
Freeze = Annotated[
    list[str] | None,
    typer.Option(
        "--freeze", metavar="NAME", help="Leave the trunk, or a head, as in --start. Repeatable."
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset", help="Size of the network: tiny, small, medium, large; default: small."
    ),
]
Cutoff = Annotated[float | None, typer.Option("--cutoff", min=0.5, help="Å; default: 5.")]
Epochs = Annotated[
    int | None,
    typer.Option(
        "--epochs",
        min=1,
        help="Passes, at most; default: 200, or as many as --time-limit allows.",
    ),
]
LearningRate = Annotated[
    float | None,
    typer.Option("--learning-rate", min=0.0, help="Peak rate; default: 0.004."),
]
Start = Annotated[
    Path | None,
    typer.Option("--start", metavar="MODEL", help="Warm start: go on from this."),
]
Seed = Annotated[int, typer.Option("--seed", help="Weights, order and held-out share.")]
