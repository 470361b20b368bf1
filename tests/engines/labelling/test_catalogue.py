from importlib import util

import pytest

from tace_al.core.errors import ConfigError
from tace_al.engines.labelling.ase_calculator import ASELabeller
from tace_al.engines.labelling.catalogue import LABELLER_NAMES, labeller_from_name, name_and_options

WITHOUT_GPAW = pytest.mark.skipif(
    util.find_spec("gpaw") is None, reason="GPAW is not installed; install it with: make gpaw"
)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=WITHOUT_GPAW if name == "gpaw" else ()) for name in LABELLER_NAMES],
)
def test_every_name_gives_the_labeller_of_that_name(name: str) -> None:
    assert labeller_from_name(name).fidelity.name == name


def test_options_reach_the_labeller() -> None:
    settings = labeller_from_name("gfn1", {"electronic_temperature": 500}).fidelity.settings
    assert settings["electronic_temperature"] == 500.0


def test_an_import_path_is_an_ase_calculator() -> None:
    labeller = labeller_from_name("tblite.ase:TBLite", {"verbosity": 0, "charge_option": "charge"})
    assert isinstance(labeller, ASELabeller)
    assert dict(labeller.options) == {"verbosity": 0}
    assert labeller.charge_option == "charge"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gfn3", {}, "no labeller is called 'gfn3'. Did you mean 'gfn"),
        ("gfn2", {"acuracy": 1.0}, "no option 'acuracy'. Did you mean 'accuracy'"),
        ("gfn2", {"method": "gfn1"}, "no option 'method'"),
        ("emt", {"cutoff": 1.0}, "It has no options"),
        ("gfn2", {"accuracy": "tight"}, "expected a value like 1.0"),
        ("gfn2", {"accuracy": -1.0}, "`accuracy` is -1.0"),
        ("gfn2", {"max_iterations": True}, "expected a value like 250"),
    ],
)
def test_mistakes_are_named(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        labeller_from_name(name, options)  # type: ignore[arg-type]


def test_two_functionals_of_one_code_have_names() -> None:
    """As PySCF's dft and pyscf they can be the two levels of a campaign."""
    first, second = labeller_from_name("pyscf"), labeller_from_name("dft", {"xc": "b3lyp"})
    assert (first.fidelity.name, second.fidelity.name) == ("pyscf", "dft")
    assert name_and_options(second) == ("dft", {"xc": "b3lyp"})
    assert labeller_from_name(*name_and_options(first)) == first
