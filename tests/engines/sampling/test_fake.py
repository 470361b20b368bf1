import numpy as np
import pytest
from ase.build import molecule
from ase.constraints import FixAtoms

from tace_al.data.frames import frames_from_bytes, frames_to_bytes
from tace_al.engines.sampling.fake import FakeSampler


def test_chunks_repeat_by_seed_and_fit_into_a_frame_file() -> None:
    atoms = molecule("H2O")
    atoms.set_constraint(FixAtoms(indices=[0]))
    chunk = FakeSampler(seed=3).run(atoms)
    again = FakeSampler(seed=3).run(atoms)
    back = frames_from_bytes(frames_to_bytes(chunk.frames))
    for frame, other, read in zip(chunk.frames, again.frames, back, strict=True):
        assert np.array_equal(frame.positions, other.positions)
        assert np.array_equal(frame.positions, read.positions)
        assert np.array_equal(frame.positions[0], atoms.positions[0])
        assert read.info["verdict"] == "uncertain"


@pytest.mark.parametrize("outcome", ["known", "uncertain", "broken"])
def test_it_ends_as_it_is_told(outcome: str) -> None:
    chunk = FakeSampler(outcome=outcome).run(molecule("H2O"))  # type: ignore[arg-type]
    assert chunk.outcome == outcome
    assert len(chunk.known) == (3 if outcome == "known" else 0)
