"""`tace-al driver`: serve forces to a running i-PI."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tace_al.cli.calculation_files import Charge, Multiplicity
from tace_al.cli.options import Device, OwnDtype
from tace_al.cli.potential_options import CalculatorName, CalculatorOptions, Head, Models
from tace_al.cli.time_limit import seconds_from_text
from tace_al.core.errors import ConfigError, SamplerError, StructureError

if TYPE_CHECKING:
    from ase import Atoms

    from tace_al.engines.sampling.ipi_address import Address
    from tace_al.engines.sampling.ipi_driver import Served
    from tace_al.engines.sampling.potential import Potential
    from tace_al.model.prediction import Prediction

Template = Annotated[
    Path | None,
    typer.Option(
        "--template",
        metavar="STRUCTURE",
        help="Elements, charge and periodicity: i-PI sends positions and a cell alone. Required.",
    ),
]
Socket = Annotated[
    str | None,
    typer.Option(
        "--socket",
        metavar="NAME",
        help="Unix socket: the <address> of i-PI's input (/tmp/ipi_NAME), or a path.",
    ),
]
Directory = Annotated[
    Path | None,
    typer.Option(
        "--directory",
        metavar="DIR",
        help="Private folder (0700) of the socket instead of /tmp; write sockets_prefix='DIR/' in "
        "<simulation>.",
    ),
]
Host = Annotated[str, typer.Option("--host", help="Of an inet server.")]
Port = Annotated[int | None, typer.Option("--port", help="Instead of --socket: inet server.")]
Remote = Annotated[
    bool, typer.Option("--remote", help="Allow a host that is not this machine. Unauthenticated.")
]
Connections = Annotated[
    int,
    typer.Option(
        "--batch",
        min=1,
        help="Connections opened at first, each one bead of a batch; more follow as needed.",
    ),
]
Wait = Annotated[
    float | None,
    typer.Option(
        "--wait",
        parser=seconds_from_text,
        metavar="TIME",
        help="For a server that is not up yet; default: 1m.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        help="Threads that share the beads of a batch; default: 2, because i-PI's core is idle "
        "meanwhile, 1 where there is one core.",
    ),
]
DEFAULT_WAIT_S = 60.0
Idle = Annotated[
    float | None,
    typer.Option(
        "--idle",
        parser=seconds_from_text,
        metavar="TIME",
        help="End when the server is silent for so long; default: never.",
    ),
]
Extras = Annotated[
    Literal["full", "spread", "none"],
    typer.Option("--extras", help="JSON with all members' forces, with spreads alone, or nothing."),
]


def driver(
    models: Models = None,
    socket: Socket = None,
    directory: Directory = None,
    host: Host = "127.0.0.1",
    port: Port = None,
    remote: Remote = False,
    template: Template = None,
    charge: Charge = None,
    multiplicity: Multiplicity = None,
    batch: Connections = 8,
    wait: Wait = None,
    idle: Idle = None,
    extras: Extras = "full",
    calculator: CalculatorName = None,
    option: CalculatorOptions = None,
    device: Device = "cpu",
    dtype: OwnDtype = None,
    head: Head = None,
    threads: Threads = None,
) -> None:
    """Serve forces to i-PI 3: all beads that wait in one call, spreads of a committee as extras.

    Example: [bold]tace-al driver m1.tace m2.tace --socket water --template water.xyz[/bold]
    """
    import torch
    from rich.console import Console

    from tace_al.cli.potential_options import choose_potential
    from tace_al.engines.sampling.ipi_driver import Driver, DriverSettings

    address = server_address(socket, directory, host=host, port=port, remote=remote)
    atoms = read_template(template, charge=charge, multiplicity=multiplicity)
    torch.set_num_threads(1)
    if threads is None:
        threads = min(2, len(os.sched_getaffinity(0)))
    chosen = choose_potential(
        models,
        calculator,
        options=option,
        device=device,
        dtype=dtype,
        head=head,
        stress=bool(atoms.pbc.all()),
        skin=0.5,
    )
    settings = DriverSettings(
        connections=batch,
        max_connections=max(128, batch),
        wait_s=DEFAULT_WAIT_S if wait is None else wait,
        idle_s=idle,
        extras=extras,
    )
    potential = on_threads(chosen.potential, threads, device=device)
    server = Driver(potential, atoms, address, settings=settings, observe=refuse_overlaps)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"serving {atoms.get_chemical_formula()} to i-PI at {address}, until it ends")
    console.print(account(server.serve(), address))


def on_threads(potential: "Potential", threads: int, *, device: str) -> "Potential":
    """Return a committee whose beads threads share, also where no compiled network does that."""
    from tace_al.engines.sampling.committee_potential import CommitteePotential
    from tace_al.engines.sampling.threaded_potential import ThreadedPotential
    from tace_al.model.committee import Committee

    if threads < 2 or device != "cpu" or not isinstance(potential, CommitteePotential):
        return potential
    committee = potential.committee
    if isinstance(committee, Committee) and committee.is_compiled:
        committee.threads = threads
        return potential
    return ThreadedPotential(potential, threads)


def server_address(
    socket: str | None, directory: Path | None, *, host: str, port: int | None, remote: bool
) -> "Address":
    """Return where the server listens.

    Raises
    ------
    ConfigError
        Neither or both kinds of address are given, or one that must not be used.
    """
    from tace_al.engines.sampling.ipi_address import inet_address, unix_address

    if (socket is None) == (port is None):
        raise ConfigError(
            "give one address of the i-PI server: --socket NAME (unix) or --port PORT (inet)"
        )
    if port is not None:
        return inet_address(host, port, remote=remote)
    assert socket is not None
    return unix_address(socket, directory)


def read_template(
    template: Path | None, *, charge: int | None, multiplicity: int | None
) -> "Atoms":
    """Return the structure whose elements the server moves."""
    from tace_al.cli.calculation_files import read_structure

    if template is None:
        raise ConfigError(
            "i-PI sends positions without elements; name the structure that its input starts from "
            "with --template"
        )
    return read_structure(template, charge=charge, multiplicity=multiplicity)


def refuse_overlaps(frames: "Sequence[Atoms]", predictions: "Sequence[Prediction]") -> None:
    """Refuse beads whose atoms overlap: forces would be answered that mean nothing.

    The first bead and every bead with a large force are looked at: beads of one polymer are close.

    Raises
    ------
    StructureError
        Atoms of a bead overlap.
    """
    import numpy as np

    from tace_al.engines.labelling.guards import contact_problem
    from tace_al.engines.sampling.pimd import CALM_FORCE

    for bead, (atoms, prediction) in enumerate(zip(frames, predictions, strict=True)):
        if bead > 0 and (np.abs(prediction.forces) < CALM_FORCE).all():
            continue
        problem = contact_problem(atoms)
        if problem is not None:
            raise StructureError(
                f"bead {bead} of those that i-PI sent together has {problem.message}; the server "
                "waits: end it with a file named EXIT in its folder, or start another driver"
            )


def account(served: "Served", address: "Address") -> str:
    """Return what was done in one line.

    Raises
    ------
    SamplerError
        The server vanished instead of ending.
    """
    done = f"{served.structures} structures in {served.rounds} batches"
    if served.ended == "lost":
        raise SamplerError(
            f"the i-PI server at {address} closed the connection without a word after {done}: it "
            "was killed or has crashed; see its output, start it again from RESTART or a "
            "checkpoint, then this driver"
        )
    if served.rounds:
        done += f", {1e3 * served.seconds / served.rounds:.1f} ms a batch"
    return f"{served.reason}: {done}"
