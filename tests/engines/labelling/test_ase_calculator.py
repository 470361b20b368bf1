import pickle

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.lj import LennardJones

from tace_al.core.errors import ConfigError, LabelFailed, LabellerMissing
from tace_al.data.frames import CHARGE, MULTIPLICITY
from tace_al.engines.labelling.ase_calculator import ASELabeller
from tace_al.engines.labelling.xtb import XTBLabeller

TBLITE = "tblite.ase:TBLite"


class Misbehaving(LennardJones):
    """A calculator that does one thing wrong."""

    def __init__(self, fault: str) -> None:
        super().__init__(sigma=1.0, rc=10.0)
        self.fault = fault

    def calculate(self, atoms: Atoms, *others: object) -> None:
        super().calculate(atoms, *others)
        if self.fault == "moves":
            atoms.positions[0] += 0.01
        elif self.fault == "relaxes":
            self.atoms.positions[0] += 0.01
        elif self.fault == "sorts":
            self.atoms = self.atoms[::-1]
        elif self.fault == "no energy":
            self.results["energy"] = None
        elif self.fault == "raises":
            raise ZeroDivisionError("nought")
        elif self.fault == "exits":
            raise SystemExit(3)
        elif self.fault == "needs":
            raise ModuleNotFoundError("No module named 'licence'")
        elif self.fault == "smears":
            self.results["free_energy"] = self.results["energy"] - 0.25


def no_calculator() -> int:
    """Return something else."""
    return 3


def misbehaving(fault: str) -> ASELabeller:
    return ASELabeller(factory=f"{__name__}:Misbehaving", options={"fault": fault})


@pytest.mark.parametrize("fault", ["moves", "relaxes", "sorts"])
def test_numbers_of_another_geometry_are_refused(fault: str) -> None:
    """A code that relaxes or sorts answers for a structure that nobody asked for."""
    with pytest.raises(LabelFailed, match="moved or re-ordered") as caught:
        misbehaving(fault).label(molecule("H2O"))
    assert caught.value.kind == "geometry"


@pytest.mark.parametrize("fault", ["no energy", "raises", "exits"])
def test_whatever_a_calculator_does_is_one_failed_label(fault: str) -> None:
    """No error of foreign code leaves the labeller as it came."""
    with pytest.raises(LabelFailed) as caught:
        misbehaving(fault).label(molecule("H2O"))
    assert caught.value.kind == "crash"


def test_a_package_that_is_found_missing_on_the_way() -> None:
    with pytest.raises(LabellerMissing, match="licence"):
        misbehaving("needs").label(molecule("H2O"))


def test_what_is_no_calculator_is_named() -> None:
    with pytest.raises(ConfigError, match="returns int"):
        ASELabeller(factory=f"{__name__}:no_calculator").label(molecule("H2O"))


def test_the_energy_is_the_one_that_forces_belong_to() -> None:
    """With smearing that is the free energy, not its extrapolation."""
    atoms = molecule("H2O")
    plain, smeared = misbehaving("none").label(atoms), misbehaving("smears").label(atoms)
    assert smeared.energy == pytest.approx(plain.energy - 0.25)
    assert np.allclose(smeared.forces, plain.forces)


def tblite(**changes: object) -> ASELabeller:
    content = {
        "factory": TBLITE,
        "options": {"method": "GFN2-xTB", "verbosity": 0},
        "charge_option": "charge",
        "multiplicity_option": "multiplicity",
        **changes,
    }
    return ASELabeller(**content)  # type: ignore[arg-type]


def test_an_argon_dimer_has_the_analytic_energy() -> None:
    labeller = ASELabeller(
        factory="ase.calculators.lj:LennardJones",
        options={"sigma": 3.4, "epsilon": 0.0103, "rc": 100.0, "smooth": False},
    )
    label = labeller.label(Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 3.4 * 2 ** (1 / 6)]]))
    assert label.energy == pytest.approx(-0.0103, rel=1e-6)
    assert label.dipole is None


def test_charge_and_multiplicity_reach_the_calculator() -> None:
    atoms = molecule("OH")
    atoms.info[CHARGE] = -1
    atoms.info[MULTIPLICITY] = 3
    label = tblite().label(atoms)
    assert label.energy == pytest.approx(XTBLabeller().label(atoms).energy, abs=1e-6)
    assert label.dipole is not None


def test_a_charge_the_calculator_would_ignore_is_refused() -> None:
    atoms = molecule("OH")
    atoms.info[CHARGE] = -1
    with pytest.raises(LabelFailed, match="charge_option"):
        tblite(charge_option=None).label(atoms)
    atoms.info[MULTIPLICITY] = 3
    with pytest.raises(LabelFailed, match="multiplicity_option"):
        tblite(multiplicity_option=None).label(atoms)


def test_a_failed_run_is_a_failed_label() -> None:
    with pytest.raises(LabelFailed, match="failed on H2O") as caught:
        tblite(options={"method": "GFN2-xTB", "verbosity": 0, "max_iterations": 1}).label(
            molecule("H2O")
        )
    assert caught.value.kind == "crash"


def test_wrong_paths_and_options_say_what_to_do() -> None:
    with pytest.raises(LabellerMissing, match="install the package that holds no_such_code"):
        ASELabeller(factory="no_such_code.ase:Code").label(molecule("H2O"))
    with pytest.raises(ConfigError, match="has no 'LenardJones'"):
        ASELabeller(factory="ase.calculators.lj:LenardJones").label(molecule("H2O"))
    with pytest.raises(ConfigError, match="refuses the options"):
        ASELabeller(factory="ase.calculators.mixing:SumCalculator", options={"weight": 1.0}).label(
            molecule("H2O")
        )


def test_it_survives_a_process_border_and_options_are_in_the_fidelity() -> None:
    labeller = tblite()
    assert pickle.loads(pickle.dumps(labeller)).fidelity.key == labeller.fidelity.key
    assert tblite(options={"method": "GFN1-xTB"}).fidelity.key != labeller.fidelity.key
