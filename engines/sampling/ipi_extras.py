"""What a committee says about a structure, as the extras of i-PI: one JSON object a bead.

`committee_pot`, `committee_force` and `committee_virial` are i-PI's own names and in its units
(Hartree, Hartree/Bohr, Hartree): `<ffcommittee>` with `<parse_json>` reads them, rescales and
writes them, and reweights with them. Our own keys carry their units in their names and are plain
numbers and lists, so that `<trajectory> extras_component` and any script can read them:

    force_spread_ev_per_angstrom      [atoms] rms distance of the members' forces from their mean
    max_force_spread_ev_per_angstrom  its largest
    energy_ev, energy_spread_ev       mean and standard deviation of the members' energies

The virial's members are their mean: a committee's stress is only computed as a mean, so i-PI's
uncertainty of the pressure reads zero.
"""

import json
from typing import Literal

import numpy as np

from tace_al.core.units import BOHR, HARTREE
from tace_al.model.prediction import Prediction

ExtrasKind = Literal["full", "spread", "none"]
_DIGITS = 6  # of the spreads, which nobody knows better


def extras_text(prediction: Prediction, virial: np.ndarray, kind: ExtrasKind) -> str:
    """Return the extras of one structure.

    Parameters
    ----------
    virial
        (3, 3) of the mean, -dE/dstrain in eV.
    kind
        "full" has every member's forces, "spread" no forces, "none" is empty. A single model has
        the keys of the spread, all zero, and no committee.
    """
    if kind == "none":
        return ""
    num_members = len(prediction.member_energies)
    if num_members == 1:
        return _single(prediction)
    spread = prediction.force_spread
    content: dict[str, float | list[float] | list[list[float]]] = {
        "energy_ev": prediction.energy,
        "energy_spread_ev": prediction.energy_spread,
        "max_force_spread_ev_per_angstrom": float(spread.max(initial=0.0)),
        "force_spread_ev_per_angstrom": np.round(spread, _DIGITS).tolist(),
        "committee_pot": [float(one) / HARTREE for one in prediction.member_energies],
    }
    if kind == "full":
        forces = prediction.member_forces.reshape(num_members, -1) * (BOHR / HARTREE)
        content["committee_force"] = forces.tolist()
        content["committee_virial"] = [(virial.ravel() / HARTREE).tolist()] * num_members
    return json.dumps(content, allow_nan=False)


def _single(prediction: Prediction) -> str:
    """Return the extras of a model alone, which i-PI takes as one member of its own committee."""
    content = {
        "energy_ev": prediction.energy,
        "energy_spread_ev": 0.0,
        "max_force_spread_ev_per_angstrom": 0.0,
        "force_spread_ev_per_angstrom": [0.0] * len(prediction.forces),
    }
    return json.dumps(content, allow_nan=False)
