"""Phonons of a crystal: from a few labels to bands whose error bar is small everywhere.

    tace-al run workflows/phonons.py                                   copper, effective medium
    tace-al run workflows/phonons.py --set crystal=Al --set max_error=0.1
    tace-al run workflows/phonons.py --set crystal=si.xyz --set labeller=gpaw --set relax=false
    tace-al phonons copper.xyz runs/phonons_Cu --out bands             with what has been learnt

The cell is the labeller's own minimum. Strained and rattled supercells that the committee is unsure
of are labelled; each generation every member gives its force constants by its analytic Hessian. The
campaign ends when the highest frequency and the bands are steady and the error bar of the worst
band at its worst q-point is below `max_error` THz.
"""

from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk

from tace_al.analysis.crystal_relaxation import relax_crystal
from tace_al.analysis.supercells import heights
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


def campaign(
    *,
    crystal: str = "Cu",
    labeller: str = "emt",
    relax: bool = True,
    min_height: float = 7.0,
    max_error: float = 0.25,
    machine: str = "local",
    max_labels: int = 150,
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
    min_height
        Angstrom between opposite faces of the supercells that are labelled.
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
        structures=[phonon_channel(name, cell, min_height=min_height, seed=seed)],
        samplers=[{"name": "strained", "walkers": 4, "options": {"frames": 8, **AMPLITUDES}}],
        target={"name": "phonon_bands", "options": {"relax": False}},
        labeller=LabellerChoice(name=labeller),
        machine=machine_from_name(machine),
        model=ModelChoice(first_epochs=120, epochs=60, seconds=60.0),
        exploration=Exploration(num_rattled=8, rattle=0.03),
        acquisition=Acquisition(low=0.01, high=2.0, per_generation=16, audit_share=0.1),
        stopping=Stopping(
            max_labels=max_labels,
            max_seconds=60 * max_minutes,
            tolerance=0.05,
            max_error=max_error,
        ),
        seed=seed,
    )


def phonon_channel(name: str, cell: Atoms, *, min_height: float, seed: int) -> dict[str, Any]:
    """Return a channel of a crystal's supercell with its first strained and rattled copies."""
    repeats = [int(np.ceil(min_height / height - 1e-6)) for height in heights(cell)]
    start = cell.repeat(repeats)
    seeds = strained_copies(start, 16, **AMPLITUDES, seed=seed)
    return {
        "name": name,
        "starts": [Structure.from_atoms(start)],
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
