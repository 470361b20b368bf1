"""PySCF: forces are slopes of energies, shells follow the multiplicity, failures have kinds."""

import sys
from dataclasses import replace
from importlib import metadata

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from tace_al.core.errors import LabelFailed, LabellerMissing
from tace_al.core.units import HARTREE
from tace_al.data.frames import CHARGE, MULTIPLICITY, structure_key
from tace_al.engines.labelling.guards import label_problem
from tace_al.engines.labelling.pyscf import PySCFLabeller

MINIMAL = PySCFLabeller(method="hf", basis="sto-3g")


def water() -> Atoms:
    """Return a water molecule off its minimum, without symmetry."""
    atoms = molecule("H2O")
    atoms.rattle(0.05, seed=1)
    return atoms


@pytest.mark.parametrize(
    "labeller",
    [
        MINIMAL,
        replace(MINIMAL, method="mp2"),
        PySCFLabeller(xc="pbe", basis="sto-3g", grid_level=1),
        PySCFLabeller(xc="pbe", basis="sto-3g", grid_level=1, density_fitting=True),
    ],
    ids=["hf", "mp2", "dft", "dft-fitted"],
)
def test_forces_are_slopes(labeller: PySCFLabeller) -> None:
    """Central differences of the energy along a random direction give the forces."""
    atoms = water()
    direction = np.random.default_rng(2).normal(size=(3, 3))
    label = labeller.label(atoms)
    energies = []
    for step in (1e-3, -1e-3):
        moved = atoms.copy()
        moved.positions += step * direction
        energies.append(labeller.label(moved).energy)
    slope = -(energies[0] - energies[1]) / 2e-3
    assert slope == pytest.approx(float((label.forces * direction).sum()), abs=5e-4)
    assert label_problem(atoms, label) is None


def test_water_is_the_published_number() -> None:
    """HF/STO-3G water at R = 1.1 A, 104 degrees: -74.942080 Hartree (Crawford's exercises)."""
    # https://github.com/CrawfordGroup/ProgrammingProjects, project 3, geometry in Bohr
    bohr = 0.529177210903
    positions = bohr * np.array(
        [
            [0.0, -0.143225816552, 0.0],
            [1.638036840407, 1.136548822547, 0.0],
            [-1.638036840407, 1.136548822547, 0.0],
        ]
    )
    label = MINIMAL.label(Atoms("OH2", positions=positions))
    assert label.energy / HARTREE == pytest.approx(-74.942079928, abs=1e-6)


def test_hydrogen_exchange_is_a_doublet() -> None:
    """H + H2 is unrestricted by itself; its linear saddle lies about 1 eV above H + H2."""
    labeller = replace(MINIMAL, basis="6-31g")
    far = Atoms("H3", positions=[[0, 0, 0], [0, 0, 0.74], [0, 0, 8.0]])
    saddle = Atoms("H3", positions=[[0, 0, -0.94], [0, 0, 0.0], [0, 0, 0.94]])
    barrier = labeller.label(saddle).energy - labeller.label(far).energy
    assert 0.6 < barrier < 1.2


def test_triplet_oxygen_lies_below_the_singlet() -> None:
    """Ground-state O2 is a triplet; the singlet's field swings until the ladder settles it."""
    labeller = PySCFLabeller(xc="pbe", basis="6-31g", grid_level=1)
    triplet, singlet = molecule("O2"), molecule("O2")
    triplet.info[MULTIPLICITY], singlet.info[MULTIPLICITY] = 3, 1
    with pytest.raises(LabelFailed, match="did not converge in 100 cycles") as failed:
        labeller.label(singlet)
    assert failed.value.kind == "convergence"
    assert any("orbital gradient" in note for note in failed.value.__notes__)
    last = labeller.retries("convergence")[-1]
    assert last.fidelity.key == labeller.fidelity.key
    gap = last.label(singlet).energy - labeller.label(triplet).energy
    assert 1.0 < gap < 2.5  # experiment 0.98 eV; a restricted singlet lies higher


def test_rungs_lead_to_the_same_number() -> None:
    """Every retry has the fidelity and the energy of the labeller itself."""
    expected = MINIMAL.label(water())
    hurried = replace(MINIMAL, max_cycle=1)
    with pytest.raises(LabelFailed, match="1 cycles"):
        hurried.label(water())
    for rung in hurried.retries("convergence"):
        label = rung.label(water())
        assert label.fidelity_key == expected.fidelity_key
        assert label.energy == pytest.approx(expected.energy, abs=1e-6)
        np.testing.assert_allclose(label.forces, expected.forces, atol=1e-4)
    assert hurried.retries("contact") == ()


def test_settings_that_change_a_number_change_the_fidelity() -> None:
    """Charge and path stay out, everything else is in."""
    names = {"method": "mp2", "basis": "6-31g", "convergence": 1e-6, "guess": "atom"}
    keys = {MINIMAL.fidelity.key} | {
        replace(MINIMAL, **{name: value}).fidelity.key for name, value in names.items()
    }
    assert len(keys) == 1 + len(names)
    assert replace(MINIMAL, max_cycle=7, newton=True).fidelity.key == MINIMAL.fidelity.key
    assert metadata.version("pyscf") in MINIMAL.fidelity.code


def test_charge_is_declared_and_dipole_only_where_it_means_something() -> None:
    """Hydroxide has ten electrons and no dipole; water's points from oxygen to hydrogen."""
    ion = Atoms("OH", positions=[[0, 0, 0], [0, 0, 0.97]])
    ion.info[CHARGE] = -1
    label = MINIMAL.label(ion)
    assert label.dipole is None and label.structure_key == structure_key(ion)
    upright = MINIMAL.label(molecule("H2O"))
    assert upright.dipole is not None and upright.dipole[2] < -0.3


def test_a_slab_is_refused() -> None:
    """A molecule labeller says what to use for a periodic structure."""
    with pytest.raises(LabelFailed, match=r"molecules only.*use gpaw") as failed:
        MINIMAL.label(bulk("Al"))
    assert failed.value.kind == "cell"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "ccsd"}, "'hf', 'dft' or 'mp2'"),
        ({"method": "mp2", "density_fitting": True}, "leave it out"),
        ({"max_cycle": 0}, "positive"),
        ({"grid_level": 10}, "0 to 9"),
        ({"damping": 1.0}, "below 1"),
    ],
)
def test_settings_out_of_range(options: dict[str, object], said: str) -> None:
    """Wrong settings are refused at once."""
    with pytest.raises(ValueError, match=said):
        PySCFLabeller(**options)  # type: ignore[arg-type]


def test_an_unknown_functional_is_a_failed_label() -> None:
    """What PySCF does not know comes back as one sentence."""
    with pytest.raises(LabelFailed, match="PySCF stopped on H2O") as failed:
        PySCFLabeller(xc="nonsense", basis="sto-3g").label(water())
    assert failed.value.kind == "crash"


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PySCF there is one sentence and what to do."""

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("tace_al.engines.labelling.pyscf.metadata.version", missing)
    with pytest.raises(LabellerMissing, match="pip install pyscf"):
        MINIMAL.label(water())


def test_a_package_that_cannot_be_loaded_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its metadata may be there and its modules not."""
    monkeypatch.setitem(sys.modules, "pyscf", None)
    with pytest.raises(LabellerMissing, match="pip install pyscf"):
        MINIMAL.label(water())
