"""Structures as JSON, between the benchmark and the processes it measures.

Read by every environment: only ASE and NumPy are imported.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms

ENERGY, FORCES = "REF_energy", "REF_forces"


def frames_to_json(frames: Sequence[Atoms]) -> list[dict[str, Any]]:
    """Return frames, with labels of energy and forces where they have them, as plain values."""
    entries = []
    for atoms in frames:
        entry: dict[str, Any] = {
            "numbers": atoms.numbers.tolist(),
            "positions": atoms.positions.tolist(),
            "cell": atoms.cell.array.tolist(),
            "pbc": atoms.pbc.tolist(),
        }
        if ENERGY in atoms.info:
            entry["energy"] = float(atoms.info[ENERGY])
        if FORCES in atoms.arrays:
            entry["forces"] = atoms.arrays[FORCES].tolist()
        entries.append(entry)
    return entries


def frames_from_json(entries: Sequence[dict[str, Any]]) -> list[Atoms]:
    """Return the frames that `frames_to_json` wrote."""
    frames = []
    for entry in entries:
        atoms = Atoms(
            numbers=entry["numbers"],
            positions=entry["positions"],
            cell=entry["cell"],
            pbc=entry["pbc"],
        )
        if "energy" in entry:
            atoms.info[ENERGY] = entry["energy"]
        if "forces" in entry:
            atoms.set_array(FORCES, np.array(entry["forces"]))
        frames.append(atoms)
    return frames
