"""Phonon bands as what a campaign converges, with the committee's error bar on every band.

Each generation the serving committee relaxes the crystal (where wanted) and gives its force
constants; bands of the mean potential carry an error bar of scale times spread at each q-point.
Two values must come to rest:

    highest   the highest frequency on the mesh
    bands     the root mean square frequency along seekpath's path; its error bar is the largest
              that any band has anywhere on the path, so that it is small only when all bands are
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms

from tace_al.analysis.bands import Bands
from tace_al.analysis.crystal_relaxation import relax_crystal
from tace_al.analysis.force_constants import from_hessian
from tace_al.analysis.phonons import Phonons, phonons
from tace_al.analysis.supercells import crystal_lattice, default_supercell, primitive_cell
from tace_al.analysis.targets import TargetInputs
from tace_al.engines.sampling.committee_potential import CommitteePotential
from tace_al.model.committee import Committee


def phonon_bands(
    inputs: TargetInputs,
    *,
    channel: str = "",
    relax: bool = True,
    min_height: float = 10.0,
    mesh: int = 15,
) -> dict[str, dict[str, Any]]:
    """Return highest frequency and bands of a crystal, in THz.

    Parameters
    ----------
    channel
        Whose first start structure is the crystal; any repeats of the primitive cell. Default: the
        first channel.
    relax
        Relax cell and positions by the committee first; otherwise the start's are used.
    min_height
        Angstrom between opposite faces of the supercell.
    mesh
        q-points along each direction.
    """
    start = inputs.starts[channel or next(iter(inputs.starts))][0]
    found = committee_phonons(
        inputs.committee, start, relax=relax, min_height=min_height, mesh=(mesh, mesh, mesh)
    )
    scale = inputs.force_scale
    return {
        "highest": {
            "value": float(found.mesh_max.value),
            "error_bar": scale * float(found.mesh_max.spread),
            "unit": "THz",
            "curve": density_curve(found),
        },
        "bands": {
            "value": rms_frequency(found.bands),
            "error_bar": scale * found.bands.max_spread,
            "unit": "THz",
            "labels": found.bands.labels,
            "lowest": found.lowest,
        },
    }


def committee_phonons(
    committee: Committee,
    crystal: Atoms,
    *,
    relax: bool = True,
    min_height: float = 10.0,
    mesh: Sequence[int] = (15, 15, 15),
) -> Phonons:
    """Return the phonons of the primitive cell in a crystal, by a committee in float64."""
    members = [member.as_dtype("float64").eval() for member in committee.members]
    exact = Committee(members, head=committee.head)
    cell = primitive_cell(crystal)
    if relax:
        cell = relax_crystal(CommitteePotential(exact, stress=True), cell).atoms
    lattice = crystal_lattice(cell, default_supercell(cell, min_height=min_height))
    return phonons(lattice, from_hessian(lattice, cell, exact), mesh=mesh)


def density_curve(found: Phonons) -> dict[str, Any]:
    """Return the density of states as a curve for the report's figure."""
    return {
        "x": found.dos.frequencies.tolist(),
        "y": found.dos.density.value.tolist(),
        "members": found.dos.density.members.tolist(),
        "label": "highest frequency",
        "x_label": "frequency (THz)",
        "y_label": "states / THz",
    }


def rms_frequency(bands: Bands) -> float:
    """Return the root mean square frequency along a path in THz."""
    squares = np.concatenate([values.value.ravel() ** 2 for values in bands.frequencies])
    return float(np.sqrt(squares.mean()))
