"""Bootstrap samples over heads: their share, their independence, and that no label is lost."""

from collections import Counter

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from tace_al.core.errors import ConfigError
from tace_al.model.bootstrap_heads import bootstrap_heads, in_every_head, member_heads
from tace_al.model.config import preset_config
from tace_al.model.head_committee import HeadCommittee
from tace_al.model.trainer import TrainingOptions, train


def labelled_waters(count: int, *, seed: int = 0) -> list[Atoms]:
    """Return distorted waters whose bonds are springs of 20 eV/A^2."""
    frames = []
    for index in range(count):
        atoms = molecule("H2O")
        atoms.rattle(0.08, seed=seed + index)
        bonds = atoms.positions[1:] - atoms.positions[0]
        lengths = np.linalg.norm(bonds, axis=1, keepdims=True)
        pulls = -20.0 * (lengths - 0.97) * bonds / lengths
        atoms.info |= {"number": index, "REF_energy": float(10.0 * ((lengths - 0.97) ** 2).sum())}
        atoms.set_array("REF_forces", np.concatenate([-pulls.sum(axis=0, keepdims=True), pulls]))
        frames.append(atoms)
    return frames


def numbers(frames: list[Atoms], head: str) -> list[int]:
    return [atoms.info["number"] for atoms in frames if atoms.info["head"] == head]


def test_every_head_holds_what_a_bootstrap_draws() -> None:
    """63.2 % of 600 structures, within four standard deviations (sqrt(n e^-1 (1 - 2/e)))."""
    frames, heads = labelled_waters(600), member_heads(4)
    sampled = bootstrap_heads(frames, heads, seed=1)
    deviation = np.sqrt(600 * np.exp(-1) * (1 - 2 * np.exp(-1)))
    for head in heads:
        own = numbers(sampled, head)
        assert len(set(own)) == len(own), "each structure once"
        assert abs(len(own) - 600 * (1 - np.exp(-1))) < 4 * deviation + 600 * np.exp(-4) / 4
    first, second = set(numbers(sampled, heads[0])), set(numbers(sampled, heads[1]))
    assert 0.3 < len(first & second) / 600 < 0.5, "independent samples share 40 %"
    holders = Counter(atoms.info["number"] for atoms in sampled)
    assert len(holders) == 600, "a structure in no sample is still learned by one head"


def test_samples_follow_the_seed_and_the_name_alone() -> None:
    frames = labelled_waters(50)
    few, many = (bootstrap_heads(frames, member_heads(count), seed=3) for count in (2, 2))
    assert [a.info for a in few] == [a.info for a in many]
    other = bootstrap_heads(frames, member_heads(2), seed=4)
    assert [a.info for a in few] != [a.info for a in other]


def test_isolated_atoms_belong_to_all_heads() -> None:
    atom = Atoms("H", info={"REF_energy": -1.0, "number": -1})
    sampled = bootstrap_heads([atom, *labelled_waters(5)], member_heads(3), seed=0)
    assert all(-1 in numbers(sampled, head) for head in member_heads(3))
    assert len(bootstrap_heads([atom], member_heads(3), seed=0)) == 3


def test_frames_are_copied_with_their_labels() -> None:
    frames = labelled_waters(5)
    for atoms in bootstrap_heads(frames, member_heads(2), seed=0):
        original = frames[atoms.info["number"]]
        assert atoms is not original and "head" not in original.info
        assert atoms.info["REF_energy"] == original.info["REF_energy"]
        assert np.array_equal(atoms.arrays["REF_forces"], original.arrays["REF_forces"])


def test_held_out_frames_are_asked_of_every_head() -> None:
    copies = in_every_head(labelled_waters(3), member_heads(2))
    assert [atoms.info["head"] for atoms in copies] == [*member_heads(2)] * 3


def test_one_member_is_no_committee() -> None:
    with pytest.raises(ConfigError, match="ask for 2 or more"):
        member_heads(1)


@pytest.mark.slow
def test_members_disagree_on_compressed_bonds() -> None:
    """Where bonds are shorter than any learned, forces spread several times as far.

    Longer ones are no such test: heads of one trunk hardly notice them (docs/theory/committees.md).
    """
    heads = member_heads(3)
    config = preset_config("tiny", elements=["H", "O"], channels=8, heads=heads)
    sampled = bootstrap_heads(labelled_waters(30), heads, seed=0)
    held_out = in_every_head(labelled_waters(5, seed=500), heads)
    model = train(
        sampled, held_out, config=config, options=TrainingOptions(epochs=20, learning_rate=0.01)
    ).model
    committee = HeadCommittee(model)
    known = labelled_waters(5, seed=900)
    strange = [atoms.copy() for atoms in known]
    for atoms in strange:
        atoms.set_distance(0, 1, 0.75, fix=0)
    spreads = [
        np.mean([prediction.force_spread.mean() for prediction in committee.predict(frames)])
        for frames in (known, strange)
    ]
    assert 0.0 < spreads[0] < 0.5 * spreads[1], spreads
