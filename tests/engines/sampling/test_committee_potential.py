import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule

from tace_al.engines.sampling.committee_potential import CommitteePotential, load_committee
from tace_al.model.checkpoint import save
from tace_al.model.committee import Committee
from tace_al.model.tace import Tace


def test_a_committee_from_its_files_predicts_with_every_member(tmp_path: Path) -> None:
    paths = []
    for seed in range(3):
        paths.append(str(tmp_path / f"{seed}.tace"))
        model = Tace.from_preset(
            "tiny", elements=["H", "O"], seed=seed, channels=8, radial_hidden=(16,)
        )
        save(model, Path(paths[-1]))
    committee = load_committee(tuple(paths))
    assert load_committee(tuple(paths)) is committee  # kept for the next task of the thread
    with ThreadPoolExecutor(1) as other:  # which may ask about another batch meanwhile
        assert other.submit(load_committee, tuple(paths)).result() is not committee
    assert load_committee(tuple(paths[:2])) is not committee
    frames = [molecule("H2O"), molecule("OH")]
    predictions = CommitteePotential(committee).predict(frames)
    for atoms, prediction in zip(frames, predictions, strict=True):
        assert prediction.member_energies.shape == (3,)
        assert prediction.member_forces.shape == (3, len(atoms), 3)
        np.testing.assert_allclose(prediction.forces, prediction.member_forces.mean(axis=0))
        assert prediction.force_spread.max() > 0  # untrained members disagree
    (alone,) = CommitteePotential(committee).predict(frames[:1])
    np.testing.assert_allclose(alone.member_energies, predictions[0].member_energies, rtol=1e-6)


def test_threads_that_share_a_committee_get_their_own_answers() -> None:
    members = [
        Tace.from_preset("tiny", elements=["H", "O"], seed=seed, channels=8) for seed in range(2)
    ]
    committee = Committee(members)
    if not committee.is_compiled:
        pytest.skip("without a compiler networks must be copied for each thread")
    batches = [[molecule("H2O")], [molecule("OH"), molecule("H2O2"), molecule("H2")]]
    expected = [committee.predict(batch) for batch in batches]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(committee.predict, batches * 50))
    finally:
        sys.setswitchinterval(interval)
    for number, answers in enumerate(found):
        for answer, wanted in zip(answers, expected[number % 2], strict=True):
            np.testing.assert_array_equal(answer.member_energies, wanted.member_energies)
            np.testing.assert_array_equal(answer.member_forces, wanted.member_forces)
