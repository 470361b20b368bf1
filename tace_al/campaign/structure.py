"""A structure of a campaign as plain numbers, and the base of all parts of a campaign.

Structures are stored whole, so that a campaign file is complete without the files it was built
from.
"""

from typing import Self

from ase import Atoms
from ase.constraints import FixAtoms
from ase.data import atomic_numbers
from pydantic import BaseModel, ConfigDict, model_validator

from tace_al.data.frames import (
    CHARGE,
    MULTIPLICITY,
    fixed_mask,
    spin_multiplicity,
    total_charge,
)

CHANNEL_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
"""Without dots: channels are keys of documents in the database."""


class Part(BaseModel):
    """Base of every part: frozen, unknown fields and numbers that are not finite refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Structure(Part):
    """One structure as plain numbers.

    Parameters
    ----------
    symbols
        Chemical symbols, one an atom.
    positions
        (atoms, 3) in Angstrom.
    cell
        (3, 3) lattice vectors as rows in Angstrom, or empty for a molecule.
    pbc
        Periodic directions.
    charge, multiplicity
        Total charge in e, spin multiplicity 2S + 1.
    fixed
        Indices of atoms that never move.
    """

    symbols: tuple[str, ...]
    positions: tuple[tuple[float, float, float], ...]
    cell: tuple[tuple[float, float, float], ...] = ()
    pbc: tuple[bool, bool, bool] = (False, False, False)
    charge: int = 0
    multiplicity: int = 1
    fixed: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _check_shapes(self) -> Self:
        for symbol in self.symbols:
            if not atomic_numbers.get(symbol):
                raise ValueError(f"'{symbol}' is no chemical symbol")
        if len(self.positions) != len(self.symbols):
            raise ValueError(
                f"{len(self.symbols)} symbols and {len(self.positions)} positions; give one "
                "position an atom"
            )
        if len(self.cell) not in (0, 3):
            raise ValueError(f"cell has {len(self.cell)} rows; give three lattice vectors or none")
        outside = [index for index in self.fixed if not 0 <= index < len(self.symbols)]
        if outside:
            raise ValueError(
                f"fixed names atom {outside[0]}; the atoms are numbered 0 to "
                f"{len(self.symbols) - 1}"
            )
        return self

    @classmethod
    def from_atoms(cls, atoms: Atoms) -> Self:
        """Return the plain form of a structure."""
        return cls(
            symbols=tuple(atoms.get_chemical_symbols()),
            positions=tuple(map(tuple, atoms.positions.tolist())),
            cell=tuple(map(tuple, atoms.cell.array.tolist())) if atoms.cell.rank else (),
            pbc=(bool(atoms.pbc[0]), bool(atoms.pbc[1]), bool(atoms.pbc[2])),
            charge=total_charge(atoms),
            multiplicity=spin_multiplicity(atoms),
            fixed=tuple(int(index) for index in fixed_mask(atoms).nonzero()[0]),
        )

    def to_atoms(self) -> Atoms:
        """Return the structure as `ase.Atoms`."""
        atoms = Atoms(
            list(self.symbols),
            positions=self.positions,
            cell=self.cell or None,
            pbc=self.pbc,
        )
        atoms.info[CHARGE], atoms.info[MULTIPLICITY] = self.charge, self.multiplicity
        if self.fixed:
            atoms.set_constraint(FixAtoms(indices=list(self.fixed)))
        return atoms
