"""The latent Ewald sum on a mesh, in time N log N: torch-pme's smooth particle mesh.

    phi_i = 1/V sum_{k != 0} 4 pi / k^2 e^{-sigma^2 k^2/2} S(k) e^{-ik.r_i}

with S(k) from charges spread over a regular mesh by seventh-order Lagrange polynomials and a fast
Fourier transform (Essmann et al., 10.1063/1.470117; torch-pme, BSD-3, arXiv 2412.03281). Signature,
units and conventions are those of `model.ewald.ewald_energy`. Only three-dimensional crystals of
`MESH_FROM` atoms or more go to the mesh; everything else takes the exact sums, which are faster
there.

Two limits of a mesh with points at most sigma/2 apart. Energies and forces are off by about 1e-6 of
their size, measured against the sum over k, and forces sum to zero only as well as that. And the
number of points is a power of two that jumps when a cell vector passes a threshold: energies under
a changing cell jump by the error, so relax cells tightly with `ewald_energy`.
"""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tace_al.core.errors import ModelError
from tace_al.core.units import COULOMB_CONSTANT
from tace_al.model.ewald import PURE_RECIPROCAL, ewald_energy

MESH_FROM = 4000
"""Atoms."""


def mesh_ewald_energy(
    positions: Float[Tensor, "atoms 3"],
    charges: Float[Tensor, " atoms"],
    *,
    cells: Float[Tensor, "systems 3 3"],
    pbc: Bool[Tensor, "systems 3"],
    system_index: Int[Tensor, " atoms"],
    sigma: float = 1.0,
    mesh_from: int = MESH_FROM,
) -> Float[Tensor, " atoms"]:
    """Return each atom's electrostatic energy in eV (float64), large crystals on a mesh.

    Parameters
    ----------
    positions, charges, cells, pbc, system_index
        As for `ewald_energy`.
    sigma
        Smearing in Angstrom, at least 0.5.
    mesh_from
        Number of atoms from which a crystal goes to the mesh.

    Raises
    ------
    ModelError
        torch-pme is not installed, or the smearing needs a sum over neighbours.
    """
    if sigma < PURE_RECIPROCAL:
        raise ModelError(
            f"sigma = {sigma} A is too sharp for a mesh; use {PURE_RECIPROCAL} A or more, "
            "or long_range='ewald'"
        )
    positions, charges, cells = positions.double(), charges.double(), cells.double()
    counts = torch.bincount(system_index, minlength=len(cells))
    large = pbc.all(dim=1) & (counts >= mesh_from)
    on_mesh = large[system_index]
    energy = torch.zeros_like(charges)
    if not bool(on_mesh.all()):
        rest = torch.nonzero(~on_mesh).flatten()
        part = ewald_energy(
            positions[rest],
            charges[rest],
            cells=cells,
            pbc=pbc,
            system_index=system_index[rest],
            sigma=sigma,
        )
        energy = energy.index_add(0, rest, part)
    for system in torch.nonzero(large).flatten().tolist():
        atoms = torch.nonzero(system_index == system).flatten()
        part = _on_mesh(positions[atoms], charges[atoms], cell=cells[system], sigma=sigma)
        energy = energy.index_add(0, atoms, part)
    return energy


def _on_mesh(positions: Tensor, charges: Tensor, *, cell: Tensor, sigma: float) -> Tensor:
    """Return the energies of one crystal."""
    calculator = _calculator(sigma, positions.device)
    no_pairs = torch.zeros(0, 2, dtype=torch.int64, device=positions.device)
    half_potential = calculator(
        charges=charges.unsqueeze(1),
        cell=cell,
        positions=positions,
        neighbor_indices=no_pairs,
        neighbor_distances=torch.zeros(0, dtype=torch.float64, device=positions.device),
    ).squeeze(1)
    # torch-pme lets the background interact as point charges do, we by the smeared kernel
    volume = torch.linalg.det(cell).abs()
    half_potential = half_potential + math.pi * sigma**2 * charges.sum() / volume
    return COULOMB_CONSTANT * charges * half_potential


def _calculator(sigma: float, device: torch.device) -> Any:  # torch-pme has no type stubs
    """Return torch-pme's mesh sum in float64."""
    try:
        from torchpme import PMECalculator
        from torchpme.potentials import CoulombPotential
    except ImportError as missing:
        raise ModelError(
            "the mesh sum needs torch-pme; install it with `pip install 'tace-al[pme]'`, "
            "or set long_range='ewald'"
        ) from missing
    potential = CoulombPotential(smearing=sigma).to(dtype=torch.float64, device=device)
    calculator = PMECalculator(potential, mesh_spacing=sigma / 2.0, interpolation_nodes=7)
    return calculator.to(dtype=torch.float64, device=device)
