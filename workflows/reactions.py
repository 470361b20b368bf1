"""End states of reactions whose barriers are known, ready for a campaign, a test or a lesson.

Every function returns `(initial, final)`: the same atoms in the same order, lying as close to each
other as rotation and translation allow, with charge and multiplicity declared. The molecules were
relaxed with GFN2-xTB (tblite) to 0.01 eV/A; the slab is built and relaxed on the spot with EMT.

The reference of each, in `REFERENCE_BARRIERS`, is the saddle point's energy above the initial state
on the labeller itself: of a climbing-image band to 0.05 eV/A (`benchmarks/reference_barriers.py`),
refined with the Hessian for `carbonic_acid` and `carbonic_acid_water`, where a band ends up to
0.004 eV above it. All have one downhill direction but `carbonic_acid_planar`, which has two.
"""

from collections.abc import Callable, Mapping
from importlib import resources
from types import MappingProxyType

import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, fcc100
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.optimize import FIRE

from tace_al.core.labels import Setting
from tace_al.data.extxyz import read_structures
from tace_al.data.frames import bare_copy

GPAW_SURFACE_HOP: Mapping[str, Setting] = MappingProxyType(
    {"cutoff": 250.0, "kpoints": "2x2x1", "spacing": 0.22, "bands": "110%", "box": 7.0}
)
"""Options of the labeller `gpaw` for O on Cu(100): forces smooth to 0.01 eV/A, seconds a label."""
GPAW_SURFACE_HOP_BARRIER = 0.546
"""Its barrier in eV, of a climbing band on GPAW itself (`benchmarks/gpaw_surface_hop.py`)."""

_SLAB_FMAX = 0.01  # eV/A


def carbonic_acid() -> tuple[Atoms, Atoms]:
    """Return H2CO3 -> CO2 + H2O: the anti hydroxyl gives its proton to the other hydroxyl.

    From the cis-trans conformer, which the path starts from; cis-cis lies 0.017 eV lower. Both
    minima are planar and the saddle is not: a band that starts planar stays so and climbs to a
    second-order saddle 0.036 eV too high (`carbonic_acid_planar`). Hence the water of the final
    complex is turned by 20 degrees about the C...O axis, a motion so flat that the state is still
    relaxed; do not relax it any tighter.
    """
    return _stored("carbonic_acid")


def carbonic_acid_planar() -> tuple[Atoms, Atoms]:
    """Return the end states of `carbonic_acid` in one plane, whose mirror symmetry traps a band.

    For tests of how a search leaves a symmetric ridge: 1.823 eV is the second-order saddle in the
    plane, 1.785 eV the true one.
    """
    return _stored("carbonic_acid_planar")


def carbonic_acid_water() -> tuple[Atoms, Atoms]:
    """Return H2CO3 + H2O -> CO2 + 2 H2O: one water takes a proton and gives another.

    From the complex in which the anti hydroxyl of cis-trans H2CO3 donates to the water. Water
    bound to the syn hydroxyl and the carbonyl of cis-cis H2CO3 lies 0.113 eV lower.
    """
    return _stored("carbonic_acid_water")


def malonaldehyde() -> tuple[Atoms, Atoms]:
    """Return the proton transfer between the two oxygen atoms of malonaldehyde."""
    return _stored("malonaldehyde")


def ammonia_inversion() -> tuple[Atoms, Atoms]:
    """Return the umbrella inversion of NH3."""
    return _stored("ammonia_inversion")


def chloride_exchange() -> tuple[Atoms, Atoms]:
    """Return Cl- + CH3Cl -> ClCH3 + Cl- between the two ion-dipole complexes; charge -1."""
    return _stored("chloride_exchange")


def formic_acid_dimer() -> tuple[Atoms, Atoms]:
    """Return the concerted transfer of both protons in the cyclic dimer of formic acid."""
    return _stored("formic_acid_dimer")


def surface_hop() -> tuple[Atoms, Atoms]:
    """Return the hop of O on Pt(100) from a hollow to the next, for EMT.

    A 2 x 2 slab of three layers, the lower two fixed, periodic in the plane, 8 A of vacuum on
    either side.
    """
    initial = fcc100("Pt", size=(2, 2, 3), vacuum=8.0)
    add_adsorbate(initial, "O", height=1.0, position="hollow")
    initial.pbc = (True, True, False)
    # ASE tags the adsorbate 0 and the layers from the top: 1, 2, 3
    initial.set_constraint(FixAtoms(mask=initial.get_tags() >= 2))
    final = initial.copy()
    final.positions[-1] += initial.cell[0] / 2
    return _relaxed_slab(initial), _relaxed_slab(final)


def oxygen_on_copper() -> tuple[Atoms, Atoms]:
    """Return the hop of O on Cu(100) from a hollow to the next, for GPAW (`GPAW_SURFACE_HOP`).

    Relaxed to 0.02 eV/A by `benchmarks/gpaw_surface_hop.py`, which also climbs to the saddle.
    """
    return _stored("oxygen_cu100")


def hollow_site() -> Atoms:
    """Return O in a hollow of Cu(100), unrelaxed: what `benchmarks/gpaw_surface_hop.py` relaxes.

    A 2 x 2 slab of two layers, the lower fixed, in a cell of 10 A: nine atoms, for GPAW.
    """
    atoms = fcc100("Cu", size=(2, 2, 2), a=3.65, vacuum=4.0)
    add_adsorbate(atoms, "O", height=0.75, position="hollow")
    atoms.set_cell([*atoms.cell.lengths()[:2], 10.0])
    atoms.center(axis=2)
    atoms.pbc = (True, True, False)
    atoms.set_constraint(FixAtoms(mask=atoms.get_tags() == 2))
    return bare_copy(atoms)


def neighbouring_hollow(initial: Atoms) -> Atoms:
    """Return the state one hop along x: the same slab moved by half its first lattice vector."""
    half = initial.cell[0, 0] / 2
    final = bare_copy(initial)
    moved = initial.positions + np.array([half, 0.0, 0.0])
    # each copper atom takes over the displacement of the one that came to its site
    for row in range(len(initial) - 1):
        shift = moved - initial.positions[row]
        shift[:, 0] -= initial.cell[0, 0] * np.round(shift[:, 0] / initial.cell[0, 0])
        shift[-1] = np.inf
        nearest = int(np.linalg.norm(shift, axis=1).argmin())
        moved_row = initial.positions[row] + shift[nearest]
        final.positions[row] = moved_row
    final.positions[-1] = moved[-1]
    return final


BUILDERS: Mapping[str, Callable[[], tuple[Atoms, Atoms]]] = MappingProxyType(
    {
        "carbonic_acid": carbonic_acid,
        "carbonic_acid_planar": carbonic_acid_planar,
        "carbonic_acid_water": carbonic_acid_water,
        "malonaldehyde": malonaldehyde,
        "surface_hop": surface_hop,
        "ammonia_inversion": ammonia_inversion,
        "chloride_exchange": chloride_exchange,
        "formic_acid_dimer": formic_acid_dimer,
    }
)
"""Every reaction by name."""

REFERENCE_BARRIERS: Mapping[str, float] = MappingProxyType(
    {
        "carbonic_acid": 1.785,
        "carbonic_acid_planar": 1.823,
        "carbonic_acid_water": 0.985,
        "malonaldehyde": 0.163,
        "surface_hop": 0.119,
        "ammonia_inversion": 0.265,
        "chloride_exchange": 0.460,
        "formic_acid_dimer": 0.272,
    }
)
"""Barriers in eV: `surface_hop` with EMT, all others with GFN2-xTB."""


def _stored(name: str) -> tuple[Atoms, Atoms]:
    """Read the end states of a reaction from the package's own data."""
    source = resources.files("tace_al.workflows.end_states").joinpath(f"{name}.xyz")
    with resources.as_file(source) as path:
        initial, final = read_structures(path)
    return initial, final


def _relaxed_slab(atoms: Atoms) -> Atoms:
    """Return the structure relaxed with EMT."""
    slab = atoms.copy()
    slab.calc = EMT()
    converged = FIRE(slab, logfile=None).run(fmax=_SLAB_FMAX, steps=500)
    assert converged, "a small Pt slab relaxes with EMT in far fewer steps"
    return bare_copy(slab)
