"""Ring polymers as arrays: what i-PI's RESTART and checkpoint files hold, read and written as XML.

q and p are (beads, atoms, 3); i-PI keeps them in atomic units (Bohr, m_e Bohr / atomic time), here
they are in A and in ASE's unit of momentum, amu A / (A sqrt(amu / eV)) = sqrt(amu eV).
"""

import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from ase import units

from tace_al.core.errors import SamplerError
from tace_al.core.units import BOHR, HARTREE

AMU_IN_ELECTRON_MASSES = units._amu / units._me
_MOMENTUM = float(np.sqrt(AMU_IN_ELECTRON_MASSES / HARTREE))
"""Atomic units of momentum in one sqrt(amu eV)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BeadState:
    """A ring polymer at a step.

    Parameters
    ----------
    step
        Steps done.
    positions, momenta
        (beads, atoms, 3) in A and sqrt(amu eV).
    cell
        (3, 3) in A, lattice vectors in rows.
    text
        The whole file, from which i-PI goes on.
    """

    step: int
    positions: np.ndarray
    momenta: np.ndarray
    cell: np.ndarray
    text: str


def read_state(path: Path) -> BeadState | None:
    """Return the state in a RESTART or checkpoint file, None where it is missing or cut off."""
    try:
        text = path.read_text()
        root = ElementTree.fromstring(text)
    except (OSError, ElementTree.ParseError):
        return None
    beads, cell = root.find(".//beads"), root.find(".//cell")
    if beads is None or cell is None:
        return None
    shape = (int(beads.attrib["nbeads"]), int(beads.attrib["natoms"]), 3)
    step = root.findtext("step")
    return BeadState(
        step=0 if step is None else int(step),
        positions=_numbers(beads.findtext("q")).reshape(shape) * BOHR,
        momenta=_numbers(beads.findtext("p")).reshape(shape) / _MOMENTUM,
        cell=_numbers(cell.text).reshape(3, 3).T * BOHR,
        text=text,
    )


def beads_element(
    symbols: list[str], masses: np.ndarray, positions: np.ndarray, momenta: np.ndarray | None
) -> ElementTree.Element:
    """Return i-PI's <beads> of a ring polymer.

    Parameters
    ----------
    masses
        (atoms,) in amu.
    positions, momenta
        (beads, atoms, 3) in A and sqrt(amu eV); without momenta, i-PI has to draw them.
    """
    num_beads, num_atoms = positions.shape[:2]
    element = ElementTree.Element("beads", natoms=str(num_atoms), nbeads=str(num_beads))
    flat = positions.reshape(num_beads, -1) / BOHR
    _array(element, "q", flat)
    if momenta is not None:
        _array(element, "p", momenta.reshape(num_beads, -1) * _MOMENTUM)
    _array(element, "m", masses * AMU_IN_ELECTRON_MASSES)
    names = ElementTree.SubElement(element, "names", shape=f"({num_atoms})")
    names.text = f"[ {', '.join(symbols)} ]"
    return element


def cell_element(cell: np.ndarray) -> ElementTree.Element:
    """Return i-PI's <cell> of (3, 3) lattice vectors in rows, in A.

    Raises
    ------
    SamplerError
        The cell is turned in a way that i-PI cannot take.
    """
    if np.abs(np.triu(cell, k=1)).max() > 1e-8 or (np.diag(cell) <= 0).any():
        raise SamplerError(
            "i-PI wants the first lattice vector along x and the second in the xy plane; turn the "
            "structure with `standard, rotation = atoms.cell.standard_form()` and "
            "`atoms.set_cell(standard, scale_atoms=True)`"
        )
    element = ElementTree.Element("cell", shape="(3, 3)")
    element.text = _list(cell.T / BOHR)
    return element


def _array(parent: ElementTree.Element, name: str, values: np.ndarray) -> None:
    """Append an array as i-PI writes it."""
    shape = f"({', '.join(map(str, values.shape))})"
    ElementTree.SubElement(parent, name, shape=shape).text = _list(values)


def _list(values: np.ndarray) -> str:
    return f"[ {', '.join(f'{value:.17g}' for value in values.ravel())} ]"


def _numbers(text: str | None) -> np.ndarray:
    """Return the numbers between brackets."""
    if text is None:
        raise SamplerError("a state of i-PI lacks positions or momenta; remove the file")
    return np.array(re.sub(r"[\[\],]", " ", text).split(), dtype=float)
