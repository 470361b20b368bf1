"""Radial functions: a basis under a smooth cutoff, and the network that weights each path.

    bessel     b_n(r) = sqrt(2/r_c) sin(n pi r / r_c) / r,  n = 1..N    (arXiv 2003.03123, eq. 7)
    chebyshev  b_n(r) = T_n(2 r/r_c - 1),                   n = 0..N-1  (10.1103/PhysRevB.96.014112)
    gaussian   b_n(r) = exp(-(r - n w)^2 / (2 w^2)),        n = 0..N-1,  w = r_c / (N-1)

    f_c(r) = 1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2),  x = r/r_c
           = (1 - x)^3 sum_{k<p} (k+1)(k+2)/2 x^k             (arXiv 2003.03123, eq. 8)

With a decay d, Bessel functions are divided by n^d. Networks trained on all of them alike follow
short waves as readily as long ones, and bonds longer than any in the training set are then
predicted from ripples: short waves have to be learnt against their size.

Whatever p >= 3, f_c and its first two derivatives vanish at the cutoff. The weight network has no
biases and SiLU(0) = 0, so its output vanishes with the same smoothness.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, final, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tace_al.core.errors import ConfigError, nearest_names

RadialKind = Literal["bessel", "chebyshev", "gaussian"]

SILU_GAIN = 1.6790
"""1 / rms of SiLU(x) for x ~ N(0, 1): keeps the variance through a layer."""

BASIS_GAIN = 4.0
"""1 / rms of the Bessel basis over the edges of small molecules at a 5 Angstrom cutoff. Without it
first messages are so weak that the higher orders of the product hardly take part at the start of
training; 8 was measured to be too much."""

PAIR_CHANNELS = 16
"""Numbers that describe a species to the radial network."""


def polynomial_cutoff(r: Tensor, cutoff: float | Tensor, power: int = 5) -> Tensor:
    """Return f_c(r): 1 at r = 0, 0 from the cutoff on, twice continuously differentiable.

    Parameters
    ----------
    r
        Distances in Angstrom, any shape.
    cutoff
        Angstrom; a number or a tensor of r's shape.
    power
        The exponent p, at least 3; larger values keep the function near 1 for longer.
    """
    x = (r / cutoff).clamp(max=1.0)
    # written as powers of x the terms cancel near the cutoff: noise of 1e-6 in float32
    series = torch.full_like(x, power * (power + 1) / 2)
    for k in range(power - 2, -1, -1):
        series = series * x + (k + 1) * (k + 2) / 2
    return (1.0 - x) ** 3 * series


@final
class BesselBasis(nn.Module):
    """Bessel functions times the polynomial cutoff, shorter waves smaller where a decay is set."""

    def __init__(self, num_functions: int, cutoff: float, decay: float = 0.0) -> None:
        super().__init__()
        self.cutoff = cutoff
        n = torch.arange(1, num_functions + 1, dtype=torch.float64)
        self.register_buffer("frequencies", n * math.pi / cutoff, persistent=False)
        self.register_buffer("sizes", math.sqrt(2.0 / cutoff) * n**-decay, persistent=False)
        self.frequencies: Tensor
        self.sizes: Tensor

    def forward(
        self, r: Float[Tensor, "*members edges"], envelope: Float[Tensor, "*members edges"]
    ) -> Float[Tensor, "*members edges functions"]:
        """Return b_n(r) f_c(r) for distances in Angstrom and their envelope f_c(r)."""
        scaled = (envelope / r).unsqueeze(-1) * self.sizes
        return scaled * torch.sin(r.unsqueeze(-1) * self.frequencies)


@final
class ChebyshevBasis(nn.Module):
    """Chebyshev polynomials of 2 r/r_c - 1 times the polynomial cutoff."""

    def __init__(self, num_functions: int, cutoff: float) -> None:
        super().__init__()
        self.num_functions, self.cutoff = num_functions, cutoff
        self.gain = 1.0
        self.gain = _bessel_size(num_functions, cutoff) / _ball_size(self, cutoff)

    def forward(
        self, r: Float[Tensor, "*members edges"], envelope: Float[Tensor, "*members edges"]
    ) -> Float[Tensor, "*members edges functions"]:
        """Return b_n(r) f_c(r), as large as the Bessel basis in the mean over the ball."""
        x = 2.0 * (r / self.cutoff).clamp(max=1.0) - 1.0  # beyond the cutoff f_c = 0
        values = [torch.ones_like(x), x]
        while len(values) < self.num_functions:  # cos(n arccos x) has no derivative at the ends
            values.append(2.0 * x * values[-1] - values[-2])
        stacked = torch.stack(values[: self.num_functions], dim=-1)
        return stacked * (self.gain * envelope).unsqueeze(-1)


@final
class GaussianBasis(nn.Module):
    """Gaussians on an even grid from 0 to the cutoff, one spacing wide, times the cutoff."""

    def __init__(self, num_functions: int, cutoff: float) -> None:
        super().__init__()
        centres = torch.linspace(0.0, cutoff, num_functions, dtype=torch.float64)
        self.register_buffer("centres", centres, persistent=False)
        self.centres: Tensor
        self.width = cutoff / max(num_functions - 1, 1)
        self.gain = 1.0
        self.gain = _bessel_size(num_functions, cutoff) / _ball_size(self, cutoff)

    def forward(
        self, r: Float[Tensor, "*members edges"], envelope: Float[Tensor, "*members edges"]
    ) -> Float[Tensor, "*members edges functions"]:
        """Return b_n(r) f_c(r), as large as the Bessel basis in the mean over the ball."""
        x = (r.unsqueeze(-1) - self.centres) / self.width
        return torch.exp(-0.5 * x * x) * (self.gain * envelope).unsqueeze(-1)


RadialBasis = BesselBasis | ChebyshevBasis | GaussianBasis

_BASES: dict[RadialKind, type[RadialBasis]] = {
    "bessel": BesselBasis,
    "chebyshev": ChebyshevBasis,
    "gaussian": GaussianBasis,
}


def radial_basis(
    kind: str, num_functions: int, cutoff: float, *, decay: float = 0.0
) -> RadialBasis:
    """Return a basis by name; it is called as `basis(r, envelope)`.

    Parameters
    ----------
    kind
        "bessel", "chebyshev" or "gaussian".
    num_functions
        Functions, at least 1.
    cutoff
        Angstrom.
    decay
        Of Bessel functions with their number; the other kinds have none.

    Raises
    ------
    ConfigError
        The kind is unknown.

    >>> r = torch.tensor([1.0, 2.0])
    >>> radial_basis("chebyshev", 8, 5.0)(r, polynomial_cutoff(r, 5.0)).shape
    torch.Size([2, 8])
    """
    if kind not in _BASES:
        known = get_args(RadialKind)
        raise ConfigError(f"unknown radial basis '{kind}'.{nearest_names(kind, known)}")
    if kind == "bessel":
        return BesselBasis(num_functions, cutoff, decay)
    return _BASES[kind](num_functions, cutoff)


def _ball_size(basis: RadialBasis, cutoff: float) -> float:
    """Return the rms of a basis over points spread evenly in the ball of the cutoff."""
    r = cutoff * (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    squares = basis(r, polynomial_cutoff(r, cutoff)).square().mean(dim=1)
    return float((r**2 @ squares / (r**2).sum()).sqrt())


def _bessel_size(num_functions: int, cutoff: float) -> float:
    """Return the rms that every basis is given, so that BASIS_GAIN serves them all."""
    return _ball_size(BesselBasis(num_functions, cutoff), cutoff)


def species_pairs(
    species: Int[Tensor, " atoms"], sender: Int[Tensor, "atoms slots"], num_species: int
) -> Int[Tensor, " edges"]:
    """Return receiver species * num_species + sender species of each slot, row by row."""
    return (species.unsqueeze(1) * num_species + species[sender]).reshape(-1)


@final
class RadialNetwork(nn.Module):
    """Bias-free multilayer perceptron from radial functions to one weight per path and channel.

    With `num_species` the first layer knows the pair of species: each of its outputs is multiplied
    by 1 + g(Z_i, Z_j), g linear in learned embeddings of receiver, sender and their product. A
    multiple of a smooth function is as smooth: the weights vanish at the cutoff for every pair,
    which an embedding fed in beside the basis would spoil.
    """

    def __init__(
        self, num_inputs: int, hidden: Sequence[int], num_outputs: int, *, num_species: int = 0
    ) -> None:
        super().__init__()
        widths = [num_inputs, *hidden, num_outputs]
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(fan_in, fan_out)) for fan_in, fan_out in pairwise(widths)
        )
        self.num_species = num_species
        if num_species:
            self.species = nn.Parameter(torch.randn(2, num_species, PAIR_CHANNELS))
            self.modulation = nn.Parameter(torch.randn(3 * PAIR_CHANNELS, widths[1]))

    def forward(
        self,
        basis: Float[Tensor, "*members edges inputs"],
        pairs: Int[Tensor, " edges"] | None = None,
    ) -> Float[Tensor, "*members edges outputs"]:
        """Return the weights; zero where every input is zero.

        `pairs` (see `species_pairs`) is needed by a network that knows species, read by no other.
        """
        first, *others = self.weights
        hidden = basis @ (first * (BASIS_GAIN / math.sqrt(first.shape[-2])))
        if self.num_species:
            assert pairs is not None, "a species-dependent radial network needs `pairs`"
            hidden = hidden * self.pair_factors().index_select(0, pairs)
        for weight in others:
            gain = SILU_GAIN / math.sqrt(weight.shape[-2])
            hidden = nn.functional.silu(hidden) @ (weight * gain)
        return hidden

    def pair_factors(self) -> Float[Tensor, "pairs width"]:
        """Return 1 + g of every pair of species: a table, whatever the number of edges."""
        count = self.num_species
        receiver = self.species[0].unsqueeze(1).expand(count, count, PAIR_CHANNELS)
        sender = self.species[1].unsqueeze(0).expand(count, count, PAIR_CHANNELS)
        described = torch.cat([receiver, sender, receiver * sender], dim=2)
        factors = described @ (self.modulation / math.sqrt(3 * PAIR_CHANNELS))
        return 1.0 + 0.5 * factors.reshape(count * count, -1)
