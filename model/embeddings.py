"""Universal embeddings: how conditions beyond positions and elements enter the network.

Invariant conditions add to the l = 0 node embedding before the first layer, an electric field adds
to the l = 1 part of the message before the product in every layer (arXiv 2509.14961):

    h_i   <- h_i + sum_conditions e(x_i)
    m_i^1 <- m_i^1 + w[Z_i, channel] E_i

Integers (total charge, spin multiplicity) and fidelities are looked up in tables, real numbers go
through a small network. Magnetic moments and fields are in `tace_al.model.magnetism`.

A condition may be absent for any atom, written NaN (a fidelity: a negative index), and then adds
exactly zero, so structures with and without it share a batch. NaN is replaced by a finite stand-in
before any arithmetic: behind a mask it would still poison gradients. Tables and last layers start
at zero: adding an embedding to a trained network changes none of its numbers.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tace_al.core.errors import ModelError, nearest_names
from tace_al.model.cartesian import split_degrees
from tace_al.model.radial import SILU_GAIN

HIDDEN_WIDTH = 32
TEMPERATURE_UNIT = 1000.0
"""Kelvin; electronic temperatures in use are a few hundred to some ten thousand."""


class IntegerRange(NamedTuple):
    """The values a table knows, both ends included."""

    lowest: int
    highest: int


INTEGERS = {"total_charge": IntegerRange(-20, 20), "spin_multiplicity": IntegerRange(1, 21)}
"""Conditions that are looked up, with the values that have a row."""

REALS = ("electronic_temperature", "initial_charges", "collinear_moments")
"""Conditions that go through a small network."""

FIDELITY = "fidelity"
INVARIANTS = (FIDELITY, *INTEGERS, *REALS)
"""Every name `InvariantEmbeddings` accepts."""


def check_conditions(conditions: Mapping[str, Tensor]) -> None:
    """Refuse values that no embedding can mean; NaN (absent) passes.

    Reads values, so it is called where a batch is made and not inside a traced function.

    Raises
    ------
    ModelError
        A value is infinite, a charge or multiplicity is not an integer or has no row in its table,
        or a temperature is negative.
    """
    for name, values in conditions.items():
        given = values[~torch.isnan(values)]
        if bool(torch.isinf(given).any()):
            raise ModelError(
                f"{name} is infinite for some atoms; give a finite value, or NaN for 'absent'"
            )
        if name in INTEGERS:
            lowest, highest = INTEGERS[name]
            wrong = (given != given.round()) | (given < lowest) | (given > highest)
            if bool(wrong.any()):
                raise ModelError(
                    f"{name} {given[wrong][0].item():g} is not an integer from {lowest} to "
                    f"{highest}, the values this model can look up; correct it or leave it out"
                )
        if name == "electronic_temperature" and bool((given < 0).any()):
            raise ModelError(
                f"electronic_temperature {given.min().item():g} K is negative; give it in kelvin"
            )


@final
class InvariantEmbeddings(nn.Module):
    """What invariant conditions add to the l = 0 node embedding.

    Parameters
    ----------
    names
        Conditions to embed, from `INVARIANTS`.
    channels
        Channels of the node embedding.
    heads
        Names of the fidelities; read only with "fidelity".
    width
        Hidden width of the networks.
    activation
        "silu" passes the sum of all contributions through SiLU (zero stays zero).
    """

    def __init__(
        self,
        names: Sequence[str],
        channels: int,
        heads: Sequence[str] = (),
        *,
        width: int = HIDDEN_WIDTH,
        activation: str = "none",
    ) -> None:
        super().__init__()
        self.activation = activation
        for name in names:
            if name not in INVARIANTS:
                raise ModelError(
                    f"'{name}' is not an invariant embedding.{nearest_names(name, INVARIANTS)}"
                )
        if FIDELITY in names and not heads:
            raise ModelError("a fidelity embedding needs the names of the heads; give at least one")
        self.names = tuple(dict.fromkeys(names))
        self.tables = nn.ParameterDict(
            {
                name: nn.Parameter(torch.zeros(highest - lowest + 1, channels))
                for name, (lowest, highest) in INTEGERS.items()
                if name in self.names
            }
        )
        self.networks = nn.ModuleDict(
            {name: ScalarNetwork(channels, width) for name in REALS if name in self.names}
        )
        # one vector a head, by name: heads come and go without touching one another's
        self.levels = nn.ParameterDict(
            {head: nn.Parameter(torch.zeros(channels)) for head in heads if FIDELITY in self.names}
        )

    def forward(
        self,
        scalars: Float[Tensor, "atoms channels"],
        conditions: Mapping[str, Float[Tensor, "atoms ..."]],
        *,
        heads: Sequence[str] = (),
        head_index: Int[Tensor, " atoms"] | None = None,
    ) -> Float[Tensor, "atoms channels"]:
        """Return the node embedding with the conditions' embeddings added.

        Parameters
        ----------
        scalars
            Node embedding before.
        conditions
            Value of each condition at each atom (that of its structure), NaN where absent; others
            than `names` are ignored.
        heads
            Names of the heads that read the batch; read only with "fidelity".
        head_index
            Place in `heads` of each atom's head, negative where absent; None if there is only one.
        """
        for name in self.names:
            if name != FIDELITY and name not in conditions:
                raise ModelError(
                    f"the embedding {name} was given nothing to read; pass NaN where it is absent"
                )
        added = torch.zeros_like(scalars)
        for name in self.tables:
            added = added + self._looked_up(name, conditions[name])
        for name, network in self.networks.items():
            absent = torch.isnan(conditions[name])
            finite = torch.where(absent, torch.zeros_like(conditions[name]), conditions[name])
            added = added + network(in_network_units(name, finite), absent)
        if FIDELITY in self.names:
            added = added + self._level(heads, head_index)
        return scalars + (nn.functional.silu(added) if self.activation == "silu" else added)

    def _level(self, heads: Sequence[str], head_index: Tensor | None) -> Tensor:
        """Return the vector of each atom's fidelity; one row if all have the same."""
        unknown = [head for head in heads if head not in self.levels]
        if unknown or not heads or (head_index is None and len(heads) > 1):
            raise ModelError(
                f"the fidelity embedding knows {', '.join(self.levels)} and was to read "
                f"{', '.join(heads) or 'none'}; name heads it has, and each atom's if they differ"
            )
        levels = torch.stack([self.levels[head] for head in heads])
        if head_index is None:
            return levels
        known = levels.index_select(0, head_index.clamp(min=0))
        return torch.where((head_index < 0).unsqueeze(1), torch.zeros_like(known), known)

    def _looked_up(self, name: str, values: Tensor) -> Tensor:
        """Return the row of each integer; `check_conditions` has refused those without one."""
        lowest, highest = INTEGERS[name]
        absent = torch.isnan(values)
        integers = torch.where(absent, torch.full_like(values, lowest), values).round().long()
        row = integers.clamp(lowest, highest) - lowest
        found = self.tables[name].index_select(0, row)
        return torch.where(absent.unsqueeze(1), torch.zeros_like(found), found)


@final
class ScalarNetwork(nn.Module):
    """x -> W2 SiLU(w1 x + b), added where x is present; W2 starts at zero."""

    def __init__(self, channels: int, width: int = HIDDEN_WIDTH) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(width))
        self.bias = nn.Parameter(torch.randn(width))
        self.last = nn.Parameter(torch.zeros(width, channels))

    def forward(
        self, values: Float[Tensor, " atoms"], absent: Bool[Tensor, " atoms"]
    ) -> Float[Tensor, "atoms channels"]:
        """Return the contribution of finite values of order one; zero where absent."""
        hidden = nn.functional.silu(values.unsqueeze(1) * self.first + self.bias)
        result = hidden @ (self.last * (SILU_GAIN / math.sqrt(self.last.shape[0])))
        return torch.where(absent.unsqueeze(1), torch.zeros_like(result), result)


def in_network_units(name: str, values: Float[Tensor, " atoms"]) -> Float[Tensor, " atoms"]:
    """Return a condition as a number of order one, smooth everywhere.

    A collinear moment enters by sqrt(1 + m^2) - 1: even in m, without the kink of |m| at zero.
    """
    if name == "electronic_temperature":
        return values / TEMPERATURE_UNIT
    if name == "collinear_moments":
        return torch.sqrt(1.0 + values * values) - 1.0
    return values


@final
class ElectricFieldEmbedding(nn.Module):
    """A homogeneous electric field in the l = 1 part of the message.

    The energy is a polynomial of the field, smooth at zero: dipole -dE/dfield, polarisability and
    Born charges follow by differentiation there. The weights start at random, since with zeros the
    polarisability, quadratic in them, could not begin to learn; without a field nothing changes.
    """

    def __init__(self, channels: int, num_species: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_species, channels))

    def forward(
        self,
        message: Float[Tensor, "atoms components channels"],
        field: Float[Tensor, "atoms 3"],
        species: Int[Tensor, " atoms"],
    ) -> Float[Tensor, "atoms components channels"]:
        """Return the message with the field (V/Angstrom, x y z; NaN: none) added to degree 1."""
        if message.shape[1] < 4:
            raise ModelError("an electric field needs messages of degree 1; use l_edge >= 1")
        weight = self.weight.index_select(0, species)
        added = packed_vectors(field).unsqueeze(2) * weight.unsqueeze(1)  # (atoms, 3, channels)
        return add_to_degrees(message, {1: added})


def packed_vectors(vectors: Float[Tensor, "atoms 3"]) -> Float[Tensor, "atoms 3"]:
    """Return vectors (x, y, z) packed as degree 1, (y, z, x); zero where any component is NaN."""
    absent = torch.isnan(vectors).any(dim=1, keepdim=True)
    finite = torch.where(absent, torch.zeros_like(vectors), vectors)
    return torch.cat([finite[:, 1:], finite[:, :1]], dim=1)


def add_to_degrees(
    message: Float[Tensor, "atoms components channels"], added: Mapping[int, Tensor]
) -> Float[Tensor, "atoms components channels"]:
    """Return the message with (atoms, 2l + 1, channels) added to each degree l that is named."""
    degrees = list(split_degrees(message))
    for l, part in added.items():
        degrees[l] = degrees[l] + part
    return torch.cat(degrees, dim=1)
