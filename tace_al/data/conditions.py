"""Conditions: what a structure is under besides atoms and cell - charge, spin, fields, heat.

A model that was made for a condition reads it from the frame, by name:

    total_charge            info    e
    spin_multiplicity       info    2S + 1
    electronic_temperature  info    K
    electric_field          info    (3,) V/Angstrom
    magnetic_field          info    (3,) T
    initial_charges         arrays  (atoms,) e
    collinear_moments       arrays  (atoms,) Bohr magneton, its sign of no meaning
    magnetic_moments        arrays  (atoms, 3) Bohr magneton

What a frame does not say is NaN, which means absent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from tace_al.core.errors import DataError
from tace_al.data.frames import CHARGE, MULTIPLICITY


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """One quantity a structure may be under.

    Parameters
    ----------
    name
        Its name in models, and the first place it is looked for.
    per
        "structure" (in `atoms.info`) or "atom" (in `atoms.arrays`).
    shape
        () for a number, (3,) for a vector.
    aliases
        Other names under which files carry it.
    """

    name: str
    per: Literal["structure", "atom"]
    shape: tuple[int, ...] = ()
    aliases: tuple[str, ...] = ()


CONDITIONS: dict[str, Condition] = {
    condition.name: condition
    for condition in (
        Condition(name=CHARGE, per="structure"),
        Condition(name=MULTIPLICITY, per="structure"),
        Condition(name="electronic_temperature", per="structure"),
        Condition(name="electric_field", per="structure", shape=(3,)),
        Condition(name="magnetic_field", per="structure", shape=(3,)),
        Condition(name="initial_charges", per="atom"),
        Condition(name="collinear_moments", per="atom", aliases=("initial_magmoms", "REF_magmoms")),
        Condition(
            name="magnetic_moments",
            per="atom",
            shape=(3,),
            aliases=("initial_magmoms", "REF_magmoms"),
        ),
    )
}


def read_conditions(atoms: Atoms, names: Sequence[str]) -> dict[str, Tensor]:
    """Return conditions of a frame by name, float64, NaN where absent.

    Each has a leading axis of length 1 (structure) or of one entry an atom.

    Raises
    ------
    DataError
        A value has the wrong shape, is no number, or is infinite.
    """
    return {name: _read(atoms, CONDITIONS[name]) for name in names}


def describe_place(name: str) -> str:
    """Return where a frame is to carry a condition, for messages."""
    place = "info" if CONDITIONS[name].per == "structure" else "arrays"
    return f'atoms.{place}["{name}"]'


def _read(atoms: Atoms, condition: Condition) -> Tensor:
    """Return one condition with its leading axis."""
    place: dict[str, Any] = atoms.info if condition.per == "structure" else atoms.arrays
    count = 1 if condition.per == "structure" else len(atoms)
    shape = (count, *condition.shape)
    for name in (condition.name, *condition.aliases):
        if name not in place:
            continue
        values = np.asarray(place[name])
        if name != condition.name and values.size != np.prod(shape):
            continue  # ASE keeps collinear and non-collinear moments under one name
        if values.dtype.kind not in "iuf" or values.size != np.prod(shape):
            raise DataError(
                f"{describe_place(condition.name)} is {place[name]!r}; expected "
                f"{condition.shape or 'a number'} per {condition.per}"
            )
        if np.isinf(values).any():
            raise DataError(f"{describe_place(condition.name)} is infinite; correct it")
        return torch.as_tensor(values.astype(np.float64).reshape(shape).copy())
    return torch.full(shape, torch.nan, dtype=torch.float64)
