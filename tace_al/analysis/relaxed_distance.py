"""A distance between two atoms in the relaxed structure, with the committee's error bar.

The simplest target there is, and the pattern of every other: each member answers by itself from
its own relaxed geometry, the mean is the value, the scaled spread of the members its error bar.
"""

from typing import Any

import numpy as np

from tace_al.analysis.targets import TargetInputs
from tace_al.core.errors import ConfigError
from tace_al.engines.sampling.committee_potential import CommitteePotential
from tace_al.engines.sampling.relax import relax


def relaxed_distance(
    inputs: TargetInputs, *, first: int, second: int, fmax: float = 0.02
) -> dict[str, dict[str, Any]]:
    """Return the distance in every channel's first start, relaxed by each member.

    The error bar is the standard deviation over members (of a sample), times the calibration of
    forces: a displacement is a force over a force constant, which members hardly disagree about.

    Parameters
    ----------
    first, second
        Indices of the atoms.
    fmax
        Force threshold of the relaxation in eV/A.
    """
    found = {}
    for channel, starts in inputs.starts.items():
        if not 0 <= max(first, second) < len(starts[0]) or first == second:
            raise ConfigError(
                f"atoms {first} and {second} make no distance in '{channel}', which has "
                f"{len(starts[0])} atoms; number two different ones from 0"
            )
        distances = []
        for member in inputs.members():
            potential = CommitteePotential(member)
            final = relax(potential, starts[0], fmax=fmax).final
            distances.append(final.get_distance(first, second, mic=bool(final.pbc.any())))
        spread = float(np.std(distances, ddof=1)) if len(distances) > 1 else 0.0
        found[channel] = {
            "value": float(np.mean(distances)),
            "error_bar": inputs.force_scale * spread,
            "unit": "Å",
            "members": distances,
        }
    return found
