"""A beam of metal atoms on a metal surface: from first label to sticking probability.

    tace-al run workflows/nonequilibrium.py
    tace-al run workflows/nonequilibrium.py --set metal=Au --set energy_ev=2 --set angle=0

Labels are ASE's effective-medium theory unless another labeller is named. Walkers shoot atoms at
the surface and bring home what the committee does not know; once a generation every member shoots
its own atoms, and the campaign ends when their sticking probability is steady and precise.
"""

from collections.abc import Mapping
from typing import Any

from ase import Atoms
from ase.build import fcc100, fcc111
from ase.constraints import FixAtoms

from tace_al.campaign.config import (
    Acquisition,
    Campaign,
    Exploration,
    LabellerChoice,
    ModelChoice,
    Stopping,
    Structure,
)
from tace_al.core.errors import ConfigError, nearest_names
from tace_al.data.frames import bare_copy
from tace_al.dispatch.machine import machine_from_name
from tace_al.engines.sampling.beam import beam_seeds

FACES = {"111": fcc111, "100": fcc100}
METALS = ("Ag", "Al", "Au", "Cu", "Ni", "Pd", "Pt")
"""What effective-medium theory knows."""


def campaign(
    *,
    metal: str = "Pt",
    face: str = "111",
    projectile: str = "",
    energy_ev: float = 5.0,
    angle: float = 45.0,
    temperature: float = 300.0,
    labeller: str = "emt",
    trajectories: int = 30,
    machine: str = "local",
    max_labels: int = 260,
    max_minutes: float = 14.0,
    seed: int = 0,
) -> Campaign:
    """Return the campaign.

    Parameters
    ----------
    metal, face
        Of the surface: a metal that effective-medium theory knows, and "111" or "100".
    projectile
        What is shot; an atom of the metal by default.
    energy_ev, angle
        Kinetic energy in eV, and incidence from the normal in degrees.
    temperature
        Of the surface in K.
    labeller
        "emt", or any other labeller.
    trajectories
        Shot by all members together in each generation.
    machine
        "local", "threads" or "slurm".
    max_labels, max_minutes
        Budgets.
    seed
        Of everything random.
    """
    beam: dict[str, str | float] = {
        "projectile": projectile or metal,
        "energy_ev": energy_ev,
        "angle": angle,
        "temperature": temperature,
        "timestep_fs": 4.0,
        "stick_fs": 500.0,
    }
    return Campaign.build(
        **exploration_of(clean_surface(metal, face), beam, trajectories=trajectories, seed=seed),
        name="nonequilibrium",
        labeller=LabellerChoice(name=labeller),
        machine=machine_from_name(machine),
        stopping=Stopping(
            max_labels=max_labels,
            max_seconds=60 * max_minutes,
            tolerance=0.05,
            max_error=0.06,
        ),
        seed=seed,
    )


def exploration_of(
    surface: Atoms, beam: Mapping[str, str | float], *, trajectories: int, seed: int
) -> dict[str, Any]:
    """Return channel, sampler, target and settings of a committee for a beam on a surface."""
    shot = str(beam["projectile"])
    seeds = beam_seeds(surface, shot, number=30, seed=seed)
    channel = {
        "name": f"{shot}_on_{surface.get_chemical_symbols()[0]}",
        "starts": [Structure.from_atoms(surface)],
        "seeds": [Structure.from_atoms(atoms) for atoms in seeds],
    }
    shooting = {**beam, "number": 4, "record_every": 40, "equilibration": 100}
    return {
        "structures": [channel],
        "samplers": [{"name": "beam", "walkers": 2, "options": shooting}],
        "target": {"name": "sticking", "options": {**beam, "number": trajectories}},
        "model": ModelChoice(
            options={"channels": 16, "cutoff": 5.0},
            members=3,
            first_epochs=120,
            epochs=40,
            seconds=60.0,
        ),
        "exploration": Exploration(num_rattled=12, relax_steps=20),
        "acquisition": Acquisition(low=0.3, high=8.0, per_generation=40, audit_share=0.2),
    }


def clean_surface(metal: str, face: str) -> Atoms:
    """Return three layers of 3 x 3 atoms with the lowest one held.

    Raises
    ------
    ConfigError
        The metal or the face is unknown.
    """
    if face not in FACES:
        raise ConfigError(f"there is no face '{face}' here.{nearest_names(face, FACES)}")
    if metal not in METALS:
        raise ConfigError(
            f"'{metal}' is no metal of effective-medium theory.{nearest_names(metal, METALS)}"
        )
    built = FACES[face](metal, (3, 3, 3), vacuum=8.0, periodic=True)
    surface = bare_copy(built)
    surface.set_constraint(FixAtoms(indices=[atom.index for atom in built if atom.tag == 3]))
    return surface
