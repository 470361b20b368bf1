"""The mirror of the benchmark is a symmetry of the slab, and its report says what was found."""

from pathlib import Path

import numpy as np
import pytest
from ase.mep import NEB

from benchmarks.gpaw_surface_hop import (
    NUM_IMAGES,
    KeptLabels,
    MirroredCalculator,
    make_symmetric,
    mirrored,
)
from benchmarks.gpaw_surface_hop_report import draw, markdown
from tace_al.engines.labelling.emt import EMTLabeller
from tace_al.workflows.reactions import hollow_site, neighbouring_hollow


def test_forces_from_the_twin_are_the_forces() -> None:
    """With EMT the mirror image has the same energy, and its forces come back to their atoms."""
    atoms = hollow_site()
    plane = float(atoms.positions[-1, 0] + atoms.cell[0, 0] / 4)
    atoms.positions[4:] += np.random.default_rng(1).normal(scale=0.1, size=(5, 3))
    twin, rows = mirrored(atoms, plane)
    label, other = EMTLabeller().label(atoms), EMTLabeller().label(twin)
    assert label.energy == pytest.approx(other.energy, abs=1e-9)
    back = other.forces[rows] * np.array([-1.0, 1.0, 1.0])
    np.testing.assert_allclose(back, label.forces, atol=1e-9)
    again, _ = mirrored(twin, plane)
    np.testing.assert_allclose(again.positions, atoms.positions, atol=1e-9)


def test_half_a_symmetric_band_is_computed(tmp_path: Path) -> None:
    """Of five images between the ends three are computed, and a second run computes none."""
    initial = hollow_site()
    images = [initial.copy() for _ in range(NUM_IMAGES - 1)] + [neighbouring_hollow(initial)]
    plane = float(initial.positions[-1, 0] + initial.cell[0, 0] / 4)
    NEB(images, method="improvedtangent").interpolate("idpp", mic=True)
    make_symmetric(images, plane)
    for kept in (KeptLabels(EMTLabeller(), tmp_path), KeptLabels(EMTLabeller(), tmp_path)):
        for atoms in images[1:-1]:
            atoms.calc = MirroredCalculator(kept, plane)
            direct = EMTLabeller().label(atoms)
            assert atoms.get_potential_energy() == pytest.approx(direct.energy, abs=1e-5)
        assert kept.asked == NUM_IMAGES - 2
        assert len(kept.seconds) == (NUM_IMAGES - 1) // 2
    assert len(list(tmp_path.glob("*.npz"))) == (NUM_IMAGES - 1) // 2


def test_the_report_holds_both_barriers(tmp_path: Path) -> None:
    """Table and figure come from plain content."""
    history = [{"labels": 20, "barrier": 0.6, "error_bar": 0.1}]
    campaign = {
        "date": "2026-01-01",
        "machine": "a machine",
        "barrier": 0.58,
        "error_bar": 0.02,
        "saddle_label": 0.57,
        "labels": 60,
        "failed_labels": 1,
        "minutes": 20.0,
        "seconds_per_label": 5.0,
        "coverage": 0.9,
        "reason": "converged",
        "history": history,
        "coordinate": [0.0, 1.0, 2.0],
        "energies": [0.0, 0.58, 0.0],
        "band": [0.0, 0.02, 0.0],
    }
    content = {
        "date": "2026-01-01",
        "ase": "3",
        "fidelity": {
            "code": "gpaw",
            "xc": "PBE",
            "cutoff": 250.0,
            "kpoints": "2x2x1",
            "spacing": 0.22,
            "smearing": 0.1,
        },
        "fmax_ev_per_angstrom": 0.05,
        "converged": True,
        "barrier": 0.6,
        "energies": [0.0, 0.6, 0.0],
        "coordinates": [0.0, 1.0, 2.0],
        "band_labels": 70,
        "relaxation_labels": 10,
        "computed": 50,
        "seconds_per_label": 6.0,
        "campaign": campaign,
    }
    text = markdown(content)
    assert "0.580 ± 0.020" in text and "| 80 (50 computed" in text and "-0.020 eV" in text
    draw(content, tmp_path / "figure.png")
    assert 10_000 < (tmp_path / "figure.png").stat().st_size < 150_000
