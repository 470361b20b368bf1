"""Reference barriers and what they cost in labels without a model: the yardstick of a campaign.

    python -m benchmarks.reference_barriers

Every reaction of `tace_al.workflows.reactions` is run as a climbing-image nudged elastic band
(Henkelman, Uberuaga, Jonsson, 10.1063/1.1329672) on the labeller itself: 9 images, IDPP start, to
0.05 eV/A, once with ASE's own band (improved tangents, FIRE; the independent reference) and once
with tace-al's. Every call of the labeller counts as one label, both end states included. The
Hessian at ASE's highest image says how many directions lead downhill: a saddle point has one.
"""

import json
import platform
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.mep import NEB
from ase.optimize import FIRE
from rich.console import Console
from rich.progress import track

from benchmarks.machine import processor
from tace_al.core.atomic_write import write_bytes
from tace_al.data.frames import fixed_mask
from tace_al.engines.labelling.catalogue import labeller_from_name
from tace_al.engines.labelling.labeller import Labeller
from tace_al.engines.sampling.labeller_potential import LabellerPotential
from tace_al.engines.sampling.neb import BandSettings, nudged_elastic_band
from tace_al.engines.sampling.potential_calculator import PotentialCalculator
from tace_al.workflows.reactions import BUILDERS, REFERENCE_BARRIERS

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("ase", "tblite", "numpy")
NUM_IMAGES = 9
FMAX = 0.05  # eV/A
CLIMB_BELOW = 0.3  # eV/A, on the band, when the highest image starts to climb
MAX_STEPS = 600
DOWNHILL = -0.1  # eV/A^2; smaller curvatures are rotations and the noise of differences


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One reaction: energies in eV, times in s."""

    reaction: str
    labeller: str
    num_atoms: int
    reference: float
    ase_barrier: float
    ase_labels: int
    ase_converged: bool
    downhill_directions: int
    band_barrier: float
    band_labels: int
    band_converged: bool
    seconds: float


def main() -> None:
    """Run every reaction, show the table and write it as JSON and Markdown."""
    console = Console()
    rows = [measured(name) for name in track(BUILDERS, "bands", console=console)]
    setting = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {processor()}, one thread",
        "versions": ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES),
        "num_images": NUM_IMAGES,
        "fmax_ev_per_angstrom": FMAX,
    }
    content = json.dumps({**setting, "rows": [asdict(row) for row in rows]}, indent=1) + "\n"
    text = markdown(rows, setting)
    RESULTS.mkdir(exist_ok=True)
    write_bytes(RESULTS / "reference_barriers.json", content.encode())
    write_bytes(RESULTS / "reference_barriers.md", text.encode())
    console.print(text)


def measured(name: str) -> Row:
    """Run one reaction with both bands."""
    initial, final = BUILDERS[name]()
    choice = "emt" if initial.pbc.any() else "gfn2"
    labeller = labeller_from_name(choice)
    start = time.perf_counter()
    barrier, num_labels, converged, saddle = ase_band(labeller, initial, final)
    seconds = time.perf_counter() - start
    potential = LabellerPotential(labeller)
    settings = BandSettings(num_images=NUM_IMAGES, fmax=FMAX, max_steps=MAX_STEPS)
    band = nudged_elastic_band(potential, initial, final, settings=settings)
    return Row(
        reaction=name,
        labeller=choice,
        num_atoms=len(initial),
        reference=REFERENCE_BARRIERS[name],
        ase_barrier=barrier,
        ase_labels=num_labels,
        ase_converged=converged,
        downhill_directions=downhill_directions(labeller, saddle),
        band_barrier=band.barrier,
        band_labels=potential.num_labels,
        band_converged=band.converged,
        seconds=seconds,
    )


def ase_band(labeller: Labeller, initial: Atoms, final: Atoms) -> tuple[float, int, bool, Atoms]:
    """Return barrier (eV), labels, convergence and highest image of ASE's climbing band."""
    potential = LabellerPotential(labeller)
    images = [initial.copy() for _ in range(NUM_IMAGES - 1)] + [final.copy()]
    for atoms in images:
        atoms.calc = PotentialCalculator(potential)
    band = NEB(images, k=0.1, method="improvedtangent")
    band.interpolate("idpp", mic=bool(initial.pbc.any()))
    FIRE(band, logfile=None).run(fmax=CLIMB_BELOW, steps=MAX_STEPS)
    band.climb = True
    converged = FIRE(band, logfile=None).run(fmax=FMAX, steps=MAX_STEPS)
    energies = [atoms.get_potential_energy() for atoms in images]
    saddle = images[int(np.argmax(energies))]
    return max(energies) - energies[0], potential.num_labels, bool(converged), saddle


def downhill_directions(labeller: Labeller, atoms: Atoms, step: float = 0.005) -> int:
    """Return the number of negative eigenvalues of the Hessian of the movable atoms.

    Parameters
    ----------
    step
        Displacement in A of the central differences of forces.
    """
    movable = np.flatnonzero(np.repeat(~fixed_mask(atoms), 3))
    hessian = np.zeros((len(movable), len(movable)))
    for row, coordinate in enumerate(movable):
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions.flat[coordinate] += sign * step
            forces = labeller.label(moved).forces.ravel()[movable]
            hessian[row] -= sign * forces / (2 * step)
    eigenvalues = np.linalg.eigvalsh((hessian + hessian.T) / 2)
    return int((eigenvalues < DOWNHILL).sum())


def markdown(rows: list[Row], setting: dict[str, object]) -> str:
    """Return the results as a Markdown page."""
    lines = [
        "# Reference barriers: climbing-image bands on the labeller itself",
        "",
        f"{setting['date']}; {setting['machine']}; {setting['versions']}; {NUM_IMAGES} images, "
        f"fmax {FMAX} eV/A. Written by `python -m benchmarks.reference_barriers`.",
        "",
        "| reaction | atoms | labeller | barrier, eV | labels | downhill directions "
        "| tace-al's band, eV | its labels | time, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        marks = ["" if done else " (not converged)" for done in converged_bands(row)]
        lines.append(
            f"| {row.reaction} | {row.num_atoms} | {row.labeller} "
            f"| {row.ase_barrier:.3f}{marks[0]} | {row.ase_labels} | {row.downhill_directions} "
            f"| {row.band_barrier:.3f}{marks[1]} | {row.band_labels} | {row.seconds:.1f} |"
        )
    lines += [
        "",
        "Barrier, labels and time: ASE's band, from the initial state to its highest image. "
        "tace-al's band asks less of the images away from the saddle. "
        "Two downhill directions: the band climbed to a ridge between two saddles, not to one; "
        "`carbonic_acid_planar` is kept to show that trap.",
        "",
    ]
    return "\n".join(lines)


def converged_bands(row: Row) -> tuple[bool, bool]:
    """Return whether ASE's and tace-al's bands converged."""
    return row.ase_converged, row.band_converged


if __name__ == "__main__":
    main()
