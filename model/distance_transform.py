"""The Agnesi transform: distances measured in bond lengths, finest where bonds are.

    y(r) = a s^q / (1 + s^(q-p)),   s = r / r_0,   r_0 = (R_Zi + R_Zj) / 2
    t(r) = r_c A(r) / A(r_c),       A = y / (1 + y)

1 - A is the transform of ACEpotentials (arXiv 2309.03161) with the covalent radii R and the numbers
a, p, q of MACE-MP (arXiv 2401.00096). A rises from 0 as s^p and flattens as 1/s^q; stretched to t
it maps [0, r_c] on itself for each pair of species, so that any radial basis may be used on t. The
envelope stays a function of r: smoothness at the cutoff does not depend on the transform.
"""

from collections.abc import Sequence
from typing import final

import torch
from ase.data import covalent_radii
from jaxtyping import Float, Int
from torch import Tensor, nn

AMPLITUDE, INNER_POWER, OUTER_POWER = 1.0805, 4.5791, 0.9183
"""a, p and q; p > q."""


@final
class AgnesiTransform(nn.Module):
    """t(r) for every pair of a model's species.

    Parameters
    ----------
    numbers
        Atomic number of each species.
    cutoff
        Angstrom.
    """

    def __init__(self, numbers: Sequence[int], cutoff: float) -> None:
        super().__init__()
        radii = torch.tensor(covalent_radii[list(numbers)], dtype=torch.float64)
        lengths = (0.5 * (radii.unsqueeze(1) + radii)).reshape(-1)
        scales = cutoff / _saturation(cutoff / lengths)
        self.register_buffer("lengths", lengths, persistent=False)
        self.register_buffer("scales", scales, persistent=False)
        self.lengths: Tensor
        self.scales: Tensor

    def forward(
        self, r: Float[Tensor, " edges"], pairs: Int[Tensor, " edges"]
    ) -> Float[Tensor, " edges"]:
        """Return t(r) in Angstrom for the pairs of `tace_al.model.radial.species_pairs`."""
        lengths, scales = self.lengths.index_select(0, pairs), self.scales.index_select(0, pairs)
        return scales * _saturation(r / lengths)


def _saturation(s: Tensor) -> Tensor:
    """Return A(s) = y / (1 + y), with y written so that no power of s is negative."""
    y = AMPLITUDE * s**INNER_POWER / (1.0 + s ** (INNER_POWER - OUTER_POWER))
    return y / (1.0 + y)
