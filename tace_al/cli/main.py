"""The program `tace-al`: its commands, and how it ends.

Exit codes: 0 done; 1 a bug; 2 something the user can correct, said in one sentence; 130 Ctrl-C.
Commands import what they need when they run, so that `--help` answers at once.
"""

import errno
import logging
import re
import sys
from typing import Annotated

import typer

from tace_al.cli.beam import beam
from tace_al.cli.campaign_commands import export, lineage, report, status
from tace_al.cli.db import db
from tace_al.cli.doctor import doctor
from tace_al.cli.driver import driver
from tace_al.cli.evaluate import evaluate
from tace_al.cli.failures import failures, retry
from tace_al.cli.heat import heat
from tace_al.cli.hessian import hessian
from tace_al.cli.import_tace import import_tace
from tace_al.cli.label import label
from tace_al.cli.md import md
from tace_al.cli.metad import metad
from tace_al.cli.neb import neb
from tace_al.cli.phonons import phonons
from tace_al.cli.plan import plan
from tace_al.cli.ramp import ramp
from tace_al.cli.run import run
from tace_al.cli.saddle import saddle
from tace_al.cli.shear import shear
from tace_al.cli.train import train
from tace_al.core.errors import TaceError

logger = logging.getLogger(__name__)

app = typer.Typer(
    name="tace-al",
    help="Active learning with committees of TACE potentials: from two end states and a labeller "
    "to a trained committee and a barrier with an error bar.",
    epilog="Start with: tace-al run catalysis",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
CAMPAIGNS, FILES = "Campaigns", "Models and labels from files"
DYNAMICS = "Dynamics and paths, on models or a calculator"
VIBRATIONS = "Vibrations"
app.command(rich_help_panel=CAMPAIGNS)(run)
app.command(rich_help_panel=CAMPAIGNS)(status)
app.command(rich_help_panel=CAMPAIGNS)(report)
app.command(rich_help_panel=CAMPAIGNS)(lineage)
app.command(rich_help_panel=CAMPAIGNS)(export)
app.command(rich_help_panel=CAMPAIGNS)(failures)
app.command(rich_help_panel=CAMPAIGNS)(retry)
app.command(rich_help_panel=CAMPAIGNS)(plan)
app.command(rich_help_panel=CAMPAIGNS)(doctor)
app.add_typer(db, rich_help_panel=CAMPAIGNS)
app.command(rich_help_panel=FILES)(train)
app.command(rich_help_panel=FILES)(evaluate)
app.command(rich_help_panel=FILES)(label)
app.command("import-tace", rich_help_panel=FILES)(import_tace)
app.command(rich_help_panel=DYNAMICS)(md)
app.command(rich_help_panel=DYNAMICS)(ramp)
app.command(rich_help_panel=DYNAMICS)(neb)
app.command(rich_help_panel=DYNAMICS)(saddle)
app.command(rich_help_panel=DYNAMICS)(metad)
app.command(rich_help_panel=DYNAMICS)(beam)
app.command(rich_help_panel=DYNAMICS)(shear)
app.command(rich_help_panel=DYNAMICS)(heat)
app.command(rich_help_panel=DYNAMICS)(driver)

app.command(rich_help_panel=VIBRATIONS)(phonons)
app.command(rich_help_panel=VIBRATIONS)(hessian)


def show_version(wanted: bool) -> None:
    """Show the installed version and stop."""
    if wanted:
        from importlib.metadata import version

        typer.echo(f"tace-al {version('tace-al')}")
        raise typer.Exit


@app.callback()
def settings(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log what happens, to standard error.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=show_version, help="Show it.")
    ] = False,
) -> None:
    """Set up logging for every command."""
    del version
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
        force=True,
    )
    for chatty in ("parsl", "matplotlib", "pymongo", "PIL"):
        logging.getLogger(chatty).setLevel(logging.WARNING if verbose else logging.ERROR)


def main() -> None:
    """Run the command line; a known error becomes one sentence and exit code 2."""
    try:
        app(prog_name="tace-al")
    except TaceError as error:
        stop(str(error))
    except OSError as error:
        stop(system_error_text(error))


def stop(message: str) -> None:
    """Say what is wrong on standard error and exit with code 2."""
    logger.debug("traceback", exc_info=True)
    sys.stderr.write(f"error: {without_passwords(message)}\n")
    sys.exit(2)


def system_error_text(error: OSError) -> str:
    """Return what the operating system refused, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            "no room is left on the disk; free some space and run the same command again, "
            "nothing was lost"
        )
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror or error}; check the path and its permissions"


def without_passwords(text: str) -> str:
    """Return text with the passwords of addresses masked.

    >>> without_passwords("no server at mongodb://ann:secret@host/db")
    'no server at mongodb://ann:***@host/db'
    """
    return re.sub(r"(\w+://[^\s:/@]*):[^\s/]*@", r"\1:***@", text)


if __name__ == "__main__":
    main()
