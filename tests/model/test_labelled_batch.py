"""Labels travel with their structures; what is absent is NaN; order follows the generator."""

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from tace_al.core.errors import DataError
from tace_al.data.extxyz import ENERGY, FORCES, STRESS
from tace_al.model.config import TaceConfig
from tace_al.model.labelled_batch import batches, join, labelled

CONFIG = TaceConfig(elements=("H", "O", "Cu"), cutoff=4.0, heads=("cheap", "dear"))


def test_labels_are_read_and_absent_ones_are_nan() -> None:
    water = molecule("H2O")
    water.info[ENERGY] = -3.0
    water.set_array(FORCES, np.ones((3, 3)))
    part = labelled(water, CONFIG)
    assert part.targets["energy"].tolist() == [-3.0]
    assert torch.equal(part.targets["forces"], torch.ones(3, 3).double())
    assert part.names == ("forces",)
    bare = labelled(molecule("H2O"), CONFIG)
    assert not bare.targets
    both = join([bare, part])
    assert both.targets["energy"].isnan().tolist() == [True, False]
    assert both.targets["forces"].isnan().all(dim=1).tolist() == [True] * 3 + [False] * 3


def test_levels_of_theory_are_read_by_name() -> None:
    water = molecule("H2O")
    assert labelled(water, CONFIG).heads == ("cheap",)
    assert labelled(water, CONFIG, head="dear").heads == ("dear",)
    water.info["head"] = "dear"
    assert labelled(water, CONFIG).heads == ("dear",)
    water.info["head"] = "ccsd"
    with pytest.raises(DataError, match="cheap, dear"):
        labelled(water, CONFIG)


def test_labels_of_the_wrong_shape_are_refused() -> None:
    water = molecule("H2O")
    water.info["REF_stress"] = np.zeros(4)
    with pytest.raises(DataError, match="REF_stress"):
        labelled(water, CONFIG)


def test_labels_do_not_share_memory_with_the_structure() -> None:
    copper = bulk("Cu")
    copper.info[STRESS] = np.eye(3)
    copper.set_array(FORCES, np.zeros((1, 3)))
    part = labelled(copper, CONFIG)
    copper.info[STRESS] += 1.0
    copper.arrays[FORCES] += 1.0
    assert torch.equal(part.targets["stress"][0], torch.eye(3).double())
    assert not part.targets["forces"].any()


def test_joined_labels_stay_with_their_structures() -> None:
    frames = [molecule("H2O"), bulk("Cu")]
    frames[0].info[ENERGY], frames[1].info[ENERGY] = 1.0, 2.0
    joined = join([labelled(atoms, CONFIG) for atoms in frames])
    assert joined.targets["energy"].tolist() == [1.0, 2.0]
    assert joined.graph.numbers.tolist() == [8, 1, 1, 29]


def test_batches_cover_everything_once_in_a_repeatable_order() -> None:
    parts = []
    for index in range(7):
        atoms = molecule("H2")
        atoms.info[ENERGY] = float(index)
        parts.append(labelled(atoms, CONFIG))

    def order(seed: int | None) -> list[float]:
        generator = None if seed is None else np.random.default_rng(seed)
        found = batches(parts, 3, generator=generator)
        return [energy for batch in found for energy in batch.targets["energy"].tolist()]

    assert order(None) == [0, 1, 2, 3, 4, 5, 6]
    assert order(1) == order(1) != order(2)
    assert sorted(order(1)) == order(None)
