"""What an engine is asked to do, in words that every environment understands."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from ase import Atoms

Kind = Literal[
    "single",  # one structure through the ASE calculator: energy and forces
    "loop",  # many structures through it, one after the other
    "batch",  # many structures in one call
    "committee",  # energy and forces of every one of four members
    "heads",  # energy and its spread over four heads of one trunk, and the mean forces
    "head forces",  # the same with the forces of every head
    "training",  # one step of the optimiser on a fixed batch
    "graph",  # the part of "single" that finds neighbours and builds the graph
]
MEMBERS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One thing to measure.

    Parameters
    ----------
    kind
        See `Kind`.
    elements
        Symbols the model knows.
    dtype
        "float32" or "float64".
    device
        "cpu" or "cuda".
    preset
        Shape of our own model; the others have one that corresponds to "small".
    """

    kind: Kind
    elements: tuple[str, ...]
    dtype: str = "float32"
    device: str = "cpu"
    preset: str = "small"


class NotOffered(Exception):
    """The engine has no such thing."""


Call = Callable[[Sequence[Atoms]], float]
"""What a prepared task does with new frames; the number is an energy or a loss, or for "graph" the
share of the call in percent."""
