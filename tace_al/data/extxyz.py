"""Structures and labels from files: anything ASE reads, compressed (.xz, .gz, .bz2) or not.

After `read_labelled` every frame carries its labels in one place, whatever the file called them:

    atoms.info["REF_energy"]     total energy in eV
    atoms.arrays["REF_forces"]   (atoms, 3) in eV/Angstrom, -dE/dx
    atoms.info["REF_stress"]     (3, 3) in eV/Angstrom^3, (1/V) dE/dstrain (compressed < 0)

and any other label of an output under "REF_<output>" (`REF_dipole`, `REF_born_charges`, ...); it
lacks what was not computed. `LabelKeys.others` renames; names that data sets in use give to the
same quantity (`ALIASES`) are understood. Keys named `energy`, `forces` and `stress` do not stay
where the file has them: ASE moves them into a `SinglePointCalculator`, so a name is looked up there
as well. When a file has none of a `REF_*` key its calculator results are taken instead. That is
decided once a file, never frame by frame: two levels of theory in one file must not mix. A key the
caller names is never replaced.

Extended XYZ: https://github.com/libAtoms/extxyz; six-component stress is in ASE's Voigt order
xx, yy, zz, yz, xz, xy.
"""

import bz2
import gzip
import io
import json
import logging
import lzma
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import ase.io
import numpy as np
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress

from tace_al.core.atomic_write import write_bytes
from tace_al.core.errors import DataError, nearest_names
from tace_al.data.frames import CHARGE, MULTIPLICITY

ENERGY, FORCES, STRESS = "REF_energy", "REF_forces", "REF_stress"
ALIASES = {
    "REF_polarization": "REF_dipole",
    "REF_becs": "REF_born_charges",
    "REF_mag_forces": "REF_magnetic_forces",
}
"""Other names of labels, each with the name it is given here."""
FORCE_LIMIT = 1e3
"""Largest believable root mean square force of a frame in eV/Angstrom."""

Property = Literal["energy", "forces", "stress"]

_PLACES: dict[Property, str] = {"energy": ENERGY, "forces": FORCES, "stress": STRESS}
_ATOM_RESULTS = ("charges", "magmoms", "stresses", "energies")
_CHARGE_NAMES = (CHARGE, "charge")
_MULTIPLICITY_NAMES = (MULTIPLICITY, "multiplicity", "spin")
XYZ_SUFFIXES = (".xyz", ".extxyz")
_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    ".xz": lzma.compress,
    ".gz": lambda content: gzip.compress(content, mtime=0),
    ".bz2": bz2.compress,
}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelKeys:
    """What a file calls its labels.

    Parameters
    ----------
    energy, forces, stress
        Names in a frame's comment line, columns or calculator. Left at its default, a name that no
        frame has gives way to the calculator's result.
    others
        Names of further labels by output, such as {"dipole": "mu"}.
    """

    energy: str = ENERGY
    forces: str = FORCES
    stress: str = STRESS
    others: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse virials, which differ from stress by a volume and, in places, a sign."""
        if "virial" in self.stress.lower():
            raise DataError(
                f"the stress key {self.stress!r} names a virial; divide it by minus the cell's "
                "volume and store the result, in eV/A^3, as a stress"
            )

    def name(self, label: Property) -> str:
        """Return the file's name of a property."""
        return {"energy": self.energy, "forces": self.forces, "stress": self.stress}[label]


def read_structures(path: Path | str, index: str | int = ":") -> list[Atoms]:
    """Read frames, with charge and multiplicity under the names of `tace_al.data.frames`.

    Parameters
    ----------
    path
        A file in any format ASE recognises.
    index
        Which frames, as in ASE: ":" all, "-1" the last, "::10" every tenth.

    Raises
    ------
    DataError
        The file is missing, empty or unreadable, or a frame has no atoms or broken positions.
    """
    path = Path(path)
    if not path.is_file():
        there = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {there}; give the path of a file of structures")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty; write it again")
    try:
        frames = ase.io.read(path, index=index, do_not_split_by_at_sign=True)
    except Exception as error:  # ASE's many readers raise anything at all on a damaged file
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}: {error}); check that it is whole and "
            "in a format ASE knows, such as extended XYZ"
        ) from error
    frames = [frames] if isinstance(frames, Atoms) else list(frames)
    if not frames:
        raise DataError(f"{path} has no frames at index {index!r}")
    for number, atoms in enumerate(frames):
        where = f"frame {number} of {path}"
        if not len(atoms):
            raise DataError(f"{where} has no atoms; remove it")
        if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
            raise DataError(f"{where} has a position or cell that is not finite; remove it")
        _rename_integer(atoms, CHARGE, _CHARGE_NAMES, where=where)
        _rename_integer(atoms, MULTIPLICITY, _MULTIPLICITY_NAMES, where=where)
        if atoms.info.get(MULTIPLICITY, 1) < 1:
            raise DataError(
                f"{where} has multiplicity {atoms.info[MULTIPLICITY]}, expected 2S + 1 >= 1; a "
                "singlet is 1"
            )
    return frames


def read_labelled(
    path: Path | str, keys: LabelKeys | None = None, *, index: str | int = ":"
) -> list[Atoms]:
    """Read labelled frames; their labels are where the module's docstring says.

    Forces and stress may be missing from some frames, and the energy from frames with forces.

    Raises
    ------
    DataError
        The file cannot be read, a named key is missing, or a label is broken.
    """
    return normalised_labels(read_structures(path, index), keys or LabelKeys(), source=str(path))


def normalised_labels(
    frames: Sequence[Atoms], keys: LabelKeys, *, source: str = "the frames"
) -> list[Atoms]:
    """Return copies of frames with their labels where the module's docstring says.

    Parameters
    ----------
    frames
        With labels in `info`, `arrays` or finished calculators.
    keys
        What they are called.
    source
        Where the frames come from, for messages.
    """
    energies = _found(frames, "energy", keys.energy, source=source)
    forces = _found(frames, "forces", keys.forces, source=source)
    stresses = _found(frames, "stress", keys.stress, source=source)
    for output, name in keys.others.items():
        if all(_find(atoms, name) is None for atoms in frames):
            raise _missing(frames, output, name, where=f"frame 0 of {source}")
    labelled = []
    for number, atoms in enumerate(frames):
        where = f"frame {number} of {source}"
        copy = atoms.copy()
        for place in (copy.info, copy.arrays):
            for name in _PLACES.values():
                place.pop(name, None)
        results = atoms.calc.results if atoms.calc is not None else {}
        others = _rename_others(copy, keys.others, results)
        alone = forces[number] is None and not others
        if energies[number] is None and (alone or keys.energy != ENERGY):
            raise _missing([atoms], "energy", keys.energy, where=where)
        if energies[number] is not None:
            copy.info[ENERGY] = float(_numbers(energies[number], (), "energy", where=where))
        if forces[number] is not None:
            copy.set_array(FORCES, _believable_forces(forces[number], len(atoms), where=where))
        if stresses[number] is not None and atoms.pbc.any() and atoms.cell.rank == 3:
            copy.info[STRESS] = _full_stress(stresses[number], where=where)
        labelled.append(copy)
    return labelled


def _rename_others(atoms: Atoms, names: Mapping[str, str], results: Mapping[str, Any]) -> bool:
    """Move further labels to "REF_<output>" in place; return whether the frame has any.

    `results` are those of a calculator, where ASE puts a file's `dipole` and `charges`.
    """
    renamed = {**ALIASES, **{key: f"REF_{output}" for output, key in names.items()}}
    for output, key in names.items():
        if key in results:
            place = atoms.arrays if key in _ATOM_RESULTS else atoms.info
            place[f"REF_{output}"] = np.array(results[key])
    for place in (atoms.info, atoms.arrays):
        for given, name in renamed.items():
            if given in place and given != name:
                place[name] = place.pop(given)
    present = [*atoms.info, *atoms.arrays]
    return any(name.startswith("REF_") and name not in _PLACES.values() for name in present)


def is_isolated_atom(atoms: Atoms) -> bool:
    """Return whether a frame is one atom alone, whose energy is its element's reference energy.

    Declared by `config_type=IsolatedAtom`, or evident from one atom without periodic directions.
    """
    declared = str(atoms.info.get("config_type", "")).replace("_", "").lower() == "isolatedatom"
    return len(atoms) == 1 and (declared or not atoms.pbc.any())


def check_file_name(path: Path) -> None:
    """Refuse a name that promises another format than extended XYZ, or a folder.

    Raises
    ------
    DataError
        It is one of these.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file to write, such as {path / 'frames.xyz'}")
    inner = path.with_suffix("") if path.suffix in _COMPRESSORS else path
    if inner.suffix not in XYZ_SUFFIXES:
        raise DataError(
            f"{path} would hold extended XYZ; let its name end in .xyz or .extxyz, with .xz, .gz "
            "or .bz2 after it to compress"
        )


def write_structures(path: Path | str, frames: Sequence[Atoms], *, exact: bool = False) -> None:
    """Write frames as extended XYZ, whole or not at all, compressed if the name ends so.

    Positions and per-atom values keep 8 decimals, so structure keys survive; `exact` positions keep
    all of theirs, for what is differentiated again. Entries of `info` that are None or empty text
    are left out: the format has no way to say them. Text that looks like a number (a key such as
    "12e45") stays text.

    Raises
    ------
    DataError
        There are no frames, or the name promises another format.
    """
    path = Path(path)
    check_file_name(path)
    if not frames:
        raise DataError(f"there are no frames to write to {path}")
    copies = []
    for atoms in frames:
        copy = atoms.copy()
        copy.info = {
            name: _kept_text(value)
            for name, value in atoms.info.items()
            if value is not None and not (isinstance(value, str) and not value)
        }
        copy.calc = atoms.calc
        copies.append(copy)
    text = io.StringIO()
    ase.io.write(text, copies, format="extxyz")
    written = _exact(text.getvalue(), frames) if exact else text.getvalue()
    compress = _COMPRESSORS.get(path.suffix, bytes)
    write_bytes(path, compress(written.encode()))


def _exact(text: str, frames: Sequence[Atoms]) -> str:
    """Return extended XYZ with all digits of the positions, which ASE writes after the symbol."""
    lines = iter(text.splitlines())
    written = []
    for atoms in frames:
        written += [next(lines), next(lines)]
        for position in atoms.positions:
            symbol, _, _, _, *rest = next(lines).split()
            written.append(" ".join([symbol, *(repr(float(x)) for x in position), *rest]))
    return "\n".join(written) + "\n"


def _kept_text(value: Any) -> Any:
    """Return text that a reader would take for numbers in the way that ASE reads as text."""
    if not isinstance(value, str):
        return value
    try:
        np.array(value.replace(",", " ").split(), dtype=float)
    except ValueError:
        return value
    return f"_JSON {json.dumps(value)}"


def _find(atoms: Atoms, name: str) -> Any:
    """Return what a frame calls `name`, or None."""
    results = atoms.calc.results if atoms.calc is not None else {}
    for place in (atoms.info, atoms.arrays, results):
        if name in place:
            return place[name]
    return None


def _found(frames: Sequence[Atoms], label: Property, name: str, *, source: str) -> list[Any]:
    """Return one property of every frame, None where a frame lacks it."""
    values = [_find(atoms, name) for atoms in frames]
    if all(value is None for value in values):
        if name != _PLACES[label]:
            raise _missing(frames, label, name, where=f"frame 0 of {source}")
        values = [_find(atoms, label) for atoms in frames]
        if any(value is not None for value in values):
            _log.info("%s: %s taken from the calculator, there is no %s", source, label, name)
            if any(
                _find(atoms, place) is not None for atoms in frames for place in _PLACES.values()
            ):
                _log.warning(
                    "%s has labels named REF_* but no %s: the calculator's %s, used instead, may "
                    "not be the same level of theory; name the keys to be sure",
                    source,
                    name,
                    label,
                )
    num_missing = sum(value is None for value in values)
    if 0 < num_missing < len(frames):
        _log.info("%s: %d of %d frames have no %s", source, num_missing, len(frames), label)
    return values


def _missing(frames: Sequence[Atoms], label: str, name: str, *, where: str) -> DataError:
    """Return the error for a label that is not there, with the names that are."""
    there: set[str] = set()
    for atoms in frames:
        there |= {str(key) for key in atoms.info}
        there |= set(atoms.arrays) - {"numbers", "positions"}
        there |= set(atoms.calc.results if atoms.calc is not None else ())
    listed = ", ".join(sorted(there)) or "no labels at all"
    close = nearest_names(name, there) if there else ""
    hint = close if "Did you mean" in close else ""
    option = f"--{label}-key" if label in _PLACES else f"--key {label}=NAME"
    return DataError(
        f"{where} has no {label} under {name!r}; it has {listed}. Name the right one with "
        f"{option}.{hint}"
    )


def _numbers(value: Any, shape: tuple[int, ...], label: Property, *, where: str) -> np.ndarray:
    """Return a label as finite float64 numbers of the right shape."""
    numbers = np.asarray(value)
    # Text ("-13.6eV") and the True of a bare key are not numbers, whatever float() makes of them.
    if numbers.dtype.kind not in "iuf":
        raise DataError(f"{where}: the {label} is {value!r}, expected numbers")
    numbers = numbers.astype(np.float64)
    if numbers.shape != shape:
        raise DataError(f"{where}: the {label} has shape {numbers.shape}, expected {shape}")
    if not np.isfinite(numbers).all():
        raise DataError(f"{where}: the {label} is not finite (NaN or infinite); remove the frame")
    return numbers


def _believable_forces(value: Any, num_atoms: int, *, where: str) -> np.ndarray:
    """Return forces of a size that is no unit mistake and no broken calculation."""
    forces = _numbers(value, (num_atoms, 3), "forces", where=where)
    size = float(np.sqrt((forces**2).sum(axis=1).mean()))
    if size > FORCE_LIMIT:
        raise DataError(
            f"{where}: the root mean square force is {size:.3g} eV/A, more than {FORCE_LIMIT:g}; "
            "check the unit (eV/A is expected) or remove the frame"
        )
    return forces


def _full_stress(value: Any, *, where: str) -> np.ndarray:
    """Return a (3, 3) symmetric stress from 3 x 3, nine or six (Voigt) numbers."""
    size = np.size(value)
    if size == 6:
        return np.asarray(
            voigt_6_to_full_3x3_stress(_numbers(np.ravel(value), (6,), "stress", where=where))
        )
    if size == 9:
        value = np.reshape(value, (3, 3))
    stress = _numbers(value, (3, 3), "stress", where=where)
    if np.abs(stress - stress.T).max() > 0.05 * np.abs(stress).max() + 1e-6:
        raise DataError(
            f"{where}: the stress is not symmetric; check the order of its components "
            "(xx xy xz yx yy yz zx zy zz, or xx yy zz yz xz xy)"
        )
    return (stress + stress.T) / 2


def _rename_integer(atoms: Atoms, name: str, aliases: Sequence[str], *, where: str) -> None:
    """Move an integer of `info` from any of its aliases to `name`."""
    values: dict[str, int] = {}
    for alias in aliases:
        if alias not in atoms.info:
            continue
        number = np.asarray(atoms.info.pop(alias))
        if number.dtype.kind not in "iuf" or number.shape or abs(number - np.rint(number)) > 1e-6:
            raise DataError(f"{where}: {alias} is {number}, expected one integer")
        values[alias] = int(np.rint(number))
    if len(set(values.values())) > 1:
        stated = ", ".join(f"{alias} = {value}" for alias, value in values.items())
        raise DataError(f"{where} contradicts itself: {stated}; keep one of them")
    if values:
        atoms.info[name] = next(iter(values.values()))
