"""Electrostatic energy of smeared or point charges: crystals, slabs and molecules, in one call.

Two charges at distance r interact by v(r) = k erf(r / (sqrt(2) sigma)) / r, two Gaussians of width
sigma / sqrt(2); sigma = 0 is the point-charge 1/r. With k = e^2/(4 pi eps0) in eV Angstrom:

    molecule   E = 1/2 sum_{i != j} q_i q_j v(r_ij)
    crystal    E = 2 pi k / V sum_{k != 0} e^{-s^2 k^2 / 2} / k^2 |S(k)|^2
                 - k / (sqrt(2 pi) s) sum_i q_i^2 - pi k (s^2 - sigma^2) Q^2 / V
                 + k/2 sum_pairs q_i q_j [erf(r / (sqrt(2) sigma)) - erf(r / (sqrt(2) s))] / r
    slab       the same sums in a box of height 2R along the normal with the kernel cut off at
               |z| = R, which makes it periodic in two directions only:
               1/k^2 -> (1 - e^{-k_par R} cos(k_z R)) / k^2, and -R^2/2 at k = 0

with S(k) = sum_i q_i e^{i k.r_i}. For sigma of half an Angstrom or more s = sigma and the last line
of the crystal is absent: this is the latent Ewald sum (arXiv 2408.15165). For sharper charges s is
a free split of the Ewald sum. The slab's cut (Rozzi et al., 10.1103/PhysRevB.73.205119) is exact
where R exceeds the thickness by a few s: the result is Parry's two-dimensional sum at the cost of a
crystal's.

Conventions. A charged crystal is neutralised by a uniform background that interacts by the same
kernel; a charged slab misses the infinite constant of a charged plane, which leaves -2 pi |z| per
area; a molecule has no background. A crystal's surroundings are conducting (no surface term).

Phases factor into e^{2 pi i n f} for each of the three lattice directions, so that S(k) and the
potentials are matrix products (atoms x n1 n2) (atoms x n3): memory grows as N^(5/3), time as N^2.
Sums end smoothly (`_window`), so energies have smooth derivatives in positions, charges and cells.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from ase import Atoms
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tace_al.core.errors import ModelError
from tace_al.core.units import COULOMB_CONSTANT
from tace_al.data.neighbours import neighbour_list

PURE_RECIPROCAL = 0.5
"""Angstrom; smearings at least this large need no sum over neighbours."""
WINDOW_START = 0.93
"""Fraction of a cutoff at which its window begins to fall; the requested accuracy holds here."""
GROUP_WASTE = 1.5
"""Structures share a batch while their filled-up cost is at most this many times the real one."""
SMALL_GROUP = 2_000_000
"""Filled-up cost (complex products) below which waste does not matter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Lattice:
    """One periodic structure of a batch, ready for its sum over k.

    Parameters
    ----------
    atoms
        (atoms,) places of its atoms in the batch.
    cell
        (3, 3) lattice vectors as rows in Angstrom; a slab's third is its normal times 2R.
    slab
        Whether the third direction is not periodic.
    split
        s in Angstrom.
    sizes
        Largest |n| that matters along each lattice vector.
    """

    atoms: Int[Tensor, " atoms"]
    cell: Float[Tensor, "3 3"]
    slab: bool
    split: float
    sizes: tuple[int, int, int]

    @property
    def cost(self) -> int:
        """Complex products in the structure factor."""
        return _cost(len(self.atoms), self.sizes)


def ewald_energy(
    positions: Float[Tensor, "atoms 3"],
    charges: Float[Tensor, " atoms"],
    *,
    cells: Float[Tensor, "systems 3 3"],
    pbc: Bool[Tensor, "systems 3"],
    system_index: Int[Tensor, " atoms"],
    sigma: float = 1.0,
    accuracy: float = 1e-8,
) -> Float[Tensor, " atoms"]:
    """Return each atom's electrostatic energy, q_i times half the potential at i.

    Differentiable, any number of times, in positions, charges and cells.

    Parameters
    ----------
    positions
        Angstrom, wrapped or not; along the normal of a slab they must not be wrapped.
    charges
        e.
    cells
        Lattice vectors as rows, Angstrom; rows of directions without periodicity are not read.
    pbc
        Periodic directions: none, two or all three.
    system_index
        Structure of each atom, in any order.
    sigma
        Smearing in Angstrom; 0 for point charges.
    accuracy
        Fraction of the sums that is left out, 1e-12 to 1e-4.

    Returns
    -------
    Tensor
        (atoms,) eV, float64; sums to the energy of each structure.

    Raises
    ------
    ModelError
        A structure is periodic in one direction, or a periodic one has no volume.
    """
    _refuse_wrong_input(pbc, sigma, accuracy)
    positions, charges, cells = positions.double(), charges.double(), cells.double()
    energy = torch.zeros_like(charges)
    for place, part in _energy_parts(
        positions,
        charges,
        cells=cells,
        pbc=pbc,
        system_index=system_index,
        sigma=sigma,
        reach=math.sqrt(-2.0 * math.log(accuracy)),
    ):
        energy = energy.index_add(0, place, part)
    return COULOMB_CONSTANT * energy


def _refuse_wrong_input(pbc: Tensor, sigma: float, accuracy: float) -> None:
    """Raise where there is no sum."""
    if sigma < 0.0 or not 1e-12 <= accuracy <= 1e-4:
        raise ModelError(
            f"sigma = {sigma} and accuracy = {accuracy} are out of range; "
            "sigma >= 0 Angstrom and 1e-12 <= accuracy <= 1e-4 are needed"
        )
    if bool((pbc.sum(dim=1) == 1).any()):
        raise ModelError(
            "a structure is periodic in one direction only, for which there is no Ewald sum; "
            "make it periodic in three with vacuum around the wire"
        )


def _energy_parts(
    positions: Tensor,
    charges: Tensor,
    *,
    cells: Tensor,
    pbc: Tensor,
    system_index: Tensor,
    sigma: float,
    reach: float,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield atoms and their energies over k, for each kind and group of structures in the batch."""
    directions = pbc.sum(dim=1)
    order = torch.argsort(system_index, stable=True)
    counts = torch.bincount(system_index, minlength=len(cells))
    isolated = order[(directions == 0)[system_index[order]]]
    if len(isolated):
        first, second = _pairs_within(counts[directions == 0])
        first, second = isolated[first], isolated[second]
        separation = positions[first] - positions[second]
        pair = charges[first] * charges[second] * _pair_kernel(separation.norm(dim=1), sigma)
        yield first, 0.5 * pair
        yield second, 0.5 * pair
    lattices = []
    atoms_of = order.split(counts.tolist())
    for system in torch.nonzero(directions).flatten().tolist():
        atoms = atoms_of[system]
        if len(atoms) == 0:
            continue
        lattice = _lattice(
            atoms,
            positions[atoms].detach(),
            cell=cells[system],
            periodic=pbc[system].tolist(),
            sigma=sigma,
            reach=reach,
        )
        lattices.append(lattice)
        if lattice.split > sigma:
            yield (
                atoms,
                _real_space(
                    positions[atoms], charges[atoms], lattice=lattice, sigma=sigma, reach=reach
                ),
            )
    for group in _groups(lattices):
        yield from _reciprocal_space(positions, charges, group, reach)


def _lattice(
    atoms: Tensor,
    positions: Tensor,
    *,
    cell: Tensor,
    periodic: Sequence[bool],
    sigma: float,
    reach: float,
) -> _Lattice:
    """Return the lattice and sums' limits of a crystal or slab; a slab's normal comes third."""
    slab = not all(periodic)
    if slab:
        missing = periodic.index(False)
        first, second = cell[(missing + 1) % 3], cell[(missing + 2) % 3]
        normal = torch.linalg.cross(first, second)
        area = float(normal.detach().norm())
        _refuse_flat(area, "area")
        normal = normal / normal.norm()
        height = positions @ normal.detach()
        thickness = float(height.max() - height.min())
        measure = area * max(thickness, 4.0)
        split = _split(sigma, measure, len(atoms))
        half_height = thickness + (reach + 1.5) * split
        full = torch.stack([first, second, 2.0 * half_height * normal])
    else:
        measure = float(torch.linalg.det(cell.detach()).abs())
        _refuse_flat(measure, "volume")
        split = _split(sigma, measure, len(atoms))
        full = cell
    lengths = full.detach().norm(dim=1).tolist()
    largest = reach / (WINDOW_START * split) / (2.0 * math.pi)
    n1, n2, n3 = (math.floor(largest * length) for length in lengths)
    return _Lattice(atoms=atoms, cell=full, slab=slab, split=split, sizes=(n1, n2, n3))


def _refuse_flat(measure: float, what: str) -> None:
    """Raise where the periodic cell vectors span nothing."""
    if not measure > 1e-6:
        raise ModelError(
            f"a periodic cell has {what} {measure:.1e}; give linearly independent cell vectors"
        )


def _split(sigma: float, volume: float, num_atoms: int) -> float:
    """Return s: the smearing itself, or for sharp charges what balances neighbours and k."""
    if sigma >= PURE_RECIPROCAL:
        return sigma
    return max(0.2 * (volume * volume / num_atoms) ** (1.0 / 6.0), PURE_RECIPROCAL)


def _window(x: Tensor) -> Tensor:
    """Return 1 below WINDOW_START, 0 above 1, and a fall with three continuous derivatives."""
    t = ((x - WINDOW_START) / (1.0 - WINDOW_START)).clamp(0.0, 1.0)
    return 1.0 - t**4 * (35.0 - 84.0 * t + 70.0 * t**2 - 20.0 * t**3)


def _pair_kernel(r: Tensor, sigma: float) -> Tensor:
    """Return erf(r / (sqrt(2) sigma)) / r in 1/Angstrom."""
    return torch.erf(r / (math.sqrt(2.0) * sigma)) / r if sigma > 0.0 else 1.0 / r


def _pairs_within(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return each pair i < j of the same structure, for structures that lie end to end."""
    starts = torch.cumsum(counts, dim=0) - counts
    size = torch.repeat_interleave(counts, counts)
    start = torch.repeat_interleave(starts, counts)
    place = torch.arange(len(size), device=counts.device)
    first = torch.repeat_interleave(place, size)
    row_start = torch.cumsum(size, dim=0) - size
    second = torch.arange(len(first), device=counts.device) - row_start[first] + start[first]
    once = first < second
    return first[once], second[once]


def _real_space(
    positions: Tensor, charges: Tensor, *, lattice: _Lattice, sigma: float, reach: float
) -> Tensor:
    """Return (atoms,) energies over k from what the sum over k leaves of the interaction."""
    cutoff = reach * lattice.split / WINDOW_START
    atoms = Atoms(
        numbers=torch.ones(len(positions), dtype=torch.int64).numpy(),
        positions=positions.detach().cpu().numpy(),
        cell=lattice.cell.detach().cpu().numpy(),
        pbc=(True, True, not lattice.slab),
    )
    sender, receiver, shift = (
        torch.from_numpy(part).to(positions.device) for part in neighbour_list(atoms, cutoff)
    )
    vector = positions[receiver] - positions[sender] + shift.double() @ lattice.cell
    r = vector.norm(dim=1)
    kernel = torch.erfc(r / (math.sqrt(2.0) * lattice.split)) / r
    if sigma > 0.0:
        kernel = kernel - torch.erfc(r / (math.sqrt(2.0) * sigma)) / r
    pair = charges[receiver] * charges[sender] * kernel * _window(r / cutoff)
    energy = torch.zeros_like(charges).index_add(0, receiver, 0.5 * pair)
    if lattice.slab:
        return energy
    excess = lattice.split**2 - sigma**2
    volume = torch.linalg.det(lattice.cell).abs()
    return energy - math.pi * excess / volume * charges * charges.sum()


def _cost(num_atoms: int, sizes: Sequence[int]) -> int:
    """Return the complex products in a structure factor over half of the k."""
    n1, n2, n3 = sizes
    return num_atoms * (n1 + 1) * (2 * n2 + 1) * (2 * n3 + 1)


def _groups(lattices: Sequence[_Lattice]) -> Iterator[list[_Lattice]]:
    """Yield lattices of like size together: many small cells are one batch, not a loop."""
    group: list[_Lattice] = []
    for lattice in sorted(lattices, key=lambda item: item.cost):
        joined = [*group, lattice]
        filled = len(joined) * _cost(
            max(len(item.atoms) for item in joined), _largest_sizes(joined)
        )
        real = sum(item.cost for item in joined)
        if group and filled > max(GROUP_WASTE * real, SMALL_GROUP):
            yield group
            joined = [lattice]
        group = joined
    if group:
        yield group


def _largest_sizes(lattices: Sequence[_Lattice]) -> tuple[int, int, int]:
    """Return limits of the sums that suffice for every lattice."""
    n1, n2, n3 = (max(sizes) for sizes in zip(*(item.sizes for item in lattices), strict=True))
    return n1, n2, n3


def _reciprocal_space(
    positions: Tensor, charges: Tensor, group: Sequence[_Lattice], reach: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield atoms and their energies over k from the sum over k, the self-energy taken off."""
    device = positions.device
    width = max(len(item.atoms) for item in group)
    rows = [torch.nn.functional.pad(item.atoms, (0, width - len(item.atoms))) for item in group]
    place = torch.stack(rows)  # (systems, atoms), filled up with any atom
    lengths = torch.tensor([len(item.atoms) for item in group], device=device)
    real = torch.arange(width, device=device) < lengths[:, None]
    q = torch.where(real, charges[place], 0.0)
    cells = torch.stack([item.cell for item in group])
    fractional = positions[place] @ torch.linalg.inv(cells)
    fractional = fractional - fractional.detach().floor()
    split = torch.tensor([item.split for item in group], dtype=q.dtype, device=device)
    slab = torch.tensor([item.slab for item in group], device=device)
    n1, n2, n3 = _largest_sizes(group)
    indices = [
        torch.arange(start, end + 1, device=device).double()
        for start, end in ((0, n1), (-n2, n2), (-n3, n3))
    ]
    kernel = _kernel(indices, cells, split=split, slab=slab, cutoff=reach / WINDOW_START)
    phases = []
    for axis, index in enumerate(indices):
        angle = 2.0 * math.pi * fractional[:, :, axis, None] * index
        phases.append(torch.complex(torch.cos(angle), torch.sin(angle)))
    plane = (phases[0].unsqueeze(3) * phases[1].unsqueeze(2)).flatten(2)  # (systems, atoms, n1 n2)
    weighted = (q.unsqueeze(2) * plane).transpose(1, 2)
    factor = weighted @ phases[2]  # (systems, n1 n2, n3)
    back = phases[2] @ (kernel.flatten(1, 2) * factor.conj()).transpose(1, 2)
    potential = (back * plane).sum(dim=2).real  # (systems, atoms)
    self_potential = math.sqrt(2.0 / math.pi) / split.unsqueeze(1)
    energy = 0.5 * q * (potential - q * self_potential)
    yield place[real], energy[real]


def _kernel(
    indices: Sequence[Tensor], cells: Tensor, *, split: Tensor, slab: Tensor, cutoff: float
) -> Float[Tensor, "systems n1 n2 n3"]:
    """Return 4 pi / V e^{-s^2 k^2/2} / k^2 for half of the k, doubled where one stands for two.

    `cutoff` is where the sum ends in units of 1/s.
    """
    n = torch.stack(torch.meshgrid(*indices, indexing="ij"), dim=-1)  # (n1, n2, n3, 3)
    reciprocal = 2.0 * math.pi * torch.linalg.inv(cells).transpose(1, 2)  # rows
    k = torch.einsum("uvwm,smx->suvwx", n, reciprocal)
    k2 = (k * k).sum(dim=-1)
    origin = (n == 0.0).all(dim=-1)
    k2 = torch.where(origin, 1.0, k2)
    in_plane = (n[..., :2] != 0.0).any(dim=-1)
    along_plane = torch.einsum("uvwm,smx->suvwx", n[..., :2], reciprocal[:, :2])
    parallel = torch.where(in_plane, (along_plane * along_plane).sum(dim=-1), 1.0).sqrt()
    half_height = 0.5 * cells[:, 2].norm(dim=1)[:, None, None, None]
    sign = 1.0 - 2.0 * torch.remainder(n[..., 2], 2.0)  # cos(k_z R)
    cut = 1.0 - sign * torch.where(in_plane, torch.exp(-parallel * half_height), 1.0)
    slab, s2 = slab[:, None, None, None], (split * split)[:, None, None, None]
    kernel = torch.where(slab, cut, 1.0) / k2
    kernel = kernel * torch.exp(-0.5 * s2 * k2) * _window((s2 * k2).sqrt() / cutoff)
    kernel = torch.where(origin, torch.where(slab, -0.5 * half_height**2, 0.0), kernel)
    twice = torch.where(n[..., 0] > 0.0, 2.0, 1.0)
    volume = torch.linalg.det(cells).abs()[:, None, None, None]
    return 4.0 * math.pi / volume * twice * kernel
