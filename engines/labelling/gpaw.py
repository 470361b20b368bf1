"""Density-functional theory with GPAW: projector-augmented waves for slabs, crystals and molecules.

Mortensen et al., 10.1063/5.0182685. Wave functions are plane waves ("pw") or atomic orbitals
("lcao"). The energy is the electronic free energy E - TS at the smearing width (ASE's
`force_consistent=True`), whose exact gradient the forces are; the usual extrapolation to zero width
is not the potential that forces belong to.

Grid: potential and density live on `spacing`. GPAW's own choice for plane waves saves time and
leaves forces on oxygen that wave by 0.3-0.8 eV/A as an atom crosses it; at 0.22 A that is
0.01 eV/A for a cutoff of 250 eV, at 0.16 A below 0.001 (docs/guides/dft_labels.md).

Conventions: periodic directions are the structure's. A lattice vector along a direction without
periodicity must leave `vacuum`; where there is none, the box gets `box` Angstrom. Atoms are moved
to its middle, which changes no number that is reported. A molecule with unpaired electrons keeps
its multiplicity; a periodic structure has none (one above the lowest is refused): its spins are
paired, or with `spin_polarised` its moment is free.
"""

import io
import time
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np
from ase import Atoms

from tace_al.core.errors import LabelFailed, LabellerMissing
from tace_al.core.labels import Fidelity, Label, Setting
from tace_al.data.frames import spin_multiplicity, structure_key, total_charge
from tace_al.engines.labelling.grids import grid_points, kpoint_grid, parsed_grid
from tace_al.engines.labelling.labeller import Labeller

if TYPE_CHECKING:
    from gpaw.new.ase_interface import ASECalculator

Mode = Literal["pw", "lcao"]

_POSITIVE = (
    "cutoff",
    "kpoint_density",
    "spacing",
    "smearing",
    "box",
    "vacuum",
    "energy_tolerance",
    "density_tolerance",
    "eigenstates_tolerance",
    "max_iterations",
    "mixing",
)
_LOG_LINES = 40


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class GPAWLabeller(Labeller):
    """GPAW on one core.

    Parameters
    ----------
    mode
        "pw" or "lcao".
    cutoff
        Plane-wave cutoff in eV ("pw").
    basis
        Name of the atomic orbitals ("lcao").
    xc
        Exchange-correlation functional by GPAW's name.
    kpoints
        Grid such as "2x2x1"; "" takes it from `kpoint_density`. Other than along periodic
        directions there is always one point.
    kpoint_density
        Points per 1/A of reciprocal lattice vector.
    spacing
        Largest distance in A between points of the grid of density and potential.
    smearing
        Width of the Fermi function in eV.
    spin_polarised
        Treat spins apart also where no multiplicity asks for it.
    initial_moment
        Magnetic moment of every atom a spin-polarised periodic structure starts from, in Bohr
        magnetons.
    dipole_correction
        Decouple the two faces of a slab (periodic in two directions, orthogonal third).
    symmetry
        Use the structure's point group. It saves k-points on symmetric structures, which frames of
        dynamics are not, and jumps a little when a frame passes through symmetry.
    bands
        Number of bands, such as "120%" of the occupied ones; "" is GPAW's choice.
    box
        Edge in A along directions that have no lattice vector.
    vacuum
        Least distance in A between periodic images along a direction without periodicity.
    energy_tolerance, density_tolerance, eigenstates_tolerance
        Thresholds of self-consistency: eV and electrons per valence electron, eV^2 per electron.
    max_iterations, mixing, mixing_history, mixing_weight, inner_iterations
        The way to self-consistency, which leaves the result alone: limit of iterations, share of
        the new density, densities remembered, damping of long waves, Davidson steps an iteration.
    name
        Name of the fidelity, and of the model's head. Two functionals in one campaign need two.
    """

    mode: Mode = "pw"
    cutoff: float = 400.0
    basis: str = "dzp"
    xc: str = "PBE"
    kpoints: str = ""
    kpoint_density: float = 3.5
    spacing: float = 0.18
    smearing: float = 0.1
    spin_polarised: bool = False
    initial_moment: float = 0.0
    dipole_correction: bool = False
    symmetry: bool = False
    bands: str = ""
    box: float = 10.0
    vacuum: float = 5.0
    energy_tolerance: float = 5e-4
    density_tolerance: float = 1e-4
    eigenstates_tolerance: float = 4e-8
    max_iterations: int = 100
    mixing: float = 0.05
    mixing_history: int = 5
    mixing_weight: float = 50.0
    inner_iterations: int = 2
    name: str = "gpaw"

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if self.mode not in ("pw", "lcao"):
            raise ValueError(f"`mode` is '{self.mode}', expected 'pw' or 'lcao'")
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` is {getattr(self, name)}, expected a positive number")
        for name in ("mixing_history", "inner_iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}, expected 1 or more")
        if self.kpoints:
            parsed_grid(self.kpoints)

    @property
    def fidelity(self) -> Fidelity:
        """Everything but the way to self-consistency, and the versions of code and setups.

        Raises
        ------
        LabellerMissing
            GPAW is not installed.
        """
        waves: dict[str, Setting] = (
            {"cutoff": float(self.cutoff)} if self.mode == "pw" else {"basis": self.basis}
        )
        points: dict[str, Setting] = (
            {"kpoints": "x".join(map(str, parsed_grid(self.kpoints)))}
            if self.kpoints
            else {"kpoint_density": float(self.kpoint_density)}
        )
        return Fidelity(
            name=self.name,
            code=f"gpaw {_version('gpaw')}, setups {_version('gpaw-data')}",
            settings={
                "mode": self.mode,
                "xc": self.xc,
                **waves,
                **points,
                "energy": "free energy at the smearing",
                "spacing": float(self.spacing),
                "smearing": float(self.smearing),
                "spin_polarised": self.spin_polarised,
                "initial_moment": float(self.initial_moment),
                "dipole_correction": self.dipole_correction,
                "symmetry": self.symmetry,
                "bands": self.bands,
                "box": float(self.box),
                "energy_tolerance": float(self.energy_tolerance),
                "density_tolerance": float(self.density_tolerance),
                "eigenstates_tolerance": float(self.eigenstates_tolerance),
            },
        )

    def retries(self, kind: str) -> tuple["GPAWLabeller", ...]:
        """Return gentler ways to the same self-consistent density; none but for "convergence"."""
        if kind != "convergence":
            return ()
        gentle = replace(
            self,
            mixing=self.mixing / 2.5,
            mixing_history=2 * self.mixing_history,
            mixing_weight=2 * self.mixing_weight,
            max_iterations=3 * self.max_iterations,
        )
        # a short memory forgets a bad start; more inner steps keep the orbitals at hand
        patient = replace(
            self,
            mixing=self.mixing / 5,
            mixing_history=3,
            mixing_weight=2 * self.mixing_weight,
            max_iterations=6 * self.max_iterations,
            inner_iterations=2 * self.inner_iterations,
        )
        return gentle, patient

    def label(self, atoms: Atoms) -> Label:
        """Return energy and forces; stress of a crystal in plane waves; dipole of a molecule.

        Raises
        ------
        LabelFailed
            "convergence", "cell" without enough vacuum, "charge" or spin in a periodic structure,
            "elements" without a setup, "contact", or "crash"; GPAW's last lines are its note.
        LabellerMissing
            GPAW is not installed.
        """
        start = time.perf_counter()
        fidelity_key = self.fidelity.key
        log = io.StringIO()
        try:
            probe = self._placed(atoms)
            probe.calc = self._calculator(probe, atoms, log)
            energy = float(probe.get_potential_energy(force_consistent=True))
            forces = np.asarray(probe.get_forces(apply_constraint=False), dtype=float)
            stress = dipole = None
            if atoms.pbc.all() and self.mode == "pw":
                stress = np.asarray(probe.get_stress(voigt=False))
            if not atoms.pbc.any() and total_charge(atoms) == 0:
                dipole = np.asarray(probe.get_dipole_moment(), dtype=float)
        except LabelFailed:
            raise
        except ImportError as error:
            raise LabellerMissing(
                f"the labeller gpaw cannot be loaded ({error}); install it with: make gpaw"
            ) from error
        # the border to a foreign code, which raises what it likes
        except Exception as error:
            failed = _explained(error, atoms)
            failed.add_note("\n".join(log.getvalue().splitlines()[-_LOG_LINES:]))
            raise failed from error
        return Label(
            structure_key=structure_key(atoms),
            fidelity_key=fidelity_key,
            energy=energy,
            forces=forces,
            stress=stress,
            dipole=dipole,
            seconds=time.perf_counter() - start,
        )

    def _placed(self, atoms: Atoms) -> Atoms:
        """Return the bare structure in the middle of a box with three lattice vectors."""
        periodic = bool(atoms.pbc.any())
        charge = total_charge(atoms)
        if charge and (periodic or self.mode == "pw"):
            raise LabelFailed(
                "charge",
                f"the structure has charge {charge:+d} and the energy of a charged periodic cell "
                "depends on the size of the cell; use mode=lcao with a molecule without "
                "periodicity, or another labeller",
            )
        lowest = 1 + int(atoms.numbers.sum()) % 2
        if periodic and spin_multiplicity(atoms) != lowest:
            raise LabelFailed(
                "charge",
                f"the structure is periodic and has multiplicity {spin_multiplicity(atoms)}, which "
                "GPAW's metallic occupations do not hold; leave the multiplicity out and give the "
                "options spin_polarised=true and initial_moment instead",
            )
        placed = Atoms(
            numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc
        )
        cell = atoms.cell.array.copy()
        lengths = np.linalg.norm(cell, axis=1)
        for axis in np.flatnonzero(lengths < 1e-3):
            cell[axis] = 0.0
        missing = np.linalg.norm(cell, axis=1) < 1e-3
        cell[missing] = placed.cell.complete().array[missing] * self.box
        placed.set_cell(cell)
        for axis in np.flatnonzero(~atoms.pbc):
            self._require_vacuum(placed, int(axis))
            placed.center(axis=int(axis))
        return placed

    def _require_vacuum(self, placed: Atoms, axis: int) -> None:
        """Refuse a structure whose images along a direction without periodicity come too close."""
        others = np.delete(placed.cell.array, axis, axis=0)
        normal = np.cross(*others)
        heights = placed.positions @ normal / np.linalg.norm(normal)
        room = abs(float(placed.cell.array[axis] @ normal / np.linalg.norm(normal)))
        gap = room - float(np.ptp(heights))
        if gap >= self.vacuum:
            return
        raise LabelFailed(
            "cell",
            f"the structure leaves {max(gap, 0.0):.1f} A of vacuum along lattice vector "
            f"{axis + 1}, which is not periodic, and needs {self.vacuum:.1f}; lengthen that vector "
            "(or the option box where there is none), or set pbc to true along it",
        )

    def _calculator(self, placed: Atoms, atoms: Atoms, log: io.StringIO) -> "ASECalculator":
        """Return GPAW's calculator of one structure, its text going to `log`."""
        from gpaw import GPAW

        settings: dict[str, Any] = {
            "mode": {"name": "pw", "ecut": self.cutoff} if self.mode == "pw" else "lcao",
            "xc": self.xc,
            "kpts": {"size": self._kpoints(placed), "gamma": False},
            "gpts": grid_points(placed.cell.array, self.spacing),
            "convergence": {
                "energy": self.energy_tolerance,
                "density": self.density_tolerance,
                "eigenstates": self.eigenstates_tolerance,
            },
            "mixer": {
                "beta": self.mixing,
                "nmaxold": self.mixing_history,
                "weight": self.mixing_weight,
            },
            "maxiter": self.max_iterations,
            "symmetry": {"point_group": self.symmetry},
            "charge": float(total_charge(atoms)),
            "txt": log,
            **self._spins(placed, atoms),
        }
        if self.bands:
            settings["nbands"] = self.bands
        if self.mode == "lcao":
            settings["basis"] = self.basis
        else:
            settings["eigensolver"] = {"name": "davidson", "niter": self.inner_iterations}
        if self.dipole_correction and atoms.pbc.sum() == 2:
            plane = "".join("xyz"[axis] for axis in np.flatnonzero(atoms.pbc))
            settings["poissonsolver"] = {"dipolelayer": plane}
        calculator: ASECalculator = GPAW(**settings)
        return calculator

    def _kpoints(self, placed: Atoms) -> tuple[int, int, int]:
        """Return the grid of k-points, one along directions without periodicity."""
        if self.kpoints:
            asked = parsed_grid(self.kpoints)
            sizes = [n if periodic else 1 for n, periodic in zip(asked, placed.pbc, strict=True)]
            return sizes[0], sizes[1], sizes[2]
        return kpoint_grid(placed.cell.array, placed.pbc, self.kpoint_density)

    def _spins(self, placed: Atoms, atoms: Atoms) -> dict[str, Any]:
        """Return GPAW's settings of spins and occupations; put initial moments on `placed`."""
        occupations: dict[str, Any] = {"name": "fermi-dirac", "width": self.smearing}
        if atoms.pbc.any():
            if self.spin_polarised:
                placed.set_initial_magnetic_moments(np.full(len(atoms), self.initial_moment))
            return {"spinpol": self.spin_polarised, "occupations": occupations}
        num_unpaired = spin_multiplicity(atoms) - 1
        if num_unpaired:
            occupations["fixmagmom"] = True
            placed.set_initial_magnetic_moments(np.full(len(atoms), num_unpaired / len(atoms)))
        return {
            "spinpol": bool(num_unpaired) or self.spin_polarised,
            "occupations": occupations,
        }


def _explained(error: Exception, atoms: Atoms) -> LabelFailed:
    """Return GPAW's exception as a failed label with a kind."""
    from gpaw import ConvergenceError
    from gpaw.utilities import AtomsTooClose

    formula = atoms.get_chemical_formula()
    said = str(error).strip().partition("\n")[0] or type(error).__name__
    if isinstance(error, ConvergenceError):
        return LabelFailed(
            "convergence",
            f"the density of {formula} did not become self-consistent; check the geometry and the "
            "multiplicity, or raise smearing (a different level of theory)",
        )
    if isinstance(error, AtomsTooClose):
        return LabelFailed("contact", f"GPAW refuses {formula}: {said}; the atoms overlap")
    if isinstance(error, FileNotFoundError):
        return LabelFailed(
            "elements",
            f"GPAW lacks a data set for an element of {formula} ({said}); "
            "install gpaw-data, or choose another xc or basis",
        )
    if said.startswith("Unknown functional"):
        return LabelFailed(
            "crash",
            f"GPAW stopped on {formula}, for it knows no such functional ({said}); choose another "
            "with the option xc",
        )
    return LabelFailed(
        "crash",
        f"GPAW stopped on {formula} with {type(error).__name__}: {said}; "
        "its last lines are in the log of the failed label",
    )


def _version(package: str) -> str:
    """Return the version of GPAW or of its setups without importing it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise LabellerMissing(
            f"the labeller gpaw needs {package}, which is not installed; install it with: make gpaw"
        ) from error
