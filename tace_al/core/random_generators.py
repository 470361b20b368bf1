"""Named random generators: the same seed and name always give the same stream.

No module draws from a global generator, so a resumed campaign repeats its choices.
"""

import hashlib

import numpy as np


def random_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for the stream called `names` under `seed`."""
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def random_generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return the generator called `names` under `seed`.

    >>> a, b = random_generator(0, "md", 3), random_generator(0, "md", 3)
    >>> bool(a.random() == b.random())
    True
    """
    return np.random.default_rng(random_seed(seed, *names))
