"""What commands that calculate read and write: one structure in, a folder of results out.

A result folder holds a JSON summary (results, what they came from, versions), trajectories as
extended XYZ and figures as PNG. Every file is written whole or not at all, the summary last: where
it is, everything is.
"""

import json
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tace_al.core.errors import DataError

if TYPE_CHECKING:
    from ase import Atoms

Structure = Annotated[
    Path,
    typer.Argument(
        metavar="STRUCTURE", help="Anything ASE reads; its last frame, with its fixed atoms."
    ),
]
OutFolder = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Folder for trajectory, summary and figures.")
]
Charge = Annotated[
    int | None, typer.Option("--charge", help="Total charge in e; default: the file's, or 0.")
]
Multiplicity = Annotated[
    int | None,
    typer.Option(
        "--multiplicity", min=1, help="2S + 1; default: the file's, or the lowest that fits."
    ),
]

_PACKAGES = ("tace-al", "ase", "numpy", "torch")


def read_structure(
    path: Path, *, charge: int | None = None, multiplicity: int | None = None
) -> "Atoms":
    """Return the last structure of a file, checked, with its fixed atoms.

    Raises
    ------
    DataError
        The file cannot be read.
    StructureError
        Atoms overlap, a cell is missing, or charge and multiplicity do not fit.
    """
    from tace_al.data.extxyz import read_structures
    from tace_al.data.frames import CHARGE, MULTIPLICITY
    from tace_al.engines.labelling.guards import check_structure

    (atoms,) = read_structures(path, "-1")
    atoms.calc = None
    if charge is not None:
        atoms.info[CHARGE] = charge
    if multiplicity is not None:
        atoms.info[MULTIPLICITY] = multiplicity
    check_structure(atoms)
    return atoms


def prepare_folder(folder: Path) -> Path:
    """Make a result folder and see that there is room in it; return it.

    Raises
    ------
    DataError
        The path is a file.
    StorageFull
        The disk has no room.
    """
    from tace_al.core.atomic_write import require_free_space

    if folder.is_file():
        raise DataError(f"{folder} is a file; name a folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    require_free_space(folder.absolute())
    return folder


def start_key(atoms: "Atoms") -> str:
    """Return the key of a start: structure, what is held, masses, momenta and conditions."""
    import numpy as np

    from tace_al.core.hashing import content_hash
    from tace_al.data.frames import fixed_mask, structure_key
    from tace_al.engines.sampling.walkers import moving_copy

    start = moving_copy(atoms)
    told = {**start.info, **start.arrays}
    plain_values = {name: np.asarray(value).tolist() for name, value in told.items()}
    return content_hash([structure_key(start), fixed_mask(start).tolist(), plain_values])


def run_settings(
    own: Mapping[str, Any], atoms: "Atoms", potential: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a state on disk must agree with to be taken up.

    Parameters
    ----------
    own
        Everything that decides the numbers but structure, potential and length.
    potential
        `ChosenPotential.description`; where it runs does not matter.
    """
    driven = {name: value for name, value in potential.items() if name != "device"}
    return {**own, "structure": start_key(atoms), "potential": driven}


def write_summary(
    path: Path, *, inputs: Mapping[str, Any], results: Mapping[str, Any]
) -> dict[str, Any]:
    """Write results as JSON, with `inputs` and `versions` beside them; return what was written.

    Parameters
    ----------
    inputs
        What the results came from: settings and `ChosenPotential.description`.
    results
        Plain values and arrays by name, units in the names; they become the top level of the file.
        What is not finite becomes null.
    """
    from tace_al.core.atomic_write import write_bytes

    content = plain({**results, "inputs": inputs, "versions": versions()})
    write_bytes(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
    assert isinstance(content, dict)
    return content


def versions() -> dict[str, str]:
    """Return the versions that numbers may depend on."""
    return {
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in _PACKAGES},
    }


def plain(value: Any) -> Any:
    """Return a value as JSON can say it: lists for arrays, text for paths, null for NaN.

    >>> import numpy as np
    >>> plain({"a": np.array([1.0, np.nan]), "b": Path("c"), "n": np.int64(3)})
    {'a': [1.0, None], 'b': 'c', 'n': 3}
    """
    import numpy as np

    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
