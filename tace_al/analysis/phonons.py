"""Phonons of a crystal with the spread of a committee: mesh, Gamma point, bands, DOS, heat.

Dynamical matrix of the primitive cell, its eigenvalues omega^2, and the harmonic crystal's
thermodynamics, all by phonopy (Togo, doi:10.7566/JPSJ.92.012001); here every quantity is computed
from the force constants of the mean potential and again from each member's.

Units: THz (ordinary, not angular, frequency; imaginary ones negative), kJ/mol and J/(K mol) of
primitive cells. The mesh follows phonopy's default, which leaves out the Gamma point where a number
is even.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from phonopy import Phonopy
from phonopy.file_IO import parse_BORN
from phonopy.phonon.mesh import Mesh

from tace_al.analysis.bands import SPACING, Bands, PathSegment, band_path
from tace_al.analysis.force_constants import ForceConstants
from tace_al.analysis.member_values import MemberValues
from tace_al.analysis.supercells import quiet
from tace_al.core.errors import DataError
from tace_al.core.units import COULOMB_CONSTANT

IMAGINARY = -0.05
"""THz: below this a frequency is imaginary, above it rounding or a rough supercell."""
ACOUSTIC = 1e-3
"""THz: below this a mode has no thermal properties. Acoustic modes at the Gamma point are rounding
errors, and where they come out positive the logarithm of 1e-7 would show."""
TEMPERATURES = tuple(float(kelvin) for kelvin in range(0, 1001, 10))
"""K, of the thermal properties."""
DOS_POINTS = 401


@dataclass(frozen=True, kw_only=True, slots=True)
class DensityOfStates:
    """Phonon density of states by the tetrahedron method.

    Parameters
    ----------
    frequencies
        (points,) THz.
    density
        (points,) states per THz and primitive cell.
    """

    frequencies: np.ndarray
    density: MemberValues


@dataclass(frozen=True, kw_only=True, slots=True)
class ThermalProperties:
    """Harmonic thermodynamics of one primitive cell at constant volume.

    Parameters
    ----------
    temperatures
        (points,) K.
    free_energy
        Helmholtz free energy of the phonons in kJ/mol, zero-point energy included.
    entropy, heat_capacity
        J/(K mol).
    zero_point_energy
        kJ/mol.
    """

    temperatures: np.ndarray
    free_energy: MemberValues
    entropy: MemberValues
    heat_capacity: MemberValues
    zero_point_energy: MemberValues


@dataclass(frozen=True, kw_only=True, slots=True)
class Phonons:
    """What the force constants of a committee say about a crystal's vibrations.

    Parameters
    ----------
    mesh
        Points along each reciprocal vector of the primitive cell.
    mesh_max, mesh_min
        Highest and lowest frequency on the mesh in THz.
    gamma
        (bands,) THz at the Gamma point.
    q_points, q_frequencies
        (points, 3) points asked for and (points, bands) THz there.
    bands
        Frequencies along seekpath's path.
    dos, thermal
        From the mesh.
    """

    mesh: tuple[int, int, int]
    mesh_max: MemberValues
    mesh_min: MemberValues
    gamma: MemberValues
    q_points: np.ndarray
    q_frequencies: MemberValues
    bands: Bands
    dos: DensityOfStates
    thermal: ThermalProperties

    @property
    def lowest(self) -> float:
        """Lowest frequency in THz on mesh and path; negative where imaginary."""
        along = min(float(values.value.min()) for values in self.bands.frequencies)
        return min(along, float(self.mesh_min.value), float(self.gamma.value.min()))

    @property
    def has_imaginary_modes(self) -> bool:
        """Whether the crystal is no minimum of the energy: it lowers it by a distortion."""
        return self.lowest < IMAGINARY


def phonons(
    lattice: Phonopy,
    constants: ForceConstants,
    *,
    mesh: Sequence[int],
    gamma_centred: bool = False,
    temperatures: Sequence[float] = TEMPERATURES,
    q_points: Sequence[Sequence[float]] = (),
    spacing: float = SPACING,
) -> Phonons:
    """Return the phonons of the mean potential and of every member.

    Parameters
    ----------
    lattice
        From `crystal_lattice`; with the non-analytical correction of `read_born` where wanted.
    constants
        Its force constants.
    mesh
        Three numbers of q-points.
    gamma_centred
        Include the Gamma point in a mesh of even numbers too.
    temperatures
        K.
    q_points
        Further points, in the reciprocal basis of the primitive cell.
    spacing
        Of the band path, in 1/Angstrom.
    """
    first, second, third = (int(number) for number in mesh)
    mesh = (first, second, third)
    segments = band_path(lattice.primitive, spacing=spacing)
    grid: np.ndarray | None = None
    found = []
    members = constants.members if len(constants.members) > 1 else ()
    for array in (constants.mean, *members):
        with quiet():
            lattice.force_constants = array
            lattice.run_mesh(list(mesh), is_gamma_center=gamma_centred)
            if grid is None:
                grid = _frequency_grid(_mesh_frequencies(lattice))
            found.append(_spectrum(lattice, segments, grid, temperatures, q_points))
    with quiet():
        lattice.force_constants = constants.mean
    assert grid is not None
    return _collected(found, segments, grid, np.asarray(temperatures), q_points, mesh)


def read_born(lattice: Phonopy, path: Path) -> None:
    """Add the long-range dipole field to the lattice from a BORN file of phonopy.

    With Born charges and dielectric tensor optical modes of polar crystals split at small q (Gonze
    and Lee, doi:10.1103/PhysRevB.55.10355). A file without the unit's factor is in e and vacuum's.

    Raises
    ------
    DataError
        The file cannot be read or does not fit the cell.
    """
    try:
        with quiet():
            parameters = parse_BORN(lattice.primitive, filename=str(path))
            if not parameters.get("factor"):
                parameters["factor"] = COULOMB_CONSTANT
            lattice.nac_params = parameters
    except (OSError, ValueError, RuntimeError, KeyError, IndexError) as error:
        raise DataError(
            f"{path} cannot be read as a BORN file ({error}); it needs the dielectric tensor and "
            "one Born charge for each independent atom, as phonopy writes them"
        ) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class _Spectrum:
    """All results of one set of force constants."""

    mesh_max: float
    mesh_min: float
    gamma: np.ndarray
    q_frequencies: np.ndarray
    bands: list[np.ndarray]
    density: np.ndarray
    free_energy: np.ndarray
    entropy: np.ndarray
    heat_capacity: np.ndarray
    zero_point_energy: float


def _spectrum(
    lattice: Phonopy,
    segments: Sequence[PathSegment],
    grid: np.ndarray,
    temperatures: Sequence[float],
    q_points: Sequence[Sequence[float]],
) -> _Spectrum:
    """Return the results of the lattice's present force constants, whose mesh has been run."""
    mesh = _mesh_frequencies(lattice)
    lattice.run_total_dos(
        freq_min=grid[0], freq_max=grid[-1], freq_pitch=(grid[-1] - grid[0]) / (len(grid) - 1)
    )
    dos = lattice.total_dos
    assert dos is not None and dos.dos is not None
    density = np.interp(grid, np.asarray(dos.frequency_points), dos.dos, left=0.0, right=0.0)
    lattice.run_thermal_properties(
        temperatures=np.asarray([0.0, *temperatures]), cutoff_frequency=ACOUSTIC
    )
    heat = lattice.thermal_properties
    lattice.run_band_structure([segment.q_points for segment in segments])
    path = lattice.band_structure
    points = np.asarray([[0.0, 0.0, 0.0], *q_points], dtype=float)
    lattice.run_qpoints(points)
    at_points = lattice.qpoints
    assert heat is not None and path is not None and at_points is not None
    return _Spectrum(
        mesh_max=float(mesh.max()),
        mesh_min=float(mesh.min()),
        gamma=np.array(at_points.frequencies[0]),
        q_frequencies=np.array(at_points.frequencies[1:]),
        bands=[np.array(frequencies) for frequencies in path.frequencies],
        density=density,
        free_energy=np.array(heat.free_energy)[1:],
        entropy=np.array(heat.entropy)[1:],
        heat_capacity=np.array(heat.heat_capacity)[1:],
        zero_point_energy=float(np.asarray(heat.free_energy)[0]),
    )


def _mesh_frequencies(lattice: Phonopy) -> np.ndarray:
    """Return (points, bands) frequencies in THz on the mesh that was run."""
    mesh = lattice.mesh
    assert isinstance(mesh, Mesh)
    return np.asarray(mesh.frequencies)


def _frequency_grid(frequencies: np.ndarray) -> np.ndarray:
    """Return the frequencies at which densities of states are given, in THz."""
    low, high = float(frequencies.min()), float(frequencies.max())
    margin = 0.1 * max(high - low, 0.1)
    return np.linspace(min(low - margin, 0.0), high + margin, DOS_POINTS)


def _collected(
    found: Sequence[_Spectrum],
    segments: tuple[PathSegment, ...],
    grid: np.ndarray,
    temperatures: np.ndarray,
    q_points: Sequence[Sequence[float]],
    mesh: tuple[int, int, int],
) -> Phonons:
    """Return the results of mean potential and members together."""

    def values(pick: Callable[[_Spectrum], np.ndarray | float]) -> MemberValues:
        return MemberValues.of([pick(spectrum) for spectrum in found])

    along = tuple(
        MemberValues.of([spectrum.bands[index] for spectrum in found])
        for index in range(len(segments))
    )
    return Phonons(
        mesh=mesh,
        mesh_max=values(lambda spectrum: spectrum.mesh_max),
        mesh_min=values(lambda spectrum: spectrum.mesh_min),
        gamma=values(lambda spectrum: spectrum.gamma),
        q_points=np.asarray(q_points, dtype=float).reshape(-1, 3),
        q_frequencies=values(lambda spectrum: spectrum.q_frequencies),
        bands=Bands(segments=segments, frequencies=along),
        dos=DensityOfStates(frequencies=grid, density=values(lambda spectrum: spectrum.density)),
        thermal=ThermalProperties(
            temperatures=temperatures,
            free_energy=values(lambda spectrum: spectrum.free_energy),
            entropy=values(lambda spectrum: spectrum.entropy),
            heat_capacity=values(lambda spectrum: spectrum.heat_capacity),
            zero_point_energy=values(lambda spectrum: spectrum.zero_point_energy),
        ),
    )
