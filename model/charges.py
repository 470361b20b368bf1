"""Atomic charges from invariant features, and the dipole and Born charges that follow from them.

Three ways to a charge, named by what is imposed on their sum Q:

    equilibrated  q_i = (lambda - chi_i) / eta_i,  lambda = (Q + sum chi/eta) / sum(1/eta):
                  the minimum of sum_i chi_i q_i + eta_i q_i^2 / 2 at fixed charge (Rappe and
                  Goddard, 10.1021/j100161a070)
    uniform       q_i = c_i + (Q - sum c) / N
    free          q_i = c_i, the latent charges of arXiv 2408.15165

chi, eta and c come from a readout like the energy's. What an environment adds passes the smooth
site gate of `model.head`, so that an isolated atom has charge 0 when free and Q otherwise.

Born charges Z_i,ab = dP_a / dr_i,b of these charges are

    Z_i = q_i 1 + sum_j (r_j - r_i) (x) dq_j/dr_i

where along a periodic direction of fractional coordinate f the displacement f_j - f_i becomes
sum_n c_n sin(2 pi n (f_j - f_i)) / (2 pi): independent of wrapping, and right up to displacements
that grow with the number of harmonics. One harmonic is the formula of arXiv 2504.05169, Re[e^{-ikr}
dP(k)/dr], which underestimates x = f_j - f_i by 6 % at 0.1 and by 36 % at 0.25; three err by 0.04 %
and 7 %.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tace_al.model.head import READOUT_START, READOUT_WIDTH, smooth_gate
from tace_al.model.radial import SILU_GAIN

ChargeConstraint = Literal["equilibrated", "uniform", "free"]
SOFTEST = 0.05
"""eV/e^2, in units of the initial hardness: a softer atom would take any charge for nothing."""
HARDNESS_UNIT = 10.0
"""eV/e^2: atoms have 5 (alkali metals) to 17 (fluorine)."""


def _sum_over_atoms(values: Tensor, system_index: Tensor, num_systems: int) -> Tensor:
    """Return the sums of per-atom values over the atoms of each structure."""
    zero = torch.zeros(num_systems, *values.shape[1:], dtype=values.dtype, device=values.device)
    return zero.index_add(0, system_index, values)


def equilibrated_charges(
    electronegativity: Float[Tensor, " atoms"],
    hardness: Float[Tensor, " atoms"],
    *,
    total_charge: Float[Tensor, " systems"],
    system_index: Int[Tensor, " atoms"],
) -> Float[Tensor, " atoms"]:
    """Return the charges (e) of equal chemical potential that sum to the total charge.

    Parameters
    ----------
    electronegativity
        chi in eV/e.
    hardness
        eta in eV/e^2, positive.
    total_charge
        Q of each structure in e.
    system_index
        Structure of each atom, in any order.
    """
    softness = 1.0 / hardness
    share = softness / _sum_over_atoms(softness, system_index, len(total_charge))[system_index]
    pulled = electronegativity * softness
    sums = _sum_over_atoms(pulled, system_index, len(total_charge))
    charges = share * (total_charge + sums)[system_index] - pulled
    # what rounding leaves is zero as a function, hence detached
    missing = total_charge - _sum_over_atoms(charges, system_index, len(total_charge))
    return charges + (share * missing[system_index]).detach()


def uniformly_corrected_charges(
    latent: Float[Tensor, " atoms"],
    *,
    total_charge: Float[Tensor, " systems"],
    system_index: Int[Tensor, " atoms"],
) -> Float[Tensor, " atoms"]:
    """Return latent charges (e) shifted by one number a structure, so that they sum to Q."""
    return equilibrated_charges(
        -latent,
        torch.ones_like(latent),
        total_charge=total_charge,
        system_index=system_index,
    )


@final
class ChargeReadout(nn.Module):
    """Charges of the atoms from the invariant features of every layer."""

    def __init__(
        self, *, channels: Sequence[int], num_species: int, constraint: ChargeConstraint
    ) -> None:
        """Make an untrained readout; `channels` are those of each layer."""
        super().__init__()
        self.constraint = constraint
        num_outputs = 2 if constraint == "equilibrated" else 1
        self.linear = nn.ParameterList(
            nn.Parameter(READOUT_START * torch.randn(width, num_outputs)) for width in channels[:-1]
        )
        self.hidden = nn.Parameter(torch.randn(channels[-1], READOUT_WIDTH))
        self.out = nn.Parameter(READOUT_START * torch.randn(READOUT_WIDTH, num_outputs))
        self.species_value = nn.Parameter(torch.zeros(num_species, num_outputs))

    def forward(
        self,
        layer_scalars: Sequence[Float[Tensor, "atoms _"]],
        species: Int[Tensor, " atoms"],
        *,
        coordination: Float[Tensor, " atoms"],
        total_charge: Float[Tensor, " systems"],
        system_index: Int[Tensor, " atoms"],
    ) -> Float[Tensor, " atoms"]:
        """Return charges in e, float64.

        `coordination` is the sum of the cutoff function over the neighbours of each atom. A total
        charge that is NaN (unknown) counts as zero; free charges do not read it.
        """
        hidden = layer_scalars[-1] @ (self.hidden / math.sqrt(self.hidden.shape[0]))
        gain = SILU_GAIN / math.sqrt(READOUT_WIDTH)
        raw = nn.functional.silu(hidden) @ (self.out * gain)
        for scalars, weight in zip(layer_scalars[:-1], self.linear, strict=True):
            raw = raw + scalars @ (weight / math.sqrt(weight.shape[0]))
        raw = (raw + self.species_value.index_select(0, species)).double()
        gate = smooth_gate(coordination.double())
        latent = gate * raw[:, 0]
        if self.constraint == "free":
            return latent
        total = torch.nan_to_num(total_charge.double(), nan=0.0)
        if self.constraint == "uniform":
            return uniformly_corrected_charges(
                latent, total_charge=total, system_index=system_index
            )
        # softplus(x + ln(e - 1)) = 1 at x = 0: an untrained atom has the unit of hardness
        start = math.log(math.expm1(1.0))
        softplus = nn.functional.softplus(gate * raw[:, 1] + start)
        return equilibrated_charges(
            -HARDNESS_UNIT * latent,
            HARDNESS_UNIT * (SOFTEST + softplus),
            total_charge=total,
            system_index=system_index,
        )


def dipole_moments(
    charges: Float[Tensor, " atoms"],
    positions: Float[Tensor, "atoms 3"],
    *,
    cells: Float[Tensor, "systems 3 3"],
    pbc: Bool[Tensor, "systems 3"],
    system_index: Int[Tensor, " atoms"],
    weights: Float[Tensor, " atoms"] | None = None,
) -> Float[Tensor, "systems 3"]:
    """Return the dipole sum_i q_i (r_i - origin) of each structure in e Angstrom.

    The origin matters for charged structures only. It is the mean position, or the weighted mean
    for `weights` (masses for the centre of mass, atomic numbers for that of the nuclear charge).
    A slab has only the part along its normal. NaN for other periodic structures, whose dipole is
    defined up to a quantum: use `born_charges`.
    """
    num_systems = len(cells)
    weights = torch.ones_like(charges) if weights is None else weights.to(charges.dtype)
    weights = weights / _sum_over_atoms(weights, system_index, num_systems)[system_index]
    origin = _sum_over_atoms(weights.unsqueeze(1) * positions, system_index, num_systems)
    arm = positions - origin[system_index]
    dipole = _sum_over_atoms(charges.unsqueeze(1) * arm, system_index, num_systems)
    directions = pbc.sum(dim=1)
    first = torch.where(pbc[:, :1], cells[:, 0], cells[:, 1])
    second = torch.where(pbc[:, 2:], cells[:, 2], cells[:, 1])
    slab = (directions == 2).unsqueeze(1)
    axis = torch.eye(3, dtype=cells.dtype, device=cells.device)
    # any independent vectors where there is no slab: NaN in a masked branch poisons gradients
    normal = torch.linalg.cross(
        torch.where(slab, first, axis[0]), torch.where(slab, second, axis[1])
    )
    normal = normal / normal.norm(dim=1, keepdim=True)
    along = normal * (normal * dipole).sum(dim=1, keepdim=True)
    dipole = torch.where(slab, along, dipole)
    undefined = (directions == 1) | (directions == 3)
    return torch.where(undefined.unsqueeze(1), torch.full_like(dipole, math.nan), dipole)


def pull_back_to_positions(
    charges: Float[Tensor, " atoms"],
    positions: Float[Tensor, "atoms 3"],
    *,
    create_graph: bool = False,
) -> Callable[[Tensor], Tensor]:
    """Return the map w -> sum_j w_j dq_j/dr_i for charges computed from `positions` by autograd."""

    def pull_back(weights: Float[Tensor, " atoms"]) -> Float[Tensor, "atoms 3"]:
        (gradient,) = torch.autograd.grad(
            charges, positions, weights, retain_graph=True, create_graph=create_graph
        )
        return gradient

    return pull_back


def born_charges(
    charges: Float[Tensor, " atoms"],
    pull_back: Callable[[Tensor], Tensor],
    *,
    positions: Float[Tensor, "atoms 3"],
    cells: Float[Tensor, "systems 3 3"],
    pbc: Bool[Tensor, "systems 3"],
    system_index: Int[Tensor, " atoms"],
    harmonics: int = 3,
) -> Float[Tensor, "atoms 3 3"]:
    """Return Z_i,ab = dP_a / dr_i,b in e: [atom, direction of polarisation, of displacement].

    They sum to Q 1 over a structure: charge conservation gives it for molecules whose total charge
    is fixed, and what free charges or the periodic displacement leave over is shared equally.

    Parameters
    ----------
    charges
        e.
    pull_back
        w -> sum_j w_j dq_j/dr_i, (atoms,) -> (atoms, 3) in 1/Angstrom, all structures at once; see
        `pull_back_to_positions`. Called 6 times a harmonic.
    positions, cells, pbc, system_index
        The structures, in Angstrom; lattice vectors as rows.
    harmonics
        Of the periodic displacement, at least 1.
    """
    full = _completed_cells(cells, pbc)
    fractional = torch.einsum("ix,ixm->im", positions, torch.linalg.inv(full)[system_index])
    ones = torch.ones_like(charges)
    num_atoms = _sum_over_atoms(ones, system_index, len(cells)).clamp(min=1.0)
    centre = _sum_over_atoms(fractional.detach(), system_index, len(cells)) / num_atoms.unsqueeze(1)
    fractional = fractional - centre[system_index]
    periodic, rows = pbc[system_index], full[system_index]
    eye = torch.eye(3, dtype=charges.dtype, device=charges.device)
    born = charges[:, None, None] * eye
    last = harmonics if bool(pbc.any()) else 1
    for direction in range(3):
        x, wraps = fractional[:, direction], periodic[:, direction]
        for n in range(1, last + 1):
            angle = 2.0 * math.pi * n * x
            scale = _harmonic_weight(n, harmonics) / (2.0 * math.pi)
            sine, cosine = scale * torch.sin(angle), scale * torch.cos(angle)
            line = ones if n == 1 else torch.zeros_like(ones)
            # sin(a_j - a_i) = sin a_j cos a_i - cos a_j sin a_i, or x_j - x_i
            first = pull_back(torch.where(wraps, sine, line * x))
            second = pull_back(torch.where(wraps, cosine, line))
            by_first = torch.where(wraps, torch.cos(angle), ones)
            by_second = torch.where(wraps, torch.sin(angle), x)
            change = by_first.unsqueeze(1) * first - by_second.unsqueeze(1) * second
            born = born + rows[:, direction].unsqueeze(2) * change.unsqueeze(1)
    excess = _sum_over_atoms(born, system_index, len(cells))
    total = _sum_over_atoms(charges, system_index, len(cells))
    excess = (excess - total[:, None, None] * eye) / num_atoms[:, None, None]
    return born - excess[system_index]


def _harmonic_weight(n: int, harmonics: int) -> float:
    """Return c_n of the flattest sum_n c_n sin(n a) = a + O(a^(2 harmonics + 1))."""
    ratio = math.comb(2 * harmonics, harmonics - n) / math.comb(2 * harmonics, harmonics)
    return 2.0 * (-1) ** (n + 1) / n * ratio


def _completed_cells(cells: Tensor, pbc: Tensor) -> Tensor:
    """Return cells with unit vectors normal to the lattice along directions without periodicity."""
    lattice = torch.where(pbc.unsqueeze(2), cells, 0.0)
    basis = torch.linalg.svd(lattice.detach()).Vh  # rows past the rank are normal to the lattice
    missing = ~pbc
    place = pbc.sum(dim=1, keepdim=True) + torch.cumsum(missing, dim=1) - 1
    normals = basis.gather(1, place.clamp(0, 2).unsqueeze(2).expand(-1, -1, 3))
    return torch.where(missing.unsqueeze(2), normals, lattice)
