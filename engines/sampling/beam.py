"""Hyperthermal beams: atoms or small molecules shot at a surface, and what became of each.

The slab is periodic in x and y, its surface points along +z. Its lowest layer is held, the next
ones feel a Langevin bath, the upper ones and the projectile follow Newton's equations. The slab is
brought to its temperature first; each trajectory begins with another of its snapshots, an impact
point uniform over the cell, a random azimuth and (of a molecule) orientation.

Verdicts, once nothing more can change or time is up:

    reflected    every atom of the projectile is above the surface by `clearance`, moving away
    penetrated   an atom of the projectile is below the lowest layer
    sputtered    an atom of the slab is above the surface by `clearance`, moving away
    stuck        an atom of the projectile is still there `stick_fs` after the first contact
    undecided    none of these when the steps ran out
    broken       the potential failed, or the committee knew nothing of it

The sticking probability is the share of stuck and penetrated among all that are decided.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.constraints import FixAtoms
from ase.data import atomic_masses, atomic_numbers, covalent_radii

from tace_al.core.errors import ConfigError, StructureError, nearest_names
from tace_al.core.proportions import wilson_error, wilson_interval
from tace_al.data.frames import bare_copy, fixed_mask

Verdict = Literal["reflected", "penetrated", "sputtered", "stuck", "undecided", "broken"]
LAYER = 0.8
"""Angstrom in z within which atoms belong to one layer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BeamSettings:
    """A beam.

    Parameters
    ----------
    projectile
        Chemical symbol, or a molecule that ASE knows by name.
    energy_ev
        Kinetic energy of its centre of mass in eV.
    angle, azimuth
        Incidence from the surface normal, and direction in the plane, in degrees; a random azimuth
        each time without one.
    temperature
        Of the slab in K.
    height
        Of the projectile's lowest atom above the surface at the start, in A.
    clearance
        Above the surface, in A, from where nothing comes back.
    stick_fs
        After so long in contact it counts as stuck.
    steps, timestep_fs
        Length of a trajectory at most, and time step.
    friction
        Of the bath of the lower layers, in 1/fs.
    equilibration
        Steps that bring the slab to its temperature.
    """

    projectile: str
    energy_ev: float
    angle: float = 0.0
    azimuth: float | None = None
    temperature: float = 300.0
    height: float = 5.0
    clearance: float = 7.0
    stick_fs: float = 1000.0
    steps: int = 2000
    timestep_fs: float = 2.0
    friction: float = 0.01
    equilibration: int = 300

    def __post_init__(self) -> None:
        """Refuse what is no beam."""
        projectile_atoms(self.projectile)
        for name in ("energy_ev", "temperature", "height", "stick_fs", "timestep_fs", "friction"):
            if not getattr(self, name) > 0.0:
                raise ConfigError(f"`{name}` is {getattr(self, name)}; give a positive number")
        if not 0.0 <= self.angle < 85.0:
            raise ConfigError(
                f"`angle` is {self.angle} degrees from the normal; give 0 or more, below 85"
            )
        if not self.clearance > self.height:
            raise ConfigError(
                f"`clearance` is {self.clearance} A, not above the start at {self.height} A; "
                "a projectile would count as reflected before it came"
            )
        if self.steps < 1 or self.equilibration < 0:
            raise ConfigError("`steps` must be 1 or more and `equilibration` 0 or more")


def projectile_atoms(name: str) -> Atoms:
    """Return an atom by its symbol or a molecule by ASE's name for it.

    Raises
    ------
    ConfigError
        There is neither.
    """
    if name in atomic_numbers and name != "X":
        return Atoms(name)
    try:
        return bare_copy(molecule(name))
    except KeyError as error:
        from ase.collections import g2

        raise ConfigError(
            f"no atom or molecule is called '{name}'.{nearest_names(name, g2.names)}"
        ) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Slab:
    """A surface ready for a beam.

    Parameters
    ----------
    atoms
        With its lowest layer held, where nothing was.
    top, bottom
        Heights of its highest and lowest atom in A.
    bathed
        (atoms,) booleans: the layers between those held and the upper half.
    """

    atoms: Atoms
    top: float
    bottom: float
    bathed: np.ndarray


def prepare_slab(surface: Atoms, *, clearance: float) -> Slab:
    """Return a surface with its layers told apart.

    Raises
    ------
    StructureError
        It is not periodic in x and y, its cell leans, or there is no room above it.
    """
    atoms = bare_copy(surface)
    atoms.set_momenta(surface.get_momenta(), apply_constraint=False)
    cell = atoms.cell.array
    if not (atoms.pbc[0] and atoms.pbc[1]) or np.abs(cell[:2, 2]).max() > 1e-6:
        raise StructureError(
            "a beam needs a slab that is periodic in x and y with its normal along z; make one "
            "with ase.build.surface"
        )
    heights = atoms.positions[:, 2]
    top, bottom = float(heights.max()), float(heights.min())
    if atoms.pbc[2]:
        room = float(cell[2, 2]) - (top - bottom)
        if room < clearance + 4.0:
            raise StructureError(
                f"there are {room:.1f} A of vacuum, fewer than {clearance + 4.0:.1f}: the beam "
                "would meet the slab's own image; make the cell longer, or open it along z"
            )
    held = fixed_mask(atoms)
    if not held.any():
        held = heights < bottom + LAYER
        atoms.set_constraint(FixAtoms(indices=np.flatnonzero(held)))
    if held.all():
        raise StructureError("every atom of the surface is held; free the upper layers")
    lowest, highest = heights[~held].min(), heights[~held].max()
    middle = max(0.5 * (lowest + highest), lowest + 0.5 * LAYER)
    return Slab(atoms=atoms, top=top, bottom=bottom, bathed=~held & (heights < middle))


def launched(slab: Slab, surface: Atoms, settings: BeamSettings, rng: np.random.Generator) -> Atoms:
    """Return a slab's snapshot with the projectile on its way; its atoms are the last ones.

    Parameters
    ----------
    surface
        Snapshot with momenta.
    """
    shot = projectile_atoms(settings.projectile)
    if len(shot) > 1:
        turn = _random_rotation(rng)
        shot.positions = (shot.positions - shot.get_center_of_mass()) @ turn.T
    azimuth = settings.azimuth if settings.azimuth is not None else 360.0 * rng.random()
    polar, turned = np.radians(settings.angle), np.radians(azimuth)
    direction = np.array(
        [np.sin(polar) * np.cos(turned), np.sin(polar) * np.sin(turned), -np.cos(polar)]
    )
    mass = atomic_masses[shot.numbers].sum()
    speed = np.sqrt(2.0 * settings.energy_ev / mass)
    aim = rng.random(2) @ slab.atoms.cell.array[:2]
    aim[2] = slab.top
    lift = settings.height - shot.positions[:, 2].min()
    shot.positions += aim - direction * lift / np.cos(polar)
    shot.set_momenta(atomic_masses[shot.numbers][:, None] * speed * direction)
    together = bare_copy(surface)
    momenta = np.vstack([surface.get_momenta(), shot.get_momenta()])
    together.extend(shot)
    together.set_masses(atomic_masses[together.numbers])
    together.set_momenta(momenta, apply_constraint=False)
    together.info.pop("spin_multiplicity", None)
    return together


def beam_seeds(surface: Atoms, projectile: str, *, number: int, seed: int) -> list[Atoms]:
    """Return copies of a surface with the projectile near it, for a first training set.

    Nearest distances run evenly from 0.8 to 1.7 times the sum of covalent radii: the wall that a
    fast projectile climbs, the well, and where the force begins.
    """
    rng = np.random.default_rng(seed)
    slab = prepare_slab(surface, clearance=1.0)
    seeds = []
    for wanted in np.linspace(0.8, 1.7, number):
        shot = projectile_atoms(projectile)
        shot.positions = (shot.positions - shot.get_center_of_mass()) @ _random_rotation(rng).T
        aim = rng.random(2) @ slab.atoms.cell.array[:2]
        for height in np.arange(8.0, -2.0, -0.05):
            together = bare_copy(slab.atoms)
            placed = shot.copy()
            placed.positions += [aim[0], aim[1], slab.top + height - shot.positions[:, 2].min()]
            together.extend(placed)
            if _nearest(together, len(shot)) <= wanted:
                break
        together.positions[~fixed_mask(together)] += rng.normal(
            scale=0.05, size=(int((~fixed_mask(together)).sum()), 3)
        )
        together.info.pop("spin_multiplicity", None)
        seeds.append(together)
    return seeds


@dataclass(frozen=True, kw_only=True, slots=True)
class Impact:
    """What became of one projectile.

    Parameters
    ----------
    verdict, reason
        See the module; and one clause on why the trajectory ended.
    time_fs
        Its length.
    energy_ev
        Kinetic energy of the projectile's centre of mass at the end, in eV.
    conserved_drift_ev
        Change of the conserved energy, its bath included, in eV.
    max_uncertainty
        Largest force error bar in eV/A.
    final
        The last frame.
    frames
        Frames kept on the way.
    """

    verdict: Verdict
    reason: str
    time_fs: float
    energy_ev: float
    conserved_drift_ev: float
    max_uncertainty: float
    final: Atoms
    frames: tuple[Atoms, ...] = ()


def sticking(impacts: Sequence[Impact]) -> dict[str, Any]:
    """Return the sticking probability with Wilson's error bar, and the verdicts' counts."""
    counts = Counter(impact.verdict for impact in impacts)
    decided = sum(counts.values()) - counts["undecided"] - counts["broken"]
    found: dict[str, Any] = {"num_trajectories": len(impacts), "verdicts": dict(counts)}
    if not decided:
        return found
    stuck = counts["stuck"] + counts["penetrated"]
    low, high = wilson_interval(stuck, decided, z=1.96)
    return found | {
        "num_decided": decided,
        "num_stuck": stuck,
        "sticking_probability": stuck / decided,
        "sticking_probability_error": wilson_error(stuck, decided),
        "sticking_probability_95": [low, high],
    }


def centre_energy(atoms: Atoms, number: int) -> float:
    """Return the kinetic energy of the centre of mass of the last `number` atoms in eV."""
    momentum = atoms.get_momenta()[-number:].sum(axis=0)
    return float(0.5 * (momentum**2).sum() / atoms.get_masses()[-number:].sum())


def flight_time(settings: BeamSettings) -> float:
    """Return the time in fs from the start to the surface without forces."""
    mass = atomic_masses[projectile_atoms(settings.projectile).numbers].sum()
    speed = np.sqrt(2.0 * settings.energy_ev / mass) * np.cos(np.radians(settings.angle))
    return float(settings.height / speed / units.fs)


def _nearest(atoms: Atoms, number: int) -> float:
    """Return the least distance of the last `number` atoms from the others, over radii sums."""
    slab = len(atoms) - number
    least = np.inf
    for index in range(slab, len(atoms)):
        distances = atoms.get_distances(index, range(slab), mic=True)
        sums = covalent_radii[atoms.numbers[index]] + covalent_radii[atoms.numbers[:slab]]
        least = min(least, float((distances / sums).min()))
    return least


def _random_rotation(rng: np.random.Generator) -> np.ndarray:
    """Return a (3, 3) rotation, uniform over all (QR of a normal matrix)."""
    turn, upper = np.linalg.qr(rng.standard_normal((3, 3)))
    turn = turn * np.sign(np.diag(upper))
    return turn * np.linalg.det(turn)
