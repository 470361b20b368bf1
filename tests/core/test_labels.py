"""Two labels are comparable when everything that changes a number agrees."""

import dataclasses

import numpy as np
import pytest

from tace_al.core.labels import Fidelity, Label, label_key


def test_every_setting_changes_the_fidelity_key() -> None:
    base = Fidelity(name="pbe", code="gpaw 26.7", settings={"cutoff": 300, "kpts": "2x2x1"})
    finer = dataclasses.replace(base, settings={"cutoff": 400, "kpts": "2x2x1"})
    other_code = dataclasses.replace(base, code="gpaw 26.8")
    reordered = dataclasses.replace(base, settings={"kpts": "2x2x1", "cutoff": 300})
    assert len({base.key, finer.key, other_code.key}) == 3
    assert reordered.key == base.key


def test_a_fidelity_cannot_change_after_it_was_made() -> None:
    settings = {"cutoff": 300}
    fidelity = Fidelity(name="pbe", code="gpaw", settings=settings)
    before = fidelity.key
    settings["cutoff"] = 400
    assert fidelity.key == before
    with pytest.raises(TypeError):
        fidelity.settings["cutoff"] = 400  # type: ignore[index]


def test_a_label_is_keyed_by_structure_and_fidelity_only() -> None:
    label = Label(structure_key="s", fidelity_key="f", energy=-1.0, forces=np.zeros((2, 3)))
    slower = dataclasses.replace(label, seconds=3.0)
    assert label.key == slower.key == label_key("s", "f") != label_key("f", "s")
