"""The sticking probability of a beam as a target, with the committee's error bar.

Every member shoots its own projectiles. With P_m the share that stuck on member m of M, N decided
trajectories each, and P the share of all of them, the members differ by more than chance has it by

    s^2 = max(0, var_m P_m - P (1 - P) / N),

and the error bar is sqrt((c s)^2 + w^2), w Wilson's error of P over all M N trajectories and c the
calibration of forces, at least 1.
"""

from collections import Counter
from dataclasses import replace
from math import hypot, sqrt
from typing import Any

import numpy as np

from tace_al.analysis.targets import TargetInputs
from tace_al.core.errors import SamplerError
from tace_al.core.proportions import wilson_error
from tace_al.core.random_generators import random_seed
from tace_al.engines.sampling.beam import BeamSettings, Impact, flight_time
from tace_al.engines.sampling.beam_run import run_beam
from tace_al.engines.sampling.committee_potential import CommitteePotential

SKIN = 0.5
"""Angstrom, of the neighbour lists."""


def sticking_target(
    inputs: TargetInputs,
    *,
    projectile: str,
    energy_ev: float,
    angle: float = 0.0,
    temperature: float = 300.0,
    timestep_fs: float = 2.0,
    stick_fs: float = 1000.0,
    number: int = 40,
) -> dict[str, dict[str, Any]]:
    """Return the sticking probability on the first start structure of every channel.

    Parameters
    ----------
    projectile, energy_ev, angle, temperature, timestep_fs, stick_fs
        As `BeamSettings` takes them; a trajectory ends after six times flight and `stick_fs`.
    number
        Trajectories of all members together, at least one a member.
    """
    settings = BeamSettings(
        projectile=projectile,
        energy_ev=energy_ev,
        angle=angle,
        temperature=temperature,
        timestep_fs=timestep_fs,
        stick_fs=stick_fs,
    )
    longest = 6.0 * (flight_time(settings) + stick_fs)
    settings = replace(settings, steps=max(1, round(longest / timestep_fs)))
    members = inputs.members()
    each = max(1, round(number / len(members)))
    found = {}
    for channel, starts in inputs.starts.items():
        impacts: list[list[Impact]] = []
        for index, member in enumerate(members):
            batches = run_beam(
                CommitteePotential(member, skin=SKIN),
                starts[0],
                settings,
                number=each,
                seed=random_seed(inputs.seed, channel, index),
            )
            impacts.append([impact for batch in batches for impact in batch])
        found[channel] = sticking_of_members(impacts, force_scale=inputs.force_scale)
    return found


def sticking_of_members(impacts: list[list[Impact]], *, force_scale: float) -> dict[str, Any]:
    """Return the sticking probability of what every member's trajectories came to.

    Raises
    ------
    SamplerError
        Some member has no decided trajectory.
    """
    stuck, decided = [], []
    for own in impacts:
        counts = Counter(impact.verdict for impact in own)
        stuck.append(counts["stuck"] + counts["penetrated"])
        decided.append(len(own) - counts["undecided"] - counts["broken"])
    if min(decided) == 0:
        raise SamplerError(
            "a member of the committee decided no trajectory; give more steps, or more labels"
        )
    shares = np.array(stuck) / np.array(decided)
    together = sum(stuck) / sum(decided)
    by_chance = together * (1.0 - together) / float(np.mean(decided))
    between = float(shares.var(ddof=1)) if len(shares) > 1 else 0.0
    spread = sqrt(max(0.0, between - by_chance))
    verdicts = Counter(impact.verdict for own in impacts for impact in own)
    return {
        "value": together,
        "error_bar": hypot(max(force_scale, 1.0) * spread, wilson_error(sum(stuck), sum(decided))),
        "unit": "",
        "members": shares.tolist(),
        "verdicts": dict(verdicts),
    }
