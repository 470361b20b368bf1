from pathlib import Path

import numpy as np
from ase.build import molecule

from tace_al.engines.sampling.committee_potential import CommitteePotential, load_committee
from tace_al.model.checkpoint import save
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
    assert load_committee(tuple(paths)) is committee  # kept for the next task of the process
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
