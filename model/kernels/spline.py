"""Radial weights read from a table of polynomial pieces inside the sum over neighbours.

At inference the radial weights are functions of the distance alone. Tabled once, they are
interpolated edge by edge where they are used: the network over all edges goes, and so does the
array edges x paths x channels, the largest of the whole evaluation. The table is not trained.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from tace_al.model.kernels import operators
from tace_al.model.kernels.layout import EdgeList, SumLayout
from tace_al.model.kernels.pieces import derivatives, hermite_pieces, piecewise
from tace_al.model.kernels.sums import _Gradients, check_shapes, takes_anything

FEWEST_PIECES, MOST_PIECES = 128, 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class RadialSpline:
    """Radial weights of every path and channel as functions of the distance.

    Parameters
    ----------
    table
        Coefficients of the pieces from 0 to the cutoff (`pieces.py`); of members on a leading axis
        in `splined_edge_sums`.
    spacing
        Length of a piece in Angstrom.
    """

    table: Float[Tensor, "*members pieces 6 paths channels"]
    spacing: float

    @classmethod
    def of(
        cls,
        weights: Callable[[Float[Tensor, " points"]], Float[Tensor, "points paths channels"]],
        cutoff: float,
        *,
        dtype: torch.dtype,
        tolerance: float = 1e-5,
        fewest_pieces: int = FEWEST_PIECES,
    ) -> "RadialSpline":
        """Return the spline of a function, as fine as the tolerance asks.

        Parameters
        ----------
        weights
            W(r) for distances in Angstrom, float64; zero with two derivatives at the cutoff.
        cutoff
            Angstrom.
        dtype
            Of the table.
        tolerance
            Largest error of the slope, as a fraction of the largest slope; 1e-5 changes forces of
            1 eV/Angstrom by less than 1e-7.
        fewest_pieces
            Where the search begins.

        Raises
        ------
        ValueError
            The function is too rough for that.
        """
        pieces = max(fewest_pieces, FEWEST_PIECES)
        while pieces <= MOST_PIECES:
            spacing = cutoff / pieces
            table = hermite_pieces(weights, cutoff, pieces)
            # where the slope of an interpolation of degree 5 is worst
            r = spacing * (torch.arange(1, pieces, dtype=torch.float64) + 0.5 - 0.5 / 5**0.5)
            exact = derivatives(weights, r, 1)[1]
            error = (piecewise(table, r, spacing, slopes=True) - exact).abs().max()
            if error <= tolerance * exact.abs().max():
                return cls(table=table.to(dtype), spacing=spacing)
            pieces *= 2
        raise ValueError(
            f"{MOST_PIECES} pieces are too few for a slope within {tolerance}: the radial weights "
            "are not smooth; evaluate without splines, or allow a larger tolerance"
        )

    def __call__(self, r: Float[Tensor, " edges"]) -> Float[Tensor, "edges paths channels"]:
        """Return the weights at distances in Angstrom, all of them at once."""
        return piecewise(self.table, r, self.spacing)


def splined_edge_sums(
    features: Float[Tensor, "*members sources dim_in channels"],
    spline: RadialSpline,
    distances: Float[Tensor, "*members edges"],
    harmonics: Float[Tensor, "*members edges dim_edge"],
    edges: EdgeList,
    layout: SumLayout,
) -> Float[Tensor, "*members atoms rows channels"]:
    """Return `edge_sums` with the spline's weights at `distances` (Angstrom).

    Derivatives by features, distances and harmonics go through the table; where those shall be
    differentiated again the weights are laid out as for `edge_sums`.
    """
    channels = features.shape[-1]
    check_shapes(
        layout,
        features=(features, (features.shape[-3], layout.dim_in, channels)),
        table=(spline.table, (spline.table.shape[-4], 6, layout.num_paths, channels)),
        distances=(distances, (len(edges.sender),)),
        harmonics=(harmonics, (len(edges.sender), layout.dim_edge)),
    )
    around = (edges.sender, edges.first, edges.last, layout, spline.spacing)
    sums: Tensor = _SplinedSums.apply(features, spline.table, distances, harmonics, *around)
    return sums


@final
class _SplinedSums(torch.autograd.Function):
    """A(h, r, Y)."""

    generate_vmap_rule = True

    @staticmethod
    @takes_anything
    def forward(*arguments: Any) -> Tensor:
        *tensors, layout, spacing = arguments
        sums: Tensor = operators.SPLINED_SUMS(*tensors, layout.flat, spacing)
        return sums

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:7])
        ctx.layout, ctx.spacing = inputs[7:]

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor | None) -> tuple[Tensor | None, ...]:
        nothing = (None,) * 5
        if cotangent is None:
            return (None, None, None, None, *nothing)
        features, table, distances, harmonics, *around = ctx.saved_tensors
        if not torch.is_grad_enabled():
            by_features, by_distances, by_harmonics = operators.SPLINED_GRADIENTS(
                cotangent, *ctx.saved_tensors, ctx.layout.flat, ctx.spacing
            )
            return (by_features, None, by_distances, by_harmonics, *nothing)
        weights = piecewise(table, distances, ctx.spacing)
        by_features, by_weights, by_harmonics = _Gradients.apply(
            cotangent, features, weights, harmonics, *around, ctx.layout
        )
        slopes = piecewise(table, distances, ctx.spacing, slopes=True)
        by_distances = (by_weights * slopes).sum(dim=(1, 2))
        return (by_features, None, by_distances, by_harmonics, *nothing)
