"""Fused sums and products: compiled on first use, PyTorch's own operators where that fails.

`edge_sums` is the sum over neighbours before coupling, `spectral_product` the product basis, both
with derivatives of any order; `splined_edge_sums` reads the radial weights from a table of
polynomial pieces, `GeometryKernel` is what precedes it, and `NetworkKernel` all of a plain network,
for evaluation.
Importing this package compiles nothing.
"""

from tace_al.model.kernels.geometry import EdgeSlots, GeometryKernel, Repulsion
from tace_al.model.kernels.layout import EdgeList, SumLayout
from tace_al.model.kernels.library import compiled
from tace_al.model.kernels.network import AtomSlots, NetworkKernel
from tace_al.model.kernels.product import spectral_product
from tace_al.model.kernels.product_table import ProductTable
from tace_al.model.kernels.spline import RadialSpline, splined_edge_sums
from tace_al.model.kernels.sums import edge_sums, fused

__all__ = [
    "AtomSlots",
    "EdgeList",
    "EdgeSlots",
    "GeometryKernel",
    "NetworkKernel",
    "ProductTable",
    "RadialSpline",
    "Repulsion",
    "SumLayout",
    "compiled",
    "edge_sums",
    "fused",
    "spectral_product",
    "splined_edge_sums",
]
