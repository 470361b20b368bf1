"""The hop of oxygen on Cu(100) with GPAW: the barrier a campaign is held to, and what it costs.

    python -m benchmarks.gpaw_surface_hop [--dir runs/gpaw_surface_hop]

Relaxes the hollow site and runs ASE's climbing-image band (improved tangents, BFGS;
Henkelman, Uberuaga, Jonsson, 10.1063/1.1329672) with the labeller and settings of the workflow
`catalysis --set reaction=surface_hop --set labeller=gpaw`. Path and slab have a mirror plane half
way: images beyond it take their forces from their twins, which halves the work and changes no
number; a plain band would compute them, so they count as labels. Every calculation is kept in a
file, so that the program may be stopped at any time and goes on.

A campaign is put beside the result by `benchmarks.gpaw_surface_hop_report`.
"""

import argparse
import json
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any, final

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.mep import NEB
from ase.optimize import BFGS
from rich.console import Console

from benchmarks.machine import processor
from tace_al.core.atomic_write import write_bytes
from tace_al.core.errors import LabelFailed
from tace_al.core.labels import Label
from tace_al.data.extxyz import write_structures
from tace_al.data.frames import bare_copy
from tace_al.dispatch.tasks.label import stored_label
from tace_al.engines.labelling.catalogue import labeller_from_name
from tace_al.engines.labelling.labeller import Labeller
from tace_al.workflows.reactions import GPAW_SURFACE_HOP, hollow_site, neighbouring_hollow

RESULTS = Path(__file__).parent / "results"
NUM_IMAGES = 7  # odd, so that one lies on the mirror plane
FMAX = 0.05  # eV/A
RELAX_FMAX = 0.02  # eV/A
CLIMB_BELOW = 0.3  # eV/A, on the band, when the highest image starts to climb
MAX_STEPS = 200
LARGEST_STEP = 0.1  # A
DIGITS = 7  # of positions in A, so that a twin is found under the same key
FORCE_CEILING = 50.0  # eV/A


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """The band and its cost: energies in eV along the images, distances in A."""

    barrier: float
    converged: bool
    energies: tuple[float, ...]
    coordinates: tuple[float, ...]
    band_labels: int
    relaxation_labels: int
    computed: int
    seconds_per_label: float


@final
class KeptLabels:
    """A labeller that keeps every answer in a file and asks only on one side of the mirror.

    Parameters
    ----------
    labeller
        What computes.
    folder
        Where the label files lie.
    """

    def __init__(self, labeller: Labeller, folder: Path) -> None:
        self.labeller, self.folder = labeller, folder
        self.asked = 0
        self.seconds: dict[str, float] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def label(self, atoms: Atoms) -> Label:
        """Return the label of a structure, from its file where there is one."""
        self.asked += 1
        rounded = bare_copy(atoms)
        rounded.set_positions(np.round(atoms.positions, DIGITS), apply_constraint=False)
        outcome = stored_label(
            self.labeller, rounded, labels_dir=self.folder, force_ceiling=FORCE_CEILING
        )
        if not isinstance(outcome, Label):
            raise LabelFailed(outcome.kind, outcome.message)
        self.seconds[outcome.key] = outcome.seconds
        return outcome


@final
class MirroredCalculator(Calculator):
    """Energy and forces of a structure or of its mirror image, whichever lies before the plane.

    Parameters
    ----------
    kept
        What labels.
    plane
        Position in A of the mirror plane on the x axis.
    """

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE's own interface)

    def __init__(self, kept: KeptLabels, plane: float) -> None:
        super().__init__()
        self.kept, self.plane = kept, plane

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Any = ("energy",),
        system_changes: Any = all_changes,
    ) -> None:
        """Label the structure (called by ASE, which caches by geometry)."""
        super().calculate(atoms, properties, system_changes)
        beyond = self.atoms.positions[-1, 0] > self.plane + 1e-6
        asked = mirrored(self.atoms, self.plane) if beyond else (self.atoms, None)
        label = self.kept.label(asked[0])
        forces = label.forces
        if asked[1] is not None:
            forces = forces[asked[1]] * np.array([-1.0, 1.0, 1.0])
        self.results = {"energy": label.energy, "forces": forces}


def mirrored(atoms: Atoms, plane: float) -> tuple[Atoms, np.ndarray]:
    """Return the mirror image with every atom near its own site, and the row of each atom in it.

    Row i of the image holds the atom whose mirror image, moved by a lattice vector, lies nearest
    site i of the slab.
    """
    image = atoms.positions * np.array([-1.0, 1.0, 1.0]) + np.array([2.0 * plane, 0.0, 0.0])
    sites = hollow_site().positions
    lengths = np.diag(atoms.cell.array)[:2]
    holder = np.arange(len(atoms))
    placed = image.copy()
    for row in range(len(atoms) - 1):  # the adsorbate, last, stays in its row
        shift = image - sites[row]
        shift[:, :2] -= lengths * np.round(shift[:, :2] / lengths)
        distance = np.linalg.norm(shift, axis=1)
        distance[-1] = np.inf
        holder[row] = int(distance.argmin())
        placed[row] = sites[row] + shift[holder[row]]
    copy = bare_copy(atoms)
    copy.set_positions(placed, apply_constraint=False)
    return copy, np.argsort(holder)


def make_symmetric(images: list[Atoms], plane: float) -> None:
    """Make each image beyond the plane the exact twin of the one before it.

    Interpolation is symmetric to its own tolerance only, and forces keep what symmetry there is.
    """
    half = NUM_IMAGES // 2
    for before, beyond in zip(images[:half], images[:half:-1], strict=True):
        twin, _ = mirrored(before, plane)
        beyond.set_positions(twin.positions, apply_constraint=False)
    twin, _ = mirrored(images[half], plane)
    mean = 0.5 * (images[half].positions + twin.positions)
    images[half].set_positions(mean, apply_constraint=False)


def relaxed_hollow(kept: KeptLabels) -> Atoms:
    """Return oxygen in its hollow, relaxed with the labeller."""
    atoms = hollow_site()
    atoms.calc = MirroredCalculator(kept, np.inf)
    with BFGS(atoms, logfile=None) as optimiser:
        if not optimiser.run(fmax=RELAX_FMAX, steps=MAX_STEPS):
            raise RuntimeError(f"the hollow site did not relax in {MAX_STEPS} steps")
    return bare_copy(atoms)


def reference_band(kept: KeptLabels, initial: Atoms, console: Console) -> tuple[Reference, Atoms]:
    """Return the climbing band from a hollow to the next, and its highest image."""
    relaxation = kept.asked
    final = neighbouring_hollow(initial)
    plane = float(initial.positions[-1, 0] + initial.cell[0, 0] / 4)
    images = [initial.copy() for _ in range(NUM_IMAGES - 1)] + [final]
    for atoms in images:
        atoms.calc = MirroredCalculator(kept, plane)
    band = NEB(images, k=0.1, method="improvedtangent")
    band.interpolate("idpp", mic=True)
    make_symmetric(images, plane)
    optimiser = BFGS(band, logfile=None, maxstep=LARGEST_STEP)

    def tell() -> None:
        energies = [atoms.get_potential_energy() for atoms in images]
        console.print(
            f"step {optimiser.nsteps}: barrier {max(energies) - energies[0]:.4f} eV, "
            f"{len(kept.seconds)} computed"
        )

    optimiser.attach(tell)
    optimiser.run(fmax=CLIMB_BELOW, steps=MAX_STEPS)
    band.climb = True
    optimiser = BFGS(band, logfile=None, maxstep=LARGEST_STEP)
    optimiser.attach(tell)
    converged = bool(optimiser.run(fmax=FMAX, steps=MAX_STEPS))
    energies = np.array([atoms.get_potential_energy() for atoms in images])
    steps = [
        float(np.linalg.norm(right.positions - left.positions)) for left, right in pairwise(images)
    ]
    reference = Reference(
        barrier=float(energies.max() - energies[0]),
        converged=converged,
        energies=tuple((energies - energies[0]).tolist()),
        coordinates=(0.0, *np.cumsum(steps).tolist()),
        band_labels=kept.asked - relaxation,
        relaxation_labels=relaxation,
        computed=len(kept.seconds),
        seconds_per_label=float(np.median(list(kept.seconds.values()))),
    )
    return reference, images[int(energies.argmax())]


def main() -> None:
    """Run or go on with the band and write what it found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", type=Path, default=Path("runs/gpaw_surface_hop"))
    arguments = parser.parse_args()
    console = Console()
    labeller = labeller_from_name("gpaw", GPAW_SURFACE_HOP)
    kept = KeptLabels(labeller, arguments.dir / "labels")
    initial = relaxed_hollow(kept)
    write_structures(arguments.dir / "oxygen_cu100.xyz", [initial, neighbouring_hollow(initial)])
    reference, saddle = reference_band(kept, initial, console)
    write_structures(arguments.dir / "saddle.xyz", [bare_copy(saddle)])
    content = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {processor()}, one thread",
        "fidelity": {"code": labeller.fidelity.code, **labeller.fidelity.settings},
        "ase": metadata.version("ase"),
        "fmax_ev_per_angstrom": FMAX,
        **asdict(reference),
    }
    RESULTS.mkdir(exist_ok=True)
    write_bytes(RESULTS / "gpaw_surface_hop.json", (json.dumps(content, indent=1) + "\n").encode())
    console.print(f"barrier {reference.barrier:.3f} eV, {reference.band_labels} labels")


if __name__ == "__main__":
    main()
