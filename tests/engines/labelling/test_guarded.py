import pickle

import pytest
from ase import Atoms
from ase.build import molecule

from tace_al.core.errors import LabelFailed
from tace_al.data.frames import MULTIPLICITY
from tace_al.engines.labelling.fake import FakeLabeller
from tace_al.engines.labelling.guarded import guarded_label
from tace_al.engines.labelling.xtb import XTBLabeller


def test_a_good_structure_gets_its_label() -> None:
    atoms = molecule("H2O")
    assert guarded_label(XTBLabeller(), atoms).energy == XTBLabeller().label(atoms).energy


def test_the_structure_is_refused_before_the_labeller_runs() -> None:
    atoms = molecule("NO")
    atoms.info[MULTIPLICITY] = 1
    with pytest.raises(LabelFailed) as caught:
        guarded_label(XTBLabeller(), atoms)
    assert caught.value.kind == "parity"
    assert pickle.loads(pickle.dumps(caught.value)).kind == "parity"


def test_forces_above_the_ceiling_are_refused() -> None:
    squeezed = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.4]])
    with pytest.raises(LabelFailed) as caught:
        guarded_label(XTBLabeller(), squeezed, force_ceiling=20.0)
    assert caught.value.kind == "force_ceiling"


def test_a_ceiling_that_is_no_number_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="force_ceiling"):
        guarded_label(FakeLabeller(), molecule("H2O"), force_ceiling=0.0)
