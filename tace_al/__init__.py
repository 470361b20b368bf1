"""tace-al: active learning and molecular dynamics with committees of TACE potentials.

>>> from tace_al import Tace
>>> Tace.from_preset("small", elements=["H", "C", "O"], seed=0).num_parameters
106896
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tace_al.model.calculator import CommitteeCalculator, TaceCalculator
    from tace_al.model.checkpoint import load, save
    from tace_al.model.committee import Committee
    from tace_al.model.tace import Tace

__version__ = version("tace-al")

_HOMES = {
    "CommitteeCalculator": "tace_al.model.calculator",
    "TaceCalculator": "tace_al.model.calculator",
    "load": "tace_al.model.checkpoint",
    "save": "tace_al.model.checkpoint",
    "Committee": "tace_al.model.committee",
    "Tace": "tace_al.model.tace",
}

__all__ = ["Committee", "CommitteeCalculator", "Tace", "TaceCalculator", "load", "save"]


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that `tace-al --help` does not wait for torch."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tace_al' has no attribute '{name}'")
