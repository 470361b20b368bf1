"""Screened nuclear repulsion at short range (Ziegler, Biersack, Littmark 1985).

    V(r) = k Z1 Z2 / r * phi(r/a) * f_c(r / (R1 + R2)),   a = 0.46850 / (Z1^0.23 + Z2^0.23) Angstrom
    phi(x) = 0.18175 e^{-3.19980 x} + 0.50986 e^{-0.94229 x}
             + 0.28022 e^{-0.40290 x} + 0.02817 e^{-0.20162 x}

switched off smoothly at the sum of the covalent radii R (at the cutoff where that is shorter), so
that bonds are left to the network and colliding atoms never fall into one another. It is not scaled
with the network's energy.
"""

from typing import final

import torch
from ase.data import covalent_radii
from jaxtyping import Float, Int
from torch import Tensor, nn

from tace_al.core.units import COULOMB_CONSTANT
from tace_al.model.kernels import Repulsion
from tace_al.model.radial import polynomial_cutoff

_AMPLITUDES = (0.18175, 0.50986, 0.28022, 0.02817)
_DECAYS = (3.19980, 0.94229, 0.40290, 0.20162)


@final
class ZBL(nn.Module):
    """Pair energy per edge, half of it counted for each direction."""

    def __init__(self, numbers: list[int], cutoff: float) -> None:
        super().__init__()
        self.cutoff, self.numbers = cutoff, tuple(numbers)
        constants = self.constants()
        self.register_buffer("charges", constants.charges, persistent=False)
        self.register_buffer("radii", constants.radii, persistent=False)
        self.register_buffer("screening", constants.screening, persistent=False)
        self.register_buffer(
            "amplitudes", torch.tensor(_AMPLITUDES, dtype=torch.float64), persistent=False
        )
        self.register_buffer("decays", torch.tensor(_DECAYS, dtype=torch.float64), persistent=False)
        self.amplitudes: Tensor
        self.decays: Tensor
        self.charges: Tensor
        self.radii: Tensor
        self.screening: Tensor

    def constants(self) -> Repulsion:
        """Return what the compiled kernel reads, in float64 whatever the network's arithmetic."""
        charges = torch.tensor(self.numbers, dtype=torch.float64)
        return Repulsion(
            charges=charges,
            radii=torch.tensor([covalent_radii[z] for z in self.numbers], dtype=torch.float64),
            screening=charges**0.23,
            phi=torch.tensor([*_AMPLITUDES, *_DECAYS], dtype=torch.float64),
            coulomb=COULOMB_CONSTANT,
        )

    def forward(
        self,
        r: Float[Tensor, "*members atoms slots"],
        sender_species: Int[Tensor, "atoms slots"],
        receiver_species: Int[Tensor, " atoms"],
    ) -> Float[Tensor, "*members atoms slots"]:
        """Return half the pair energy of each directed edge in eV; distances in Angstrom."""
        receiver_species = receiver_species.unsqueeze(1)
        scaled = r * (self.screening[sender_species] + self.screening[receiver_species]) / 0.46850
        phi = torch.exp(-scaled.unsqueeze(-1) * self.decays) @ self.amplitudes
        charge_product = self.charges[sender_species] * self.charges[receiver_species]
        reach = self.radii[sender_species] + self.radii[receiver_species]
        reach = reach.clamp(max=self.cutoff)
        envelope = polynomial_cutoff(r, reach)
        return 0.5 * COULOMB_CONSTANT * charge_product / r * phi * envelope
