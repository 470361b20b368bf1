"""The shape of a network: everything needed to rebuild it, stored in every checkpoint."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from ase.data import atomic_numbers

from tace_al.core.errors import ConfigError, nearest_names

Dtype = Literal["float32", "float64"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TaceConfig:
    """Hyperparameters of a TACE network.

    Parameters
    ----------
    elements
        Chemical symbols the model knows, sorted by atomic number.
    cutoff
        Angstrom.
    num_layers
        Interaction layers; the receptive field is num_layers * cutoff.
    channels
        Channels of every feature.
    l_edge
        Largest degree of harmonics and messages.
    l_hidden
        Largest degree passed from layer to layer.
    correlation
        nu: the product basis reaches body order nu + 1.
    num_bessel, radial_hidden
        Radial basis and widths of the radial network.
    average_neighbours
        <n>, measured on the training set, by which messages are divided.
    zbl
        Add screened nuclear repulsion at short range.
    heads
        Names of the levels of theory.
    dtype
        Arithmetic of the network; energies are always summed in float64.
    """

    elements: tuple[str, ...]
    cutoff: float = 5.0
    num_layers: int = 2
    channels: int = 64
    l_edge: int = 2
    l_hidden: int = 1
    correlation: int = 3
    num_bessel: int = 8
    radial_hidden: tuple[int, ...] = (64, 64, 64)
    average_neighbours: float = 10.0
    zbl: bool = True
    heads: tuple[str, ...] = ("default",)
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        """Check ranges and put the elements in order."""
        unknown = [symbol for symbol in self.elements if not atomic_numbers.get(symbol)]
        if unknown or not self.elements:
            raise ConfigError(
                f"elements {list(self.elements)} must be chemical symbols such as 'H' or 'Pt'"
            )
        ordered = tuple(sorted(set(self.elements), key=lambda symbol: atomic_numbers[symbol]))
        object.__setattr__(self, "elements", ordered)
        positive = ("cutoff", "num_layers", "channels", "correlation", "average_neighbours")
        for name in positive:
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be positive")
        if not 0 <= self.l_hidden <= self.l_edge <= 6:
            raise ConfigError(
                f"l_hidden = {self.l_hidden} and l_edge = {self.l_edge}: "
                "0 <= l_hidden <= l_edge <= 6 is needed"
            )
        if not self.heads or len(set(self.heads)) < len(self.heads) or "." in "".join(self.heads):
            raise ConfigError(
                f"heads = {list(self.heads)}: at least one name is needed, all different, "
                "without dots"
            )
        if self.dtype not in get_args(Dtype):
            raise ConfigError(f"dtype '{self.dtype}' is not one of {', '.join(get_args(Dtype))}")

    @property
    def numbers(self) -> list[int]:
        """Atomic numbers of the elements, ascending."""
        return [atomic_numbers[symbol] for symbol in self.elements]

    def to_dict(self) -> dict[str, Any]:
        """Return plain content for a header or a database."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "TaceConfig":
        """Rebuild a configuration; an unknown field is an error."""
        known = {field.name for field in fields(cls)}
        for name in content:
            if name not in known:
                raise ConfigError(f"unknown model option '{name}'.{nearest_names(name, known)}")
        tuples = {"elements", "radial_hidden", "heads"}
        arguments: dict[str, Any] = {
            name: tuple(value) if name in tuples else value for name, value in content.items()
        }
        return cls(**arguments)


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"channels": 32, "l_edge": 2, "l_hidden": 1, "radial_hidden": (32, 32)},
    "small": {"channels": 64, "l_edge": 2, "l_hidden": 1},
    "medium": {"channels": 128, "l_edge": 3, "l_hidden": 1},
    "large": {"channels": 128, "l_edge": 3, "l_hidden": 2},
}
"""Named shapes; anything else keeps the defaults of `TaceConfig`."""


def preset_config(name: str, **options: Any) -> TaceConfig:
    """Return the configuration of a preset with some options replaced.

    Raises
    ------
    ConfigError
        The preset or an option is unknown; the nearest valid name is given.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset '{name}'.{nearest_names(name, PRESETS)}")
    return TaceConfig.from_dict({**PRESETS[name], **options})
