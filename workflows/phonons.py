"""Phonons of a crystal: from a few labels to bands whose error bar is small everywhere.

    tace-al run workflows/phonons.py                                   copper, effective medium
    tace-al run workflows/phonons.py --set crystal=Al --set max_error=0.1
    tace-al run workflows/phonons.py --set crystal=si.xyz --set labeller=gpaw --set relax=false
    tace-al phonons copper.xyz runs/phonons_Cu --out bands             with what has been learnt

The cell is the labeller's own minimum. Strained and rattled supercells that the committee is unsure
of are labelled, in several shapes of one size, for a wave that fits into no labelled supercell is
known to no member and all may err alike. Each generation every member gives its force constants by
its analytic Hessian. The campaign ends when the highest frequency and the bands are steady and the
error bar of the worst band at its worst q-point is below `max_error` THz.
"""

from pathlib import Path
from typing import Any

from ase import Atoms
from ase.build import bulk

from tace_al.analysis.crystal_relaxation import relax_crystal
from tace_al.analysis.supercell_shapes import supercell_shapes
from tace_al.analysis.supercells import primitive_cell
from tace_al.campaign.config import (
    Acquisition,
    Campaign,
    Exploration,
    LabellerChoice,
    ModelChoice,
    Stopping,
    Structure,
)
from tace_al.core.errors import ConfigError
from tace_al.data.extxyz import read_structures
from tace_al.dispatch.machine import machine_from_name
from tace_al.engines.labelling.catalogue import labeller_from_name
from tace_al.engines.sampling.labeller_potential import LabellerPotential
from tace_al.engines.sampling.strained import strained_copies

AMPLITUDES = {"strain": 0.015, "displacement": 0.06}
"""Largest strain, and standard deviation of coordinates in A: the neighbourhood in which force
constants are second derivatives, with room for what training smooths away."""
SHAPES = 8
"""Supercells of different shape."""
NUM_SEEDS = 40
"""Strained and rattled copies to begin with."""
ACQUISITION = Acquisition(
    low=0.001,
    high=2.0,
    force_floor=0.0005,
    per_generation=30,
    audit_share=0.1,
    calibration_share=0.3,
)
"""Forces of small displacements are small, and so are errors that show in a frequency. A scale read
off few structures is large, and multiplies the bars of all bands: many go into the calibration."""


def campaign(
    *,
    crystal: str = "Cu",
    labeller: str = "emt",
    relax: bool = True,
    supercell_atoms: int = 16,
    max_error: float = 0.2,
    machine: str = "local",
    max_labels: int = 200,
    max_minutes: float = 9.0,
    seed: int = 0,
) -> Campaign:
    """Return the campaign.

    Parameters
    ----------
    crystal
        An element, or the file of a unit cell.
    labeller
        "emt", or any other labeller.
    relax
        Relax cell and positions by the labeller first (it needs a stress).
    supercell_atoms
        Atoms in the supercells that are labelled, about; at least two primitive cells.
    max_error
        THz: largest error bar of any band.
    machine
        "local", "threads" or "slurm".
    max_labels, max_minutes
        Budgets.
    seed
        Of everything random.
    """
    cell = unit_cell(crystal)
    if relax:
        cell = relax_crystal(LabellerPotential(labeller_from_name(labeller, {})), cell).atoms
    name = cell.get_chemical_formula(empirical=True)
    return Campaign.build(
        name=f"phonons_{name}",
        structures=[phonon_channel(name, cell, num_atoms=supercell_atoms, seed=seed)],
        samplers=[{"name": "strained", "walkers": 4, "options": {"frames": 8, **AMPLITUDES}}],
        target={"name": "phonon_bands", "options": {"relax": False}},
        labeller=LabellerChoice(name=labeller),
        machine=machine_from_name(machine),
        model=ModelChoice(first_epochs=100, epochs=50, seconds=80.0),
        exploration=Exploration(num_rattled=1, rattle=0.03),
        acquisition=ACQUISITION,
        stopping=Stopping(
            max_labels=max_labels,
            max_seconds=60 * max_minutes,
            tolerance=0.05,
            max_error=max_error,
        ),
        seed=seed,
    )


def phonon_channel(name: str, cell: Atoms, *, num_atoms: int, seed: int) -> dict[str, Any]:
    """Return a channel of a crystal's supercells with their first strained and rattled copies."""
    primitive = primitive_cell(cell)
    size = max(2, round(num_atoms / len(primitive)))
    starts = supercell_shapes(primitive, size, number=SHAPES, seed=seed)
    seeds = [
        copy
        for index, start in enumerate(starts)
        for copy in strained_copies(
            start, NUM_SEEDS // len(starts), **AMPLITUDES, seed=seed + index
        )
    ]
    return {
        "name": name,
        "starts": [Structure.from_atoms(start) for start in starts],
        "seeds": [Structure.from_atoms(atoms) for atoms in seeds],
        "relax": False,
    }


def unit_cell(crystal: str) -> Atoms:
    """Return the conventional cell of an element at ASE's lattice constant, or a file's structure.

    Raises
    ------
    ConfigError
        It is neither.
    """
    if Path(crystal).suffix:
        return read_structures(crystal, -1)[0]
    try:
        return bulk(crystal, cubic=True)
    except (KeyError, ValueError, RuntimeError, NotImplementedError) as error:
        raise ConfigError(
            f"ASE knows no cubic crystal of '{crystal}'; give an element such as Cu, or the file "
            "of a unit cell"
        ) from error
