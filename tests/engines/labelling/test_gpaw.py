"""GPAW: settings and refusals without it, and short calculations with it."""

import sys
from dataclasses import replace
from importlib import metadata, util
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc100, molecule

from tace_al.core.errors import LabelFailed, LabellerMissing
from tace_al.data.frames import CHARGE, MULTIPLICITY
from tace_al.engines.labelling import gpaw
from tace_al.engines.labelling.gpaw import GPAWLabeller
from tace_al.engines.labelling.guarded import guarded_label

installed = pytest.mark.skipif(
    util.find_spec("gpaw") is None, reason="GPAW is not installed; install it with: make gpaw"
)
COARSE = GPAWLabeller(cutoff=250.0, spacing=0.22, box=6.0)


@pytest.fixture
def without_gpaw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let any GPAW installed be version 1.0, so that settings can be tested without one."""
    monkeypatch.setattr(gpaw.metadata, "version", lambda name: "1.0")


@pytest.mark.usefixtures("without_gpaw")
def test_every_setting_that_changes_a_number_is_in_the_fidelity() -> None:
    """The way to self-consistency stays out, everything else is in."""
    changes = {
        "cutoff": 300.0,
        "xc": "LDA",
        "kpoints": "2x2x1",
        "kpoint_density": 5.0,
        "spacing": 0.15,
        "smearing": 0.05,
        "spin_polarised": True,
        "initial_moment": 1.0,
        "dipole_correction": True,
        "symmetry": True,
        "bands": "110%",
        "box": 8.0,
        "energy_tolerance": 1e-5,
        "density_tolerance": 1e-5,
        "eigenstates_tolerance": 1e-9,
        "mode": "lcao",
    }
    keys = {replace(COARSE, **{name: value}).fidelity.key for name, value in changes.items()}
    assert len(keys | {COARSE.fidelity.key}) == len(changes) + 1
    path = {"max_iterations": 7, "mixing": 0.3, "mixing_history": 2, "inner_iterations": 4}
    assert replace(COARSE, **path).fidelity.key == COARSE.fidelity.key  # type: ignore[arg-type]
    # the basis means nothing in plane waves, the cutoff nothing in orbitals
    assert replace(COARSE, basis="szp").fidelity.key == COARSE.fidelity.key


@pytest.mark.usefixtures("without_gpaw")
def test_retries_are_gentler_and_of_the_same_fidelity() -> None:
    """Only a density that did not converge is worth another way to it."""
    rungs = COARSE.retries("convergence")
    assert [rung.fidelity.key for rung in rungs] == [COARSE.fidelity.key] * 2
    assert all(rung.mixing < COARSE.mixing for rung in rungs)
    assert all(rung.max_iterations > COARSE.max_iterations for rung in rungs)
    assert COARSE.retries("contact") == COARSE.retries("crash") == ()


@pytest.mark.usefixtures("without_gpaw")
def test_a_slab_needs_vacuum() -> None:
    """A slab whose images nearly touch is refused with what is missing."""
    slab = fcc100("Al", size=(1, 1, 2), vacuum=1.0)
    slab.pbc = (True, True, False)
    with pytest.raises(LabelFailed, match=r"leaves 2\.0 A of vacuum along lattice vector 3") as no:
        COARSE.label(slab)
    assert no.value.kind == "cell"
    with pytest.raises(LabelFailed, match="option box") as no:
        COARSE.label(Atoms("H2", positions=[[0, 0, 0], [0, 0, 3.0]]))
    assert no.value.kind == "cell"


@pytest.mark.usefixtures("without_gpaw")
def test_a_charged_slab_is_refused() -> None:
    """The energy of a charged periodic cell is a matter of its size."""
    slab = fcc100("Al", size=(1, 1, 2), vacuum=5.0)
    slab.info[CHARGE] = 1
    with pytest.raises(LabelFailed, match="mode=lcao") as no:
        COARSE.label(slab)
    assert no.value.kind == "charge"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mode": "fd"}, "'pw' or 'lcao'"),
        ({"cutoff": 0.0}, "positive"),
        ({"kpoints": "2x2"}, "2x2x1"),
        ({"mixing_history": 0}, "1 or more"),
    ],
)
def test_settings_out_of_range(options: dict[str, object], said: str) -> None:
    """Wrong settings are refused at once."""
    with pytest.raises(ValueError, match=said):
        GPAWLabeller(**options)  # type: ignore[arg-type]


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without GPAW there is one sentence and what to do."""

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(gpaw.metadata, "version", missing)
    with pytest.raises(LabellerMissing, match="make gpaw"):
        COARSE.label(molecule("H2"))


@pytest.mark.gpaw
@installed
def test_hydrogen_molecule_and_atom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The PBE bond of H2 is 4.5 eV; the atom is a doublet; nothing is written where one stands."""
    monkeypatch.chdir(tmp_path)
    stretched = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.80]])
    label = guarded_label(COARSE, stretched)
    moved = stretched.copy()
    moved.positions[1, 2] = 0.81
    slope = -(COARSE.label(moved).energy - label.energy) / 0.01
    assert slope == pytest.approx(label.forces[1, 2], abs=0.25)
    assert label.stress is None and label.dipole is not None
    atom = guarded_label(COARSE, Atoms("H", positions=[[0, 0, 0]]))
    bond = 2 * atom.energy - label.energy
    assert 4.0 < bond < 4.8
    assert list(tmp_path.iterdir()) == []


@pytest.mark.gpaw
@installed
def test_forces_of_a_crystal_are_slopes_and_stress_is_symmetric() -> None:
    """Two aluminium atoms off their sites: forces are the slope of the free energy."""
    labeller = GPAWLabeller(cutoff=150.0, spacing=0.25, kpoints="2x2x2", smearing=0.2)
    atoms = bulk("Al", "bcc", a=3.2, cubic=True)
    atoms.rattle(0.08, seed=3)
    label = guarded_label(labeller, atoms)
    direction = np.random.default_rng(4).normal(size=(2, 3))
    energies = []
    for step in (0.01, -0.01):
        moved = atoms.copy()
        moved.positions += step * direction
        energies.append(labeller.label(moved).energy)
    slope = -(energies[0] - energies[1]) / 0.02
    assert slope == pytest.approx(float((label.forces * direction).sum()), abs=0.01)
    assert label.stress is not None
    np.testing.assert_allclose(label.stress, label.stress.T, atol=1e-6)


@pytest.mark.gpaw
@installed
def test_orbitals_take_open_shells_and_charge() -> None:
    """The ion OH- and the radical OH differ by an electron and more than one eV."""
    labeller = replace(COARSE, mode="lcao", basis="dzp", box=7.0, spacing=0.25)
    radical = Atoms("OH", positions=[[0, 0, 0], [0, 0, 0.98]])
    label = guarded_label(labeller, radical)
    assert np.isfinite(label.forces).all()
    assert label.stress is None
    ion = radical.copy()
    ion.info[CHARGE] = -1
    assert abs(guarded_label(labeller, ion).energy - label.energy) < 6.0


@pytest.mark.gpaw
@installed
def test_too_few_iterations_fail_and_the_ladder_gets_there() -> None:
    """Four iterations are too few for H2; the first rung has the plain energy."""
    hurried = replace(COARSE, max_iterations=4)
    with pytest.raises(LabelFailed, match="self-consistent") as failed:
        hurried.label(molecule("H2"))
    assert failed.value.kind == "convergence"
    assert any("iter" in note for note in failed.value.__notes__)
    patient = hurried.retries("convergence")[-1]
    energy = patient.label(molecule("H2")).energy
    assert energy == pytest.approx(COARSE.label(molecule("H2")).energy, abs=1e-3)


@pytest.mark.gpaw
@installed
def test_a_wrong_multiplicity_never_reaches_gpaw() -> None:
    """A triplet hydrogen atom is refused by the guard on electrons."""
    atom = Atoms("H", positions=[[0, 0, 0]])
    atom.info[MULTIPLICITY] = 3
    with pytest.raises(LabelFailed, match="multiplicity") as failed:
        guarded_label(COARSE, atom)
    assert failed.value.kind == "parity"


@pytest.mark.usefixtures("without_gpaw")
def test_a_package_that_cannot_be_loaded_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its metadata may be there and its modules not."""
    monkeypatch.setitem(sys.modules, "gpaw", None)
    with pytest.raises(LabellerMissing, match="make gpaw"):
        COARSE.label(molecule("H2"))


@pytest.mark.usefixtures("without_gpaw")
def test_a_multiplicity_that_a_slab_would_ignore_is_refused() -> None:
    """Spins of a periodic structure are free or paired, never fixed."""
    atoms = fcc100("Al", (1, 1, 2), vacuum=4.0)
    atoms.info[MULTIPLICITY] = 3
    with pytest.raises(LabelFailed, match="initial_moment") as caught:
        COARSE.label(atoms)
    assert caught.value.kind == "charge"


@installed
def test_an_unknown_functional_names_the_option() -> None:
    """GPAW's own words are kept."""
    with pytest.raises(LabelFailed, match=r"PBEE.*option xc"):
        replace(COARSE, xc="PBEE").label(molecule("H2"))
