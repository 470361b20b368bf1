"""Against springs, ase.vibrations, and what fixed atoms and symmetry demand."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.vibrations import Vibrations

from tace_al.analysis.normal_modes import (
    analytic_hessian,
    hessian_by_differences,
    normal_modes,
    whole_motions,
)
from tace_al.core.errors import StructureError
from tace_al.engines.labelling.catalogue import labeller_from_name
from tace_al.engines.sampling.committee_potential import CommitteePotential
from tace_al.engines.sampling.labeller_potential import LabellerPotential
from tace_al.engines.sampling.potential import CalculatorPotential
from tace_al.engines.sampling.relax import relax
from tace_al.model.committee import Committee
from tace_al.model.tace import Tace

XTB = LabellerPotential(labeller_from_name("gfn2", {}))


class Spring(Calculator):
    """Two atoms and a harmonic bond of 1.1 A and 30 eV/A^2."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE's own interface)

    def calculate(self, *arguments: object, **named: object) -> None:
        super().calculate(*arguments, **named)  # type: ignore[arg-type]
        bond = self.atoms.positions[1] - self.atoms.positions[0]
        length = np.linalg.norm(bond)
        pull = 30.0 * (length - 1.1) * bond / length
        self.results = {"energy": 15.0 * (length - 1.1) ** 2, "forces": np.array([pull, -pull])}


def test_a_spring_has_one_frequency() -> None:
    atoms = Atoms("CO", positions=[[0, 0, 0], [0.3, 0.4, np.sqrt(1.1**2 - 0.25)]])
    potential = CalculatorPotential(Spring())
    modes = normal_modes(atoms, hessian_by_differences(potential, atoms, delta=1e-4))
    masses = atoms.get_masses()
    reduced = masses.prod() / masses.sum()
    expected = np.sqrt(30.0 / reduced) * units._hbar * 1e10 / np.sqrt(units._e * units._amu)
    assert modes.num_projected == 5 and len(modes.frequencies.value) == 1
    assert modes.frequencies.value[0] == pytest.approx(expected / units.invcm, rel=1e-6)
    direction = modes.displacements[0]
    np.testing.assert_allclose(masses @ direction, 0.0, atol=1e-6)  # the centre of mass rests
    assert np.linalg.norm(direction) == pytest.approx(1.0)


def test_motions_of_the_whole() -> None:
    for name, number in (("H2O", 6), ("CO2", 5), ("O", 3)):
        atoms = molecule(name)
        basis = whole_motions(atoms)
        assert basis.shape[1] == number
        np.testing.assert_allclose(basis.T @ basis, np.eye(number), atol=1e-12)
    assert whole_motions(bulk("Cu", cubic=True)).shape == (12, 3)
    held = molecule("H2O")
    held.set_constraint(FixAtoms([0]))
    assert whole_motions(held).shape == (6, 0)


def test_water_equals_ase_vibrations(tmp_path: Path) -> None:
    from tblite.ase import TBLite

    water = relax(XTB, molecule("H2O"), fmax=1e-4).final
    modes = normal_modes(water, hessian_by_differences(XTB, water))
    water.calc = TBLite(method="GFN2-xTB", verbosity=0)
    by_ase = Vibrations(water, name=str(tmp_path / "vib"))
    by_ase.run()
    squares = by_ase.get_energies() ** 2
    ordered = np.sort(squares.real)
    frequencies = np.sign(ordered) * np.sqrt(np.abs(ordered)) / units.invcm
    np.testing.assert_allclose(modes.frequencies.value, frequencies[6:], atol=1.0)
    np.testing.assert_allclose(modes.unprojected.value[[0, 4, 5]], frequencies[[0, 4, 5]], atol=2.0)
    assert modes.point == "minimum"


def test_planar_ammonia_is_a_saddle_point() -> None:
    flat = molecule("NH3")
    flat.positions[:, 2] = 0.0
    saddle = relax(XTB, flat, fmax=1e-4).final  # symmetry keeps it flat
    modes = normal_modes(saddle, hessian_by_differences(XTB, saddle))
    assert modes.num_imaginary == 1 and modes.point == "first-order saddle"
    out_of_plane = np.abs(modes.displacements[0][:, 2])
    assert out_of_plane.sum() == pytest.approx(np.abs(modes.displacements[0]).sum(), rel=1e-3)


def test_held_atoms_do_not_move() -> None:
    slab = bulk("Cu", cubic=True) * (1, 1, 2)
    slab.set_constraint(FixAtoms(range(5)))
    potential = CalculatorPotential(EMT())
    hessians = hessian_by_differences(potential, slab)
    assert hessians.shape == (1, 9, 9)
    modes = normal_modes(slab, hessians)
    assert modes.num_projected == 0 and len(modes.frequencies.value) == 9
    assert np.abs(modes.displacements[:, :5]).max() == 0.0
    slab.set_constraint(FixAtoms(range(8)))
    with pytest.raises(StructureError, match="every atom is fixed"):
        hessian_by_differences(potential, slab)


def test_members_have_a_spread_and_both_hessians_agree() -> None:
    members = [
        Tace.from_preset("tiny", elements=["H", "O"], dtype="float64", seed=seed) for seed in (1, 2)
    ]
    committee = Committee(members)
    water = molecule("H2O")
    analytic = analytic_hessian(committee, water)
    differences = hessian_by_differences(CommitteePotential(committee), water, delta=1e-4)
    np.testing.assert_allclose(analytic, differences, atol=1e-4)
    modes = normal_modes(water, analytic)
    assert modes.frequencies.members.shape == (2, 3)
    assert modes.frequencies.spread.max() > 0.0
    expected = modes.frequencies.members.std(axis=0)
    np.testing.assert_allclose(modes.frequencies.spread, expected)
