"""Direct readout of a Cartesian tensor of rank 0 to 4 for every atom, from features of its degrees.

A polar tensor of rank n is a sum of irreducible parts of degree l <= n (`decomposition`). Features
have natural parity (-1)^l, the tensor has (-1)^n, so its parts fall in two classes:

    n - l even   natural:  t_l = A h_l + B (SiLU(G h_0) * M h_l)                 (gated linear)
    n - l odd    pseudo:   t_l = W (L h_{l1} x R h_{l2})_l,  l1 + l2 + l odd     (Levi-Civita)

with h the features of all layers side by side and A, B, G, M, L, R, W matrices over channels, the
same for all species. A pseudoscalar needs three vectors that do not lie in a plane, so there the
product of two is contracted with a third copy. Put together for atom i, with U_l the part's basis:

    T_i = T0[Z_i] + g_i scale sum_parts U_l t_l

g_i is `tace_al.model.head.smooth_gate`, zero for an isolated atom, which therefore has exactly T0:
a multiple of the identity (the isotropic parts) for each species, such as an atom's polarisability,
and zero where the tensor has no isotropic part. `standardise` measures T0 and scale on a data set.
"""

import math
from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tace_al.core.errors import ModelError
from tace_al.model.cartesian import coupling, split_degrees
from tace_al.model.decomposition import IrreducibleDecomposition
from tace_al.model.head import READOUT_START, READOUT_WIDTH, smooth_gate
from tace_al.model.radial import SILU_GAIN


def required_degree(rank: int, symmetry: str = "") -> int:
    """Return the largest degree that features must have for a readout of such a tensor.

    >>> required_degree(2, "ij=ji")  # l = 0, 2
    2
    >>> required_degree(2, "ij=-ji")  # l = 1 of the wrong parity: the cross product of two vectors
    1
    """
    parts = IrreducibleDecomposition(rank, symmetry).parts
    return max((_needed(part.degree, natural=part.natural) for part in parts), default=0)


def _needed(degree: int, *, natural: bool) -> int:
    """Return the feature degree for one part; l1 + l2 >= l + 1 in a Levi-Civita coupling."""
    return degree if natural else max(1, (degree + 2) // 2)


@final
class GatedLinear(nn.Module):
    """Natural part: channels of degree l mixed linearly, plus a mix gated by the scalars."""

    def __init__(self, channels: int, num_scalars: int, count: int) -> None:
        super().__init__()
        self.linear = nn.Parameter(READOUT_START * torch.randn(channels, count))
        self.gate = nn.Parameter(torch.randn(num_scalars, READOUT_WIDTH))
        self.mix = nn.Parameter(torch.randn(channels, READOUT_WIDTH))
        self.out = nn.Parameter(READOUT_START * torch.randn(READOUT_WIDTH, count))

    def forward(
        self,
        features: Float[Tensor, "atoms components channels"],
        scalars: Float[Tensor, "atoms scalars"],
    ) -> Float[Tensor, "atoms components count"]:
        """Return `count` tensors of the degree of `features`."""
        norm = math.sqrt(0.5 / self.mix.shape[0])  # half the variance from each term
        gate = nn.functional.silu(scalars @ (self.gate / math.sqrt(self.gate.shape[0])))
        gated = (features @ (self.mix * norm)) * gate.unsqueeze(1)
        gain = SILU_GAIN / math.sqrt(READOUT_WIDTH)
        return features @ (self.linear * norm) + gated @ (self.out * gain)


@final
class PseudoCoupling(nn.Module):
    """Part of unnatural parity: Levi-Civita products of channel-mixed copies of the features."""

    def __init__(self, degree: int, channels: Sequence[int], count: int) -> None:
        super().__init__()
        self.degree = degree
        self.paths = _pseudo_paths(degree, len(channels) - 1)
        self.left, self.right, self.third = (
            nn.ParameterList(nn.Parameter(torch.randn(number, READOUT_WIDTH)) for number in column)
            for column in (
                [channels[l1] for l1, _, _ in self.paths],
                [channels[l2] for _, l2, _ in self.paths],
                [channels[l3] for _, _, l3 in self.paths] if degree == 0 else [],
            )
        )
        rows = len(self.paths) * READOUT_WIDTH
        self.out = nn.Parameter(READOUT_START * torch.randn(rows, count))
        for index, path in enumerate(self.paths):
            matrix = torch.tensor(coupling(*path).copy())
            self.register_buffer(f"coupling_{index}", matrix, persistent=False)

    def forward(
        self, degrees: Sequence[Float[Tensor, "atoms _ _"]]
    ) -> Float[Tensor, "atoms components count"]:
        """Return `count` pseudotensors from the features of each degree."""
        products = []
        for index, (l1, l2, l3) in enumerate(self.paths):
            left, right = (
                _mixed(degrees[l1], self.left[index]),
                _mixed(degrees[l2], self.right[index]),
            )
            matrix = self.get_buffer(f"coupling_{index}")
            product = torch.einsum("axc,ayc,xyz->azc", left, right, matrix)
            if self.degree == 0:
                third = _mixed(degrees[l3], self.third[index]) / math.sqrt(2 * l3 + 1)
                product = (product * third).sum(dim=1, keepdim=True)
            products.append(product)
        coupled = torch.cat(products, dim=2)  # (atoms, 2 l + 1, paths * width)
        return coupled @ (self.out / math.sqrt(self.out.shape[0]))


def _mixed(features: Tensor, weight: Tensor) -> Tensor:
    """Return features with their channels mixed, unit variance kept."""
    return features @ (weight / math.sqrt(weight.shape[0]))


def _pseudo_paths(degree: int, l_max: int) -> list[tuple[int, int, int]]:
    """Return products (l1, l2, l3) with an odd sum: l3 = degree, or a third factor if that is 0."""
    thirds = [degree] if degree > 0 else list(range(1, l_max + 1))
    return [
        (l1, l2, l3)
        for l3 in thirds
        for l2 in range(1, l_max + 1)
        for l1 in range(1, l2 + 1)
        if abs(l1 - l2) <= l3 <= l1 + l2 and (l1 + l2 + l3) % 2 == 1 and (degree > 0 or l2 <= l3)
    ]


@final
class TensorReadout(nn.Module):
    """A tensor for every atom, of rank 0 to 4 and any index symmetry.

    Parameters
    ----------
    rank
        Number of Cartesian indices.
    symmetry
        Index symmetry such as "ij=ji"; none by default.
    layer_shapes
        Largest degree and channels of the features after each layer.
    num_species
        Number of species.

    Raises
    ------
    ModelError
        No layer has features of a degree that the tensor needs.
    """

    def __init__(
        self,
        rank: int,
        symmetry: str = "",
        *,
        layer_shapes: Sequence[tuple[int, int]],
        num_species: int,
    ) -> None:
        super().__init__()
        self.rank = rank
        needed = required_degree(rank, symmetry)
        l_max = max(l for l, _ in layer_shapes)
        if l_max < needed:
            raise ModelError(
                f"a tensor of rank {rank} with symmetry '{symmetry}' needs features of degree "
                f"{needed}, and the layers give degrees up to {l_max}; raise l_hidden and l_edge"
            )
        channels = [sum(c for l_layer, c in layer_shapes if l_layer >= l) for l in range(l_max + 1)]
        self.readouts = nn.ModuleList()
        self.kinds: list[tuple[int, bool]] = []
        bases: dict[tuple[int, bool], list[Tensor]] = {}
        for part in IrreducibleDecomposition(rank, symmetry).parts:
            basis = torch.as_tensor(part.basis.copy(), dtype=torch.float64)
            bases.setdefault((part.degree, part.natural), []).append(basis)
        for (degree, natural), group in bases.items():
            self.kinds.append((degree, natural))
            self.readouts.append(
                GatedLinear(channels[degree], channels[0], len(group))
                if natural
                else PseudoCoupling(degree, channels, len(group))
            )
            basis = torch.stack(group, dim=2)  # (3^rank, 2 l + 1, count)
            self.register_buffer(f"basis_{len(self.kinds) - 1}", basis, persistent=False)
        isotropic = torch.zeros(3**rank, 0, dtype=torch.float64)
        if (0, True) in bases:
            isotropic = torch.cat(bases[0, True], dim=1)
        self.register_buffer("isotropic", isotropic, persistent=False)
        reference = torch.zeros(num_species, isotropic.shape[1], dtype=torch.float64)
        self.register_buffer("reference", reference)
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.isotropic: Tensor
        self.reference: Tensor
        self.scale: Tensor

    def forward(
        self,
        layer_features: Sequence[Float[Tensor, "atoms _ _"]],
        species: Int[Tensor, " atoms"],
        coordination: Float[Tensor, " atoms"],
    ) -> Float[Tensor, "atoms *xyz"]:
        """Return the tensor of each atom, (atoms, 3, ..., 3), float64.

        `coordination` is the sum of the cutoff function over the neighbours of each atom.
        """
        degrees = _side_by_side(layer_features)
        scalars = degrees[0].squeeze(1)
        total = torch.zeros_like(scalars[:, :1]).expand(-1, 3**self.rank)
        for index, ((degree, natural), readout) in enumerate(
            zip(self.kinds, self.readouts, strict=True)
        ):
            part = readout(degrees[degree], scalars) if natural else readout(degrees)
            basis = self.get_buffer(f"basis_{index}")
            total = total + torch.einsum("amk,xmk->ax", part, basis)
        gate = smooth_gate(coordination.double())
        tensor = (self.scale * gate).unsqueeze(1) * total.double()
        constant = self.reference.double() @ self.isotropic.double().T  # (species, 3^rank)
        tensor = tensor + constant.index_select(0, species)
        return tensor.reshape(-1, *[3] * self.rank)

    @torch.no_grad()
    def standardise(
        self, targets: Float[Tensor, "samples *xyz"], composition: Float[Tensor, "samples species"]
    ) -> None:
        """Measure T0 and scale, so that what is left to learn is of order one for each atom.

        Parameters
        ----------
        targets
            Labels of structures (sums over atoms) or of atoms; samples with a NaN are left out.
        composition
            Number of atoms of each species in each sample; one 1 in each row for labels of atoms.

        T0 is the least-squares fit of the isotropic parts, the smallest one where the data leave it
        open. scale is the root mean square of the remainder, a sample of N atoms counted as N
        independent contributions. Without a usable sample nothing changes.
        """
        flat = targets.double().reshape(targets.shape[0], -1)
        usable = torch.isfinite(flat).all(dim=1) & (composition.sum(dim=1) > 0)
        flat, counts = flat[usable].cpu(), composition[usable].double().cpu()
        if not flat.shape[0]:
            return
        isotropic = self.isotropic.double().cpu()
        if isotropic.shape[1]:
            # gelsd gives the smallest solution of a rank-deficient problem
            fit = torch.linalg.lstsq(counts, flat @ isotropic, driver="gelsd").solution
            self.reference.copy_(fit)
            flat = flat - counts @ fit @ isotropic.T
        num_components = sum(
            basis.shape[1] * basis.shape[2]
            for name, basis in self.named_buffers()
            if name.startswith("basis_")
        )
        squares = (flat**2).sum(dim=1) / (counts.sum(dim=1) * num_components)
        rms = float(squares.mean().sqrt())
        if rms > 0.0:
            self.scale.fill_(rms)


def _side_by_side(layer_features: Sequence[Tensor]) -> list[Tensor]:
    """Return, for each degree, the channels of all layers that have it, end to end."""
    layers = [split_degrees(features) for features in layer_features]
    top = max(len(layer) for layer in layers)
    return [torch.cat([layer[l] for layer in layers if len(layer) > l], dim=2) for l in range(top)]
