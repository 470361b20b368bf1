"""Proton sharing by quantum nuclei: a campaign whose sampler is path-integral dynamics in i-PI.

    tace-al run workflows/path_integral.py                                 H5O2+, GFN2-xTB
    tace-al run workflows/path_integral.py --set molecule=malonaldehyde

The proton between the two waters of the Zundel ion, or the two oxygens of malonaldehyde: its
density along r(O1-H) - r(H-O2) at 300 K with classical nuclei and with 16 beads, each with the
committee's band. Ring polymers explore, uncertain beads are labelled, and the campaign ends when
both widths are steady within their error bars. The report holds the figure.
"""

from collections.abc import Mapping

import numpy as np
from ase import Atoms

from tace_al.campaign.config import (
    Acquisition,
    Campaign,
    Exploration,
    LabellerChoice,
    Stopping,
    Structure,
)
from tace_al.campaign.sampling import Channel, SamplerChoice, TargetChoice
from tace_al.core.errors import ConfigError, nearest_names
from tace_al.data.frames import CHARGE, MULTIPLICITY
from tace_al.dispatch.machine import machine_from_name
from tace_al.workflows import reactions

MOLECULES = ("zundel", "malonaldehyde")


def campaign(
    *,
    molecule: str = "zundel",
    labeller: str = "gfn2",
    beads: int = 16,
    temperature: float = 300.0,
    production_steps: int = 3000,
    machine: str = "local",
    max_labels: int = 400,
    max_minutes: float = 18.0,
    seed: int = 0,
) -> Campaign:
    """Return the campaign.

    Parameters
    ----------
    molecule
        "zundel" (H5O2+) or "malonaldehyde".
    labeller
        "gfn2", "gfn1" or "module:Class" of an ASE calculator.
    beads, temperature
        Of the ring polymers, in K.
    production_steps
        Steps of 0.5 fs of the quantum run that each generation's densities come from.
    machine
        "local", "threads" or "slurm".
    max_labels, max_minutes
        Budgets.
    seed
        Of everything random.
    """
    atoms, coordinate = proton_sharer(molecule)
    quantum = {"beads": beads, "temperature": temperature}
    return Campaign.build(
        name=f"path_integral_{molecule}",
        kind="sampling",
        structures=(Channel(name=molecule, starts=(Structure.from_atoms(atoms),)),),
        samplers=explorers(quantum, temperature=temperature),
        target=TargetChoice(
            name="proton_sharing",
            options={**quantum, "coordinate": coordinate, "steps": production_steps},
        ),
        labeller=LabellerChoice(name=labeller),
        machine=machine_from_name(machine),
        exploration=Exploration(num_rattled=min(40, max_labels // 3), rattle=0.1),
        acquisition=Acquisition(per_generation=50),
        stopping=Stopping(
            max_labels=max_labels,
            max_seconds=60 * max_minutes,
            tolerance=0.015,
            max_error=0.03,
        ),
        seed=seed,
    )


def explorers(
    quantum: Mapping[str, float], *, temperature: float
) -> tuple[SamplerChoice, SamplerChoice]:
    """Return ring polymers, and classical walkers that climb to see what lies further out."""
    hot = (temperature, 1.33 * temperature, 1.67 * temperature)
    return (
        SamplerChoice(name="pimd", walkers=2, options={**quantum, "steps": 300}),
        SamplerChoice(
            name="langevin", walkers=2, options={"steps": 1500}, ladder={"temperature": hot}
        ),
    )


def proton_sharer(molecule: str) -> tuple[Atoms, tuple[int, int, int]]:
    """Return a molecule, and its atoms donor, proton and acceptor."""
    if molecule == "zundel":
        return zundel_ion(), (0, 2, 1)
    if molecule == "malonaldehyde":
        atoms, _ = reactions.malonaldehyde()
        return atoms, shared_proton(atoms)
    raise ConfigError(f"unknown molecule '{molecule}'.{nearest_names(molecule, MOLECULES)}")


def zundel_ion() -> Atoms:
    """Return H5O2+ near its minimum: two waters turned by 90 degrees, a proton in the middle."""
    water = np.array([[-1.20, 0.0, 0.0], [-1.66, 0.79, 0.33], [-1.66, -0.79, 0.33]])
    other = water[:, [0, 2, 1]] * np.array([-1.0, 1.0, 1.0])
    positions = [water[0], other[0], np.zeros(3), water[1], water[2], other[1], other[2]]
    atoms = Atoms("OOH5", positions=positions)
    atoms.info[CHARGE], atoms.info[MULTIPLICITY] = 1, 1
    return atoms


def shared_proton(atoms: Atoms) -> tuple[int, int, int]:
    """Return the oxygens and the hydrogen between them: donor, proton, acceptor."""
    oxygens = [atom.index for atom in atoms if atom.symbol == "O"]
    hydrogens = [atom.index for atom in atoms if atom.symbol == "H"]
    distances = atoms.get_all_distances()
    proton = min(hydrogens, key=lambda index: np.sort(distances[index, oxygens])[:2].sum())
    donor, acceptor = sorted(oxygens, key=lambda index: distances[proton, index])[:2]
    return donor, proton, acceptor
