"""Structures between parts and on disk: what an `ase.Atoms` carries here, and exact frame files.

Conventions: total charge in `atoms.info["total_charge"]` (e, default 0), spin multiplicity 2S + 1
in `atoms.info["spin_multiplicity"]` (default: the lowest that fits the electron count), fixed
atoms as ASE `FixAtoms`. A frame file is a `.npz` (never pickled) with every array of every frame
end to end in float64: numbers come back bit for bit, which extended XYZ does not promise.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms

from tace_al.core.atomic_write import write_bytes
from tace_al.core.errors import DataError
from tace_al.core.hashing import structure_hash

CHARGE = "total_charge"
MULTIPLICITY = "spin_multiplicity"


def total_charge(atoms: Atoms) -> int:
    """Return the declared total charge in e, 0 where none is declared."""
    return round(float(atoms.info.get(CHARGE, 0)))


def spin_multiplicity(atoms: Atoms) -> int:
    """Return the declared multiplicity, or 1 for an even and 2 for an odd electron count."""
    declared = atoms.info.get(MULTIPLICITY)
    if declared is not None:
        return int(declared)
    num_electrons = int(atoms.numbers.sum()) - total_charge(atoms)
    return 1 + num_electrons % 2


def fixed_mask(atoms: Atoms) -> np.ndarray:
    """Return (atoms,) booleans, True where an atom is held by a `FixAtoms` constraint."""
    mask = np.zeros(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            mask[constraint.index] = True
    return mask


def structure_key(atoms: Atoms) -> str:
    """Return the content key of a structure (numbers, positions, cell, pbc, charge, spin)."""
    return structure_hash(
        atoms.numbers,
        atoms.positions,
        cell=atoms.cell.array,
        pbc=atoms.pbc,
        charge=total_charge(atoms),
        multiplicity=spin_multiplicity(atoms),
    )


def bare_copy(atoms: Atoms) -> Atoms:
    """Return the structure alone: geometry, cell, charge, multiplicity and fixed atoms."""
    copy = Atoms(
        numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell.array, pbc=atoms.pbc
    )
    copy.info[CHARGE] = total_charge(atoms)
    copy.info[MULTIPLICITY] = spin_multiplicity(atoms)
    fixed = fixed_mask(atoms)
    if fixed.any():
        copy.set_constraint(FixAtoms(mask=fixed))
    return copy


def frames_to_bytes(frames: Sequence[Atoms]) -> bytes:
    """Return frames, with their plain `info` and every per-atom array, as one `.npz`.

    `info` values must be plain (numbers, strings, lists, dicts) or small numpy arrays.
    """
    counts = np.asarray([len(atoms) for atoms in frames], dtype=np.int64)
    names = sorted({name for atoms in frames for name in atoms.arrays})
    arrays: dict[str, np.ndarray] = {"counts": counts}
    for name in names:
        holders = [atoms for atoms in frames if name in atoms.arrays]
        arrays[f"array/{name}"] = np.concatenate([atoms.arrays[name] for atoms in holders])
        arrays[f"has/{name}"] = np.asarray([name in atoms.arrays for atoms in frames])
    arrays["cell"] = np.asarray([atoms.cell.array for atoms in frames]).reshape(-1, 3, 3)
    arrays["pbc"] = np.asarray([atoms.pbc for atoms in frames], dtype=bool).reshape(-1, 3)
    fixed = [fixed_mask(atoms) for atoms in frames]
    arrays["fixed"] = np.concatenate(fixed) if fixed else np.zeros(0, dtype=bool)
    info = json.dumps([_plain(atoms.info) for atoms in frames])
    arrays["info"] = np.frombuffer(info.encode(), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def frames_from_bytes(content: bytes) -> list[Atoms]:
    """Return the frames that `frames_to_bytes` wrote."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        counts = arrays["counts"]
        info = json.loads(arrays["info"].tobytes().decode())
        cells, pbc = arrays["cell"], arrays["pbc"]
        fixed = np.split(arrays["fixed"], np.cumsum(counts)[:-1])
        pieces: dict[str, list[np.ndarray | None]] = {}
        for name in arrays.files:
            if name.startswith("array/"):
                has = arrays["has/" + name.removeprefix("array/")]
                bounds = np.cumsum(np.where(has, counts, 0))[:-1]
                parts = np.split(arrays[name], bounds)
                pieces[name.removeprefix("array/")] = [
                    part if held else None for part, held in zip(parts, has.tolist(), strict=True)
                ]
    frames = []
    for index in range(len(counts)):
        numbers, positions = pieces["numbers"][index], pieces["positions"][index]
        atoms = Atoms(numbers=numbers, positions=positions, cell=cells[index], pbc=pbc[index])
        for name, pieces_of_frames in pieces.items():
            part = pieces_of_frames[index]
            if name not in ("numbers", "positions") and part is not None:
                atoms.set_array(name, part)
        atoms.info.update(_rebuilt(info[index]))
        if fixed[index].any():
            atoms.set_constraint(FixAtoms(mask=fixed[index]))
        frames.append(atoms)
    return frames


def write_frames(path: Path, frames: Sequence[Atoms]) -> None:
    """Write frames to `path` (.npz), whole or not at all."""
    write_bytes(path, frames_to_bytes(frames))


def read_frames(path: Path) -> list[Atoms]:
    """Read a frame file.

    Raises
    ------
    DataError
        The file is missing or is not a frame file.
    """
    try:
        return frames_from_bytes(path.read_bytes())
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is not a frame file of tace-al: {error}") from error


def _plain(value: Any) -> Any:
    """Return `value` with numpy scalars and arrays as tagged plain content."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return {"__array__": value.tolist(), "dtype": str(value.dtype)}
    if isinstance(value, np.generic):
        return value.item()
    return value


def _rebuilt(value: Any) -> Any:
    """Undo `_plain`."""
    if isinstance(value, dict):
        if "__array__" in value:
            return np.asarray(value["__array__"], dtype=value["dtype"])
        return {key: _rebuilt(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rebuilt(item) for item in value]
    return value
