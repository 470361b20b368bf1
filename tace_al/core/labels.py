"""What an electronic-structure calculation is (Fidelity) and what it returns (Label)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from tace_al.core.hashing import content_hash

Setting = str | int | float | bool | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Fidelity:
    """One level of theory: everything that changes a number, and nothing that does not.

    Parameters
    ----------
    name
        Short name, also the name of the model's head: "gfn2", "pbe".
    code
        Program with its version: "tblite 0.4.0".
    settings
        Method, basis, smearing, thresholds, ... as plain values.
    """

    name: str
    code: str
    settings: Mapping[str, Setting] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Freeze the settings."""
        object.__setattr__(self, "settings", MappingProxyType(dict(self.settings)))

    @property
    def key(self) -> str:
        """Content hash of the level; two labels are comparable when their keys agree."""
        return content_hash({"name": self.name, "code": self.code, "settings": dict(self.settings)})


@dataclass(frozen=True, kw_only=True, slots=True)
class Label:
    """Energy and forces of one structure at one fidelity.

    Parameters
    ----------
    structure_key, fidelity_key
        What was computed, and how.
    energy
        Total energy in eV.
    forces
        (atoms, 3) in eV/Angstrom, -dE/dx.
    stress
        (3, 3) in eV/Angstrom^3, (1/V) dE/dstrain (compressed < 0), or None without a cell.
    dipole
        (3,) in e Angstrom, or None.
    seconds
        Wall time of the calculation.
    """

    structure_key: str
    fidelity_key: str
    energy: float
    forces: np.ndarray
    stress: np.ndarray | None = None
    dipole: np.ndarray | None = None
    seconds: float = 0.0

    @property
    def key(self) -> str:
        """One label per structure and fidelity: this key is unique in the Store."""
        return label_key(self.structure_key, self.fidelity_key)


def label_key(structure_key: str, fidelity_key: str) -> str:
    """Return the key of the label of a structure at a fidelity."""
    return content_hash([structure_key, fidelity_key])
