"""Shared out among threads, a committee says what it says alone."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from tace_al.core.errors import ConfigError, StructureError
from tace_al.engines.sampling.committee_potential import CommitteePotential
from tace_al.engines.sampling.threaded_potential import ThreadedPotential
from tace_al.model.committee import Committee
from tace_al.model.tace import Tace


@pytest.fixture
def committee() -> Committee:
    torch.manual_seed(0)
    return Committee([Tace.from_preset("tiny", elements=["H", "O"]) for _ in range(2)])


def waters(count: int) -> Sequence[Atoms]:
    frames = [molecule("H2O") for _ in range(count)]
    for seed, atoms in enumerate(frames):
        atoms.rattle(0.05, seed=seed)
    return frames


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_answers_come_in_order_whatever_their_number(committee: Committee, count: int) -> None:
    threaded = ThreadedPotential(CommitteePotential(committee, skin=0.5), 3)
    frames = waters(count)
    for _ in range(2):
        found = threaded.predict(frames)
        for one, other in zip(found, committee.predict(frames), strict=True):
            np.testing.assert_allclose(one.member_forces, other.member_forces, atol=1e-5)
        for atoms in frames:
            atoms.positions += 0.01


def test_a_thread_that_refuses_is_heard(committee: Committee) -> None:
    frames = waters(4)
    frames[3].positions[1] = frames[3].positions[0]
    with pytest.raises(StructureError):
        ThreadedPotential(CommitteePotential(committee), 2).predict(frames)


def test_one_thread_is_no_sharing(committee: Committee) -> None:
    with pytest.raises(ConfigError, match="`threads` is 1"):
        ThreadedPotential(CommitteePotential(committee), 1)
