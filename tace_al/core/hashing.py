"""Content addresses: the same content always has the same key, whatever process computes it.

Keys are the first 32 hexadecimal digits of SHA-256. Positions and cells are rounded to 1e-8
Angstrom first, so that a structure keeps its key through a text file.
"""

import hashlib
import json
from typing import Any

import numpy as np

KEY_LENGTH = 32
_QUANTUM = 1e-8  # Angstrom


def content_hash(content: Any) -> str:
    """Return the key of plain content (numbers, strings, lists, dicts with string keys, None).

    >>> content_hash({"b": 1, "a": [1.0, "x"]}) == content_hash({"a": [1.0, "x"], "b": 1})
    True
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def structure_hash(
    numbers: np.ndarray,
    positions: np.ndarray,
    *,
    cell: np.ndarray,
    pbc: np.ndarray,
    charge: int = 0,
    multiplicity: int = 1,
) -> str:
    """Return the key of one structure.

    Parameters
    ----------
    numbers
        (atoms,) atomic numbers.
    positions
        (atoms, 3) in Angstrom.
    cell
        (3, 3) in Angstrom, one lattice vector a row; ignored along directions without `pbc`.
    pbc
        (3,) booleans.
    charge, multiplicity
        Total charge in e and spin multiplicity 2S + 1.
    """
    pbc = np.asarray(pbc, dtype=bool)
    cell = np.where(pbc[:, None], np.asarray(cell, dtype=float), 0.0)
    digest = hashlib.sha256()
    digest.update(np.asarray(numbers, dtype="<i8").tobytes())
    for lengths in (positions, cell):
        quanta = np.rint(np.asarray(lengths, dtype=float) / _QUANTUM)
        digest.update(quanta.astype("<i8").tobytes())
    digest.update(pbc.astype("<i8").tobytes())
    digest.update(np.asarray([charge, multiplicity], dtype="<i8").tobytes())
    return digest.hexdigest()[:KEY_LENGTH]
