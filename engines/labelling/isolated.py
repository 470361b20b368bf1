"""Isolated atoms in their ground states, whose energies E0 a model subtracts before it learns.

Multiplicities 2S + 1 follow the ground-state terms of the neutral atoms in the NIST Atomic Spectra
Database (https://dx.doi.org/10.18434/T4W30F); they are Hund's, except where s and d or d and f
electrons trade places (Cr, Nb, Mo, Pd, Pt, Ce, Gd, ...).
"""

from ase import Atoms
from ase.data import atomic_numbers

from tace_al.core.errors import StructureError, nearest_names
from tace_al.data.frames import CHARGE, MULTIPLICITY

ISOLATED_ATOM = "IsolatedAtom"
"""Value of `atoms.info["config_type"]` that marks an isolated atom."""

_MULTIPLICITIES = (
    "21"  # H He
    "21234321"  # Li-Ne
    "21234321"  # Na-Ar
    "212347654321234321"  # K-Kr
    "212367654121234321"  # Rb-Xe
    "21"  # Cs Ba
    "214567896543212"  # La-Lu
    "345654321"  # Hf-Hg
    "234321"  # Tl-Rn
)


def ground_state_multiplicity(symbol: str) -> int:
    """Return 2S + 1 of the neutral atom's ground state, for Z = 1 to 86.

    >>> [ground_state_multiplicity(symbol) for symbol in ("H", "C", "N", "O", "Cr", "Pt")]
    [2, 3, 4, 3, 7, 3]

    Raises
    ------
    StructureError
        The symbol is no element, or one heavier than Rn.
    """
    number = atomic_numbers.get(symbol, 0)
    if not 1 <= number <= len(_MULTIPLICITIES):
        known = [name for name, Z in atomic_numbers.items() if 1 <= Z <= len(_MULTIPLICITIES)]
        hint = "" if number else nearest_names(symbol, known)
        raise StructureError(
            f"no ground-state multiplicity is known for '{symbol}'; use an element from H to Rn."
            + hint
        )
    return int(_MULTIPLICITIES[number - 1])


def isolated_atom(symbol: str) -> Atoms:
    """Return one neutral atom in vacuum, its multiplicity declared and marked as isolated."""
    multiplicity = ground_state_multiplicity(symbol)
    atoms = Atoms(symbol, positions=[[0.0, 0.0, 0.0]])
    atoms.info[CHARGE] = 0
    atoms.info[MULTIPLICITY] = multiplicity
    atoms.info["config_type"] = ISOLATED_ATOM
    return atoms
