"""The input of an i-PI run: written from a few settings, or made from one that the user has.

Ensembles, all from i-PI's `dynamics`:

    nvt    path-integral molecular dynamics with a Langevin thermostat on every normal mode, or a
           global one on the centroid, which disturbs dynamics less and is slower to forget (PILE-L,
           PILE-G: Ceriotti, Parrinello, Markland, Manolopoulos, 10.1063/1.3489925); one bead is
           classical dynamics
    npt    the same with an isotropic barostat (Bussi, Zykova-Timan, Parrinello, 10.1063/1.3073889)
    rpmd   ring-polymer molecular dynamics: no thermostat (Craig, Manolopoulos, 10.1063/1.1777575)
    trpmd  thermostats on all modes but the centroid (Rossi, Ceriotti, Manolopoulos,
           10.1063/1.4883861)

A user's own input keeps everything but what this platform owns: where the ring polymer starts, the
address of its sockets, the number of steps and the checkpoints.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import numpy as np
from ase import Atoms

from tace_al.core.errors import ConfigError
from tace_al.data.frames import fixed_mask
from tace_al.engines.sampling.ipi_server import CHECKPOINTS, OUTPUT_FILE
from tace_al.engines.sampling.ipi_state import beads_element, cell_element

Ensemble = Literal["nvt", "npt", "rpmd", "trpmd"]
Thermostat = Literal["pile_l", "pile_g"]
VACUUM_BOX = 200.0
"""Edge in A of the cell that i-PI wants even of a molecule; forces know nothing of it."""
_NO_THERMOSTAT_FS = 1e9
_TIMES_FS = {"femtosecond": 1.0, "picosecond": 1e3, "second": 1e15, "atomic_unit": 2.4188843e-2}


@dataclass(frozen=True, kw_only=True, slots=True)
class PimdSettings:
    """A path-integral run.

    Parameters
    ----------
    temperature
        K.
    beads
        1 is classical.
    steps, timestep_fs
        Length and time step.
    ensemble
        See above.
    thermostat, thermostat_fs
        Kind and time constant of the centroid's thermostat.
    pressure_gpa, barostat_fs
        For "npt".
    pile_lambda
        Damping of the inner modes relative to critical.
    fix_centre
        Take out the motion of the centre of mass; never where atoms are fixed.
    output_every
        Steps between two lines of properties.
    checkpoint_every
        Steps between two checkpoints: how much a killed server loses.
    """

    temperature: float
    beads: int = 16
    steps: int = 200
    timestep_fs: float = 0.5
    ensemble: Ensemble = "nvt"
    thermostat: Thermostat = "pile_l"
    thermostat_fs: float = 50.0
    pressure_gpa: float = 0.0
    barostat_fs: float = 200.0
    pile_lambda: float = 0.5
    fix_centre: bool = True
    output_every: int = 5
    checkpoint_every: int = 20

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        positive = ("temperature", "beads", "steps", "timestep_fs", "thermostat_fs", "barostat_fs")
        for name in (*positive, "pile_lambda", "output_every", "checkpoint_every"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"`{name}` is {getattr(self, name)}; give a positive number")


@dataclass(frozen=True, kw_only=True, slots=True)
class StartState:
    """Where a ring polymer starts.

    Parameters
    ----------
    atoms
        Species, masses, cell, fixed atoms.
    positions
        (beads, atoms, 3) in A.
    momenta
        (beads, atoms, 3) in sqrt(amu eV), None to have them drawn.
    seed
        Of momenta and thermostats.
    """

    atoms: Atoms
    positions: np.ndarray
    momenta: np.ndarray | None
    seed: int


def pimd_input(settings: PimdSettings, start: StartState, *, socket: Path) -> str:
    """Return the input of a run that listens at `socket`.

    Raises
    ------
    ConfigError
        A pressure was asked for where there is no volume.
    """
    root = ElementTree.Element("simulation", verbosity="low", floatformat="%23.15e")
    output = ElementTree.SubElement(root, "output", prefix="run")
    properties = ElementTree.SubElement(
        output, "properties", stride=str(settings.output_every), filename=OUTPUT_FILE, flush="50"
    )  # i-PI forces each flush onto the disk
    properties.text = f"[ {', '.join(PROPERTIES)} ]"
    system = ElementTree.SubElement(root, "system")
    forces = ElementTree.SubElement(system, "forces")
    ElementTree.SubElement(forces, "force", forcefield="potential")
    system.append(_motion(settings, start.atoms))
    ensemble = ElementTree.SubElement(system, "ensemble")
    _text(ensemble, "temperature", settings.temperature, units="kelvin")
    if settings.ensemble == "npt":
        if not start.atoms.pbc.all():
            raise ConfigError(
                "ensemble 'npt' needs a structure periodic in three directions; use 'nvt'"
            )
        _text(ensemble, "pressure", settings.pressure_gpa * 1000.0, units="megapascal")
    interface = ElementTree.SubElement(root, "ffsocket", name="potential", mode="unix", pbc="False")
    _text(interface, "address", socket.name)
    return own_input(
        ElementTree.tostring(root, encoding="unicode"),
        start,
        steps=settings.steps,
        checkpoint_every=settings.checkpoint_every,
        socket=socket,
        temperature=settings.temperature,
    )


PROPERTIES = (
    "step",
    "time{femtosecond}",
    "temperature{kelvin}",
    "conserved{electronvolt}",
    "potential{electronvolt}",
    "kinetic_cv{electronvolt}",
    "kinetic_td{electronvolt}",
    "kinetic_md{electronvolt}",
)
"""Columns of run.out: `kinetic_cv` the centroid-virial, `kinetic_td` the primitive estimator."""


def own_input(
    text: str,
    start: StartState,
    *,
    steps: int,
    checkpoint_every: int,
    socket: Path,
    temperature: float,
) -> str:
    """Return an input with the start, the sockets, the length and the checkpoints of this run.

    Parameters
    ----------
    text
        An input of i-PI: thermostats, outputs, ensembles and whatever else stay as they are.
    socket
        Where the server listens.
    temperature
        Of momenta that are to be drawn, in K.

    Raises
    ------
    ConfigError
        This is no input of i-PI with one system and a socket.
    """
    root = _parsed(text)
    systems, sockets = root.findall("system"), root.findall("ffsocket")
    if len(systems) != 1 or not sockets:
        raise ConfigError(
            f"the i-PI input has {len(systems)} <system> and {len(sockets)} <ffsocket> at its top; "
            "give one with one system, whose forces come from an ffsocket"
        )
    root.attrib.pop("safe_stride", None)
    root.set("sockets_prefix", f"{socket.parent}/")
    num_beads = len(start.positions)
    for interface in sockets:
        interface.set("mode", "unix")
        _replace(interface, "address", socket.name)
        # all beads of a step come over one connection, in one message
        _replace(interface, "batch_size", str(num_beads))
        for name in ("port", "consolidate_messages", "timeout"):
            _remove(interface, name)
    _replace(root, "total_steps", str(steps))
    _remove(root, "step")
    _remove(root, "prng")
    _text(ElementTree.SubElement(root, "prng"), "seed", start.seed % 2**31)
    _own_checkpoints(root, checkpoint_every)
    _own_start(systems[0], start, temperature)
    return ElementTree.tostring(root, encoding="unicode")


def continued_input(state_text: str, *, socket: Path) -> str:
    """Return the input that goes on from a RESTART or checkpoint."""
    root = _parsed(state_text)
    root.set("sockets_prefix", f"{socket.parent}/")
    return ElementTree.tostring(root, encoding="unicode")


def num_beads_of(text: str) -> int:
    """Return the number of beads that a user's input asks for."""
    root = _parsed(text)
    for path in ("system/initialize", "system/beads"):
        found = root.find(path)
        if found is not None and found.get("nbeads", "").strip().isdigit():
            return int(found.attrib["nbeads"])
    raise ConfigError(
        "the i-PI input does not say how many beads it has; write <initialize nbeads='16'> in it"
    )


def timestep_fs_of(text: str) -> float:
    """Return the time step of a user's input in fs."""
    found = _parsed(text).find(".//timestep")
    if found is None or found.text is None:
        raise ConfigError("the i-PI input has no <timestep>; write one in its <dynamics>")
    unit = found.get("units", "atomic_unit")
    if unit not in _TIMES_FS:
        raise ConfigError(
            f"the i-PI input gives its <timestep> in '{unit}'; use one of {', '.join(_TIMES_FS)}"
        )
    return float(found.text) * _TIMES_FS[unit]


def _own_checkpoints(root: ElementTree.Element, every: int) -> None:
    """Write two checkpoints in turns, so that one is whole whenever the server is killed."""
    output = root.find("output")
    if output is None:
        output = ElementTree.SubElement(root, "output", prefix="run")
    for old in output.findall("checkpoint"):
        output.remove(old)
    # i-PI writes outputs one after the other: only the one being written can be cut off
    for name in CHECKPOINTS:
        ElementTree.SubElement(
            output, "checkpoint", stride=str(every), filename=name, overwrite="True"
        )
    output.attrib["prefix"] = ""


def _own_start(system: ElementTree.Element, start: StartState, temperature: float) -> None:
    """Put the ring polymer in place of what the input begins with."""
    for name in ("beads", "cell", "initialize"):
        _remove(system, name)
    atoms = start.atoms
    box = atoms.cell.array if atoms.pbc.any() else VACUUM_BOX * np.eye(3)
    symbols = [str(symbol) for symbol in atoms.symbols]
    system.append(beads_element(symbols, atoms.get_masses(), start.positions, start.momenta))
    system.append(cell_element(box))
    if start.momenta is None:
        initialize = ElementTree.SubElement(system, "initialize", nbeads=str(len(start.positions)))
        velocities = _text(initialize, "velocities", temperature, units="kelvin")
        velocities.set("mode", "thermal")


def _motion(settings: PimdSettings, atoms: Atoms) -> ElementTree.Element:
    """Return <motion> of an ensemble."""
    motion = ElementTree.Element("motion", mode="dynamics")
    mode = {"nvt": "nvt", "npt": "npt", "rpmd": "nve", "trpmd": "nvt"}[settings.ensemble]
    dynamics = ElementTree.SubElement(motion, "dynamics", mode=mode)
    _text(dynamics, "timestep", settings.timestep_fs, units="femtosecond")
    if mode != "nve":
        dynamics.append(_thermostat(settings, centroid=settings.ensemble != "trpmd"))
    if mode == "npt":
        barostat = ElementTree.SubElement(dynamics, "barostat", mode="isotropic")
        _text(barostat, "tau", settings.barostat_fs, units="femtosecond")
        thermostat = ElementTree.SubElement(barostat, "thermostat", mode="langevin")
        _text(thermostat, "tau", settings.barostat_fs, units="femtosecond")
    fixed = np.flatnonzero(fixed_mask(atoms))
    if fixed.size:
        _text(motion, "fixatoms", f"[ {', '.join(map(str, fixed))} ]")
    _text(motion, "fixcom", str(settings.fix_centre and fixed.size == 0))
    return motion


def _thermostat(settings: PimdSettings, *, centroid: bool) -> ElementTree.Element:
    """Return PILE, whose centroid part can be switched off by an endless time constant."""
    thermostat = ElementTree.Element("thermostat", mode=settings.thermostat)
    tau = settings.thermostat_fs if centroid else _NO_THERMOSTAT_FS
    _text(thermostat, "tau", tau, units="femtosecond")
    _text(thermostat, "pile_lambda", settings.pile_lambda)
    return thermostat


def _parsed(text: str) -> ElementTree.Element:
    """Return the root of an input."""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ConfigError(f"the i-PI input is no XML ({error}); correct it there") from error
    if root.tag != "simulation":
        raise ConfigError(
            f"the i-PI input begins with <{root.tag}>; it must be one <simulation> element"
        )
    return copy.deepcopy(root)


def _text(
    parent: ElementTree.Element, name: str, value: float | str, *, units: str | None = None
) -> ElementTree.Element:
    """Append an element that holds a value."""
    element = ElementTree.SubElement(parent, name)
    element.text = f" {value} "
    if units is not None:
        element.set("units", units)
    return element


def _replace(parent: ElementTree.Element, name: str, text: str) -> None:
    """Give an element its only child of a name."""
    _remove(parent, name)
    _text(parent, name, text)


def _remove(parent: ElementTree.Element, name: str) -> None:
    for old in parent.findall(name):
        parent.remove(old)
