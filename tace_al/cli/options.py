"""Options that several commands share, each written once."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from tace_al.cli.time_limit import seconds_from_text

CampaignFolder = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder of a campaign, such as runs/catalysis.")
]
Database = Annotated[
    str | None,
    typer.Option(
        "--db",
        metavar="URI",
        envvar="TACE_AL_MONGO_URI",
        help="MongoDB server; default: a database of its own in the campaign's folder.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="As for tace-al run; repeat for more."),
]
MachineName = Annotated[
    str | None,
    typer.Option("--machine", metavar="NAME", help="local, threads, or a machine file."),
]
Data = Annotated[
    Path, typer.Argument(metavar="DATA", help="Labelled structures: anything ASE reads.")
]
EnergyKey = Annotated[str, typer.Option("--energy-key", help="Name of the total energy, eV.")]
ForcesKey = Annotated[str, typer.Option("--forces-key", help="Name of the forces, eV/Å.")]
StressKey = Annotated[str, typer.Option("--stress-key", help="Name of the stress, eV/Å³.")]
Dtype = Annotated[
    Literal["float32", "float64"], typer.Option("--dtype", help="Arithmetic of the network.")
]
OwnDtype = Annotated[
    Literal["float32", "float64"] | None,
    typer.Option("--dtype", help="Arithmetic; default: the model's own."),
]
Device = Annotated[str, typer.Option("--device", help="cpu or cuda.")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="CPU threads.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Structures at once.")]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        "--time-limit",
        parser=seconds_from_text,
        metavar="TIME",
        help="90s, 20m, 1h30m: the learning rate is at its end by then.",
    ),
]
