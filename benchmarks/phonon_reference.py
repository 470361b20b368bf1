"""Phonons and vibrations beside other programs' answers, and bands learnt from few labels.

    python -m benchmarks.phonon_reference                        the comparisons
    python -m benchmarks.phonon_reference --campaign runs/phonons_Cu   and what a campaign learnt

Metals by EMT are compared with phonopy run by hand; forces published with phonopy (`TACE_AL_DATA`
names their folder) with the frequencies published beside them; molecules by GFN2-xTB with
`ase.vibrations`. `--campaign` takes the folder of `tace-al run workflows/phonons.py`, compares its
serving committee's bands with the labeller's own and draws both.
"""

import argparse
import json
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.vibrations import Vibrations
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms
from PIL import Image
from rich.console import Console

from benchmarks.machine import processor
from tace_al.analysis.crystal_relaxation import relax_crystal
from tace_al.analysis.force_constants import from_displacements
from tace_al.analysis.normal_modes import hessian_by_differences, normal_modes
from tace_al.analysis.phonon_target import committee_phonons
from tace_al.analysis.phonons import Phonons, phonons, read_born
from tace_al.analysis.supercell_forces import from_supercell_forces
from tace_al.analysis.supercells import crystal_lattice, default_supercell
from tace_al.core.atomic_write import write_bytes
from tace_al.data.extxyz import read_structures
from tace_al.engines.labelling.catalogue import labeller_from_name
from tace_al.engines.sampling.labeller_potential import LabellerPotential
from tace_al.engines.sampling.potential import CalculatorPotential
from tace_al.engines.sampling.relax import relax
from tace_al.model.committee import Committee
from tace_al.report.phonon_figures import band_figure

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("phonopy", "seekpath", "ase", "tblite", "numpy", "torch")
METALS = ("Al", "Cu", "Ag", "Au", "Ni", "Pd", "Pt")
MESH = (20, 20, 20)


def main() -> None:
    """Compare, show the page and write it as JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--campaign", type=Path, help="folder of a phonon campaign that has ended")
    parser.add_argument("--note", default="", help="about the campaign's run, such as other load")
    chosen = parser.parse_args()
    found: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {processor()}, one thread",
        "versions": ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES),
        "metals": [metal_beside_phonopy(symbol) for symbol in METALS],
        "published": published_forces(Path(os.environ.get("TACE_AL_DATA", "nowhere"))),
        "molecules": [molecule_beside_ase(name) for name in ("H2O", "CH3CH2OH")],
    }
    path = RESULTS / "phonon_reference.json"
    earlier = json.loads(path.read_text()) if path.is_file() else {}
    found["campaign"] = (
        {**learnt_bands(chosen.campaign), "note": chosen.note}
        if chosen.campaign
        else earlier.get("campaign")
    )
    text = markdown(found)
    write_bytes(path, (json.dumps(found, indent=1) + "\n").encode())
    write_bytes(RESULTS / "phonon_reference.md", text.encode())
    Console().print(text)


def metal_beside_phonopy(symbol: str) -> dict[str, Any]:
    """Return the largest frequency of a metal by tace-al and by phonopy's own calls, in THz."""
    atoms = bulk(symbol)
    cell = PhonopyAtoms(
        symbols=atoms.get_chemical_symbols(),
        cell=atoms.cell[:],
        scaled_positions=atoms.get_scaled_positions(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        by_hand = Phonopy(cell, np.diag([4, 4, 4]))
        by_hand.generate_displacements(distance=0.01)
        forces = []
        for displaced in by_hand.supercells_with_displacements or []:
            frame = Atoms(
                displaced.symbols,
                cell=displaced.cell,
                scaled_positions=displaced.scaled_positions,
                pbc=True,
                calculator=EMT(),
            )
            forces.append(frame.get_forces())
        by_hand.forces = np.asarray(forces)
        by_hand.produce_force_constants()
        theirs = float(np.max(by_hand.run_mesh(MESH).frequencies))
    lattice = crystal_lattice(atoms, (4, 4, 4))
    constants = from_displacements(lattice, atoms, CalculatorPotential(EMT()))
    ours = float(phonons(lattice, constants, mesh=MESH, spacing=0.1).mesh_max.value)
    return {"metal": symbol, "phonopy": theirs, "tace_al": ours, "difference": abs(ours - theirs)}


def published_forces(folder: Path) -> list[dict[str, Any]]:
    """Return the largest differences from the frequencies published with phonopy, in THz."""
    source = folder / "phonopy_reference.json"
    if not source.is_file():
        return []
    frames = read_structures(folder / "phonopy_supercells_dev.xyz.xz")
    rows = []
    for name, each in json.loads(source.read_text()).items():
        cell = Atoms(
            each["unitcell_symbols"],
            cell=each["unitcell"],
            scaled_positions=each["scaled_positions"],
            pbc=True,
        )
        differences = {}
        for corrected in (False, "BORN" in each):
            lattice = crystal_lattice(cell, each["supercell_matrix"])
            constants = from_supercell_forces(lattice, frames)
            if corrected:
                with tempfile.TemporaryDirectory() as scratch:
                    born = Path(scratch) / "BORN"
                    born.write_text(each["BORN"])
                    read_born(lattice, born)
            result = phonons(lattice, constants, mesh=(8, 8, 8), q_points=each["qpoints"])
            expected = np.asarray(each["frequencies_THz_no_NAC"])
            differences[corrected] = float(np.abs(result.q_frequencies.value - expected).max())
        rows.append(
            {
                "crystal": name.split("/")[0],
                "num_frames": constants.num_structures,
                "difference": differences[False],
                "difference_with_born": differences.get(True),
            }
        )
    return rows


def molecule_beside_ase(name: str) -> dict[str, Any]:
    """Return the largest difference from `ase.vibrations` in 1/cm, frequencies and zero point."""
    from tblite.ase import TBLite

    potential = LabellerPotential(labeller_from_name("gfn2", {}))
    atoms = relax(potential, molecule(name), fmax=1e-4).final
    modes = normal_modes(atoms, hessian_by_differences(potential, atoms))
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    with tempfile.TemporaryDirectory() as scratch:
        by_ase = Vibrations(atoms, name=str(Path(scratch) / "vib"))
        by_ase.run()
        theirs = by_ase.get_energies().real[modes.num_projected :] / units.invcm
    ours = modes.frequencies.value
    return {
        "molecule": name,
        "frequencies": ours.tolist(),
        "difference": float(np.abs(ours - theirs).max()),
        "zero_point": 0.5 * float(ours.sum()),
        "zero_point_difference": 0.5 * abs(float(ours.sum() - theirs.sum())),
    }


def learnt_bands(folder: Path) -> dict[str, Any]:
    """Return what a campaign's committee says about the bands, beside its labeller's own."""
    from tace_al.report.summary import read_summary
    from tace_al.store.store import Store

    with Store.open(folder, create=False) as store:
        summary = read_summary(store)
        serving = store.serving()
        assert serving is not None
        paths = [folder / store.model(key).path for key in serving.models]
        scale = float((serving.audit.get("calibration") or {}).get("scale", 1.0))
    potential = CalculatorPotential(EMT())
    cell = relax_crystal(potential, bulk("Cu")).atoms
    start = time.perf_counter()
    learnt = committee_phonons(Committee.load(paths), cell, relax=False)
    seconds = time.perf_counter() - start
    lattice = crystal_lattice(cell, default_supercell(cell))
    own = phonons(lattice, from_displacements(lattice, cell, potential), mesh=(15, 15, 15))
    figure = band_figure(
        learnt,
        RESULTS / "phonon_bands.png",
        title="copper: committee (error bar shaded)",
        scale=scale,
        reference=own.bands,
        reference_name="labeller (EMT)",
    )
    with Image.open(figure) as drawn:
        small = drawn.convert("RGB").quantize(colors=128)
    small.save(figure, optimize=True)
    return {
        "ended": str(summary.result.get("reason", summary.state)),
        "labels": summary.num_labels,
        "seconds": (summary.last_seen - summary.created).total_seconds(),
        "generations": int(serving.number),
        "members": len(paths),
        "scale": scale,
        "band_seconds": seconds,
        **band_errors(learnt, own, scale),
    }


def band_errors(learnt: Phonons, own: Phonons, scale: float) -> dict[str, float]:
    """Return errors and error bars of the bands in THz, and how many the bars cover."""
    errors, bars = [], []
    for mine, theirs in zip(learnt.bands.frequencies, own.bands.frequencies, strict=True):
        errors.append(np.abs(mine.value - theirs.value).ravel())
        bars.append(scale * mine.spread.ravel())
    error, bar = np.concatenate(errors), np.concatenate(bars)
    return {
        "max_error": float(error.max()),
        "rms_error": float(np.sqrt((error**2).mean())),
        "max_error_bar": float(bar.max()),
        "covered": float((error <= bar + 1e-4).mean()),
        "highest": float(learnt.mesh_max.value),
        "highest_reference": float(own.mesh_max.value),
    }


def markdown(found: dict[str, Any]) -> str:
    """Return the results as a Markdown page."""
    lines = [
        "# Phonons and vibrations beside other programs",
        "",
        f"{found['date']}; {found['machine']}; {found['versions']}. Written by "
        "`python -m benchmarks.phonon_reference`.",
        "",
        "## EMT metals: highest frequency on a mesh of 20 x 20 x 20, supercell 4 x 4 x 4",
        "",
        *table(("metal", "phonopy by hand, THz", "tace-al, THz", "difference"), found["metals"]),
        "",
        "## Forces published with phonopy: largest difference at four q-points",
        "",
        *table(
            ("crystal", "frames", "difference, THz", "with the BORN file, THz"),
            found["published"],
        ),
        "",
        "The published frequencies are rounded to 1e-4 THz. Those of Al2O3, though called without, "
        "hold the non-analytical correction; at the points of the others it makes no difference.",
        "",
        "## Molecules by GFN2-xTB beside ase.vibrations, 1/cm",
        "",
        "| molecule | largest difference | zero-point energy | difference |",
        "|---|---|---|---|",
        *(
            f"| {row['molecule']} | {row['difference']:.2f} | {row['zero_point']:.1f} "
            f"| {row['zero_point_difference']:.2f} |"
            for row in found["molecules"]
        ),
        "",
    ]
    learnt = found["campaign"]
    if learnt:
        lines += [
            "## Copper's bands from few labels: `tace-al run workflows/phonons.py`",
            "",
            f"Ended as: {learnt['ended']}. {learnt['note']} "
            f"{learnt['labels']} labels, {learnt['generations']} generations, "
            f"{learnt['seconds'] / 60:.1f} minutes; highest frequency {learnt['highest']:.3f} THz, "
            f"the labeller's own {learnt['highest_reference']:.3f} THz; errors of the bands "
            f"{learnt['rms_error']:.3f} THz rms, {learnt['max_error']:.3f} at most; largest error "
            f"bar {learnt['max_error_bar']:.3f} THz; error bars cover "
            f"{100 * learnt['covered']:.0f} % of all bands and points.",
            "",
            "![bands of the committee and of the labeller](phonon_bands.png)",
            "",
        ]
    return "\n".join(lines)


def table(heads: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return rows as a Markdown table, numbers as they are best read."""
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    lines += ["| " + " | ".join(readable(value) for value in row.values()) + " |" for row in rows]
    return lines


def readable(value: Any) -> str:
    """Return a number with the digits that matter.

    >>> readable(7.7938763), readable(3.2e-9), readable(None), readable(2)
    ('7.793876', '3.2e-09', '-', '2')
    """
    if not isinstance(value, float):
        return "-" if value is None else str(value)
    return f"{value:.6f}" if abs(value) > 1.0 else f"{value:.1e}"


if __name__ == "__main__":
    main()
