"""The interface of a sampler, and what one chunk of sampling brings home.

A walker's trajectory is made of chunks. Each frame's uncertainty is the largest calibrated force
error bar of its atoms, u = scale * max_a s_a, with s_a the committee's force spread and `scale` its
conformal calibration. Two thresholds split it: below `low` known, below `high` uncertain (worth a
label), above broken (too far out to be worth one). A chunk ends early when it has gathered enough
or when something breaks.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from ase import Atoms

from tace_al.core.errors import ConfigError
from tace_al.data.frames import bare_copy
from tace_al.model.prediction import Prediction

Outcome = Literal["known", "uncertain", "broken"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Thresholds:
    """The two-sided band of uncertainty; known < low <= uncertain < high <= broken.

    Parameters
    ----------
    low, high
        Force error bars in eV/A.
    scale
        Calibration: error bar = scale * force spread.
    """

    low: float
    high: float
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a band that is empty or upside down."""
        if not (0.0 <= self.low < self.high and self.scale > 0.0):
            raise ConfigError(
                f"thresholds low = {self.low}, high = {self.high} eV/A, scale = {self.scale} make "
                "no band; give 0 <= low < high and a positive scale"
            )

    def uncertainty(self, prediction: Prediction) -> float:
        """Return the largest force error bar of a structure's atoms in eV/A."""
        return self.scale * float(prediction.force_spread.max(initial=0.0))

    def outcome(self, uncertainty: float) -> Outcome:
        """Return the side of the band an uncertainty falls on; not a number is broken."""
        if uncertainty < self.low:
            return "known"
        return "uncertain" if uncertainty < self.high else "broken"


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """What one chunk of sampling brings home.

    Parameters
    ----------
    frames
        Frames kept, as `predicted_frame` makes them, with `step`, `time_fs`, `temperature` and
        `verdict` ("known" or "uncertain") in `info`: every uncertain frame gathered and some known
        ones for audits. A broken frame is never among them.
    outcome
        "broken" when the chunk was stopped by a broken frame, else "uncertain" when it gathered
        uncertain frames, else "known".
    reason
        One clause on why the chunk ended.
    steps
        Steps whose frames are good.
    final
        The last good frame with its momenta, where the next chunk starts.
    max_uncertainty
        Largest force error bar seen, in eV/A, the broken frame's included.
    observables
        What was measured on the way, by name: plain numbers, texts and lists that JSON holds. A
        campaign keeps them with the chunk; targets may be estimated from them.
    state
        Arrays that the walker's next chunk takes up (the hills of a bias, a place on a ramp).
    """

    frames: tuple[Atoms, ...]
    outcome: Outcome
    reason: str
    steps: int
    final: Atoms
    max_uncertainty: float
    observables: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def uncertain(self) -> tuple[Atoms, ...]:
        """The frames worth a label."""
        return tuple(atoms for atoms in self.frames if atoms.info["verdict"] == "uncertain")

    @property
    def known(self) -> tuple[Atoms, ...]:
        """The frames for audits."""
        return tuple(atoms for atoms in self.frames if atoms.info["verdict"] == "known")


class Sampler(ABC):
    """Explores from a structure and brings home a chunk."""

    @abstractmethod
    def run(self, atoms: Atoms) -> Chunk:
        """Return one chunk that starts from `atoms`, which is left as it is."""

    def go_on(self, atoms: Atoms, state: Mapping[str, np.ndarray]) -> Chunk:
        """Return the chunk that takes up where the one before ended.

        Parameters
        ----------
        atoms, state
            `final` and `state` of that chunk. A sampler without a state of its own just runs.
        """
        return self.run(atoms)


def predicted_frame(
    atoms: Atoms, prediction: Prediction, thresholds: Thresholds | None = None
) -> Atoms:
    """Return the bare structure with what the committee says about it.

    Parameters
    ----------
    thresholds
        Gives `uncertainty` its calibration; without them the scale is 1.

    Returns
    -------
    Atoms
        `info`: energy, energy_spread (eV), uncertainty (eV/A). Arrays: forces (atoms, 3),
        force_spread (atoms,), in eV/A.
    """
    frame = bare_copy(atoms)
    spread = prediction.force_spread
    scale = 1.0 if thresholds is None else thresholds.scale
    frame.info["energy"] = prediction.energy
    frame.info["energy_spread"] = prediction.energy_spread
    frame.info["uncertainty"] = scale * float(spread.max(initial=0.0))
    frame.set_array("forces", np.array(prediction.forces, dtype=float))
    frame.set_array("force_spread", np.array(spread, dtype=float))
    return frame
