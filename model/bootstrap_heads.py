"""Heads that learn from bootstrap samples of one data set: the members of a `HeadCommittee`.

Each head draws as many structures as there are, with replacement, and learns from those it drew:
1 - 1/e = 63 % of them, each once (Breiman 1996, doi:10.1007/BF00058655; drawing one twice would
only change its weight). So two readouts of one trunk differ where the data leave them free to.
"""

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from tace_al.core.errors import ConfigError
from tace_al.core.random_generators import random_generator
from tace_al.data.extxyz import is_isolated_atom
from tace_al.model.labelled_batch import HEAD

MEMBER = "member"


def member_heads(count: int) -> tuple[str, ...]:
    """Return the names of the heads of a committee.

    >>> member_heads(2)
    ('member-0', 'member-1')
    """
    if count < 2:
        raise ConfigError(f"a committee of {count} has nothing to disagree on; ask for 2 or more")
    return tuple(f"{MEMBER}-{index}" for index in range(count))


def bootstrap_heads(frames: Sequence[Atoms], heads: Sequence[str], *, seed: int) -> list[Atoms]:
    """Return a copy of each frame for every head whose sample holds it, marked by `info["head"]`.

    Frames lie head after head. One that no sample holds goes to a head drawn by lot, for a label is
    dear; isolated atoms, which fix E0, go to all heads. What a head draws depends on the seed, its
    name and the number of frames, not on the other heads.

    Parameters
    ----------
    frames
        Labelled structures of one level of theory, in an order that does not change.
    heads
        Names of the heads.
    seed
        Of the draws.
    """
    bonded = [index for index, atoms in enumerate(frames) if not is_isolated_atom(atoms)]
    held = np.zeros((len(heads), len(frames)), dtype=bool)
    for sample, name in zip(held, heads, strict=True):
        generator = random_generator(seed, "bootstrap heads", name)
        sample[generator.choice(bonded, size=len(bonded)) if bonded else []] = True
    lots = random_generator(seed, "bootstrap heads").integers(len(heads), size=len(frames))
    for index in bonded:
        if not held[:, index].any():
            held[lots[index], index] = True
    held[:, np.setdiff1d(np.arange(len(frames)), bonded)] = True
    return [
        _of_head(atoms, name)
        for name, sample in zip(heads, held, strict=True)
        for atoms, is_held in zip(frames, sample, strict=True)
        if is_held
    ]


def in_every_head(frames: Sequence[Atoms], heads: Sequence[str]) -> list[Atoms]:
    """Return a copy of each frame for every head: held-out structures, seen by none."""
    return [_of_head(atoms, name) for atoms in frames for name in heads]


def _of_head(atoms: Atoms, name: str) -> Atoms:
    """Return a copy marked with a head; labels lie in `info` and `arrays`, which are copied."""
    copy = atoms.copy()
    copy.info[HEAD] = name
    return copy
