"""Irreducible Cartesian tensors, packed.

An irreducible Cartesian tensor of degree l is a symmetric traceless tensor of rank l: 3^l numbers,
2l + 1 of them independent. With U_l (3^l x (2l+1), orthonormal columns) spanning that subspace,
D_l = U_l U_l^T projects on it; a tensor is stored packed as t = U_l^T T and unpacked as T = U_l t.
Packing is an isometry, so norms and contractions may be done on either side.

The columns of U_l are the tensors of the real solid harmonics, ordered m = -l..l: the packed
components of degree 1 are (y, z, x). The degrees of a feature lie end to end on one axis, degree l
at columns l^2 .. (l+1)^2 - 1, channels on the last axis: [atoms, (l_max+1)^2, channels].

Products contract k = (l1 + l2 - l3) / 2 index pairs and project on D_l3 (arXiv 2405.14253, eq. 5-8;
arXiv 2509.14961); an odd sum needs the Levi-Civita symbol and changes the natural parity.
Everything here is float64 numpy, built once and cached.
"""

import math
from functools import cache

import numpy as np
from torch import Tensor

Polynomial = dict[tuple[int, int, int], float]


def num_components(l_max: int) -> int:
    """Return the packed length of all degrees 0..l_max, (l_max + 1)^2."""
    return (l_max + 1) ** 2


def degree_slice(l: int) -> slice:
    """Return the columns of degree l on the packed axis."""
    return slice(l * l, (l + 1) ** 2)


def split_degrees(features: Tensor) -> tuple[Tensor, ...]:
    """Return the degrees 0, 1, ... that lie end to end on axis 1, each (atoms, 2l + 1, ...)."""
    l_max = math.isqrt(features.shape[1]) - 1
    return features.split([2 * l + 1 for l in range(l_max + 1)], dim=1)


def harmonic_norm(l: int) -> float:
    """Return c_l = (2l-1)!!/l!, the papers' normalisation: T^l = c_l D_l n^l, ||T^l||^2 = c_l."""
    return math.prod(range(2 * l - 1, 0, -2)) / math.factorial(l)


@cache
def solid_harmonics(l: int) -> tuple[Polynomial, ...]:
    """Return the real solid harmonics m = -l..l, each {(a, b, c): coefficient of x^a y^b z^c}.

    Not normalised; positive leading sign. Helgaker, Jorgensen, Olsen, "Molecular
    Electronic-Structure Theory" (2000), eq. 6.4.47, multiplied out.
    """
    harmonics = []
    for m in range(-l, l + 1):
        axial = _axial_part(l, abs(m))
        planar = _planar_part(abs(m), imaginary=m < 0)
        harmonics.append(_multiply(axial, planar))
    return tuple(harmonics)


def _axial_part(l: int, m: int) -> Polynomial:
    """Return the m-th derivative of r^l P_l(z/r) without its factor, in z and r^2."""
    part: Polynomial = {}
    squared_radius: Polynomial = {(2, 0, 0): 1.0, (0, 2, 0): 1.0, (0, 0, 2): 1.0}
    for k in range((l - m) // 2 + 1):
        factor = (-1) ** k * math.comb(l, k) * math.comb(2 * l - 2 * k, l)
        factor *= math.perm(l - 2 * k, m)
        term: Polynomial = {(0, 0, l - 2 * k - m): float(factor)}
        for _ in range(k):
            term = _multiply(term, squared_radius)
        for exponents, value in term.items():
            part[exponents] = part.get(exponents, 0.0) + value
    return part


def _planar_part(m: int, *, imaginary: bool) -> Polynomial:
    """Return Re or Im of (x + iy)^m."""
    part: Polynomial = {}
    for power in range(m + 1):
        if power % 2 == int(imaginary):
            part[(m - power, power, 0)] = float(math.comb(m, power) * (-1) ** (power // 2))
    return part


def _multiply(first: Polynomial, second: Polynomial) -> Polynomial:
    """Return the product of two polynomials."""
    product: Polynomial = {}
    for (a1, b1, c1), v1 in first.items():
        for (a2, b2, c2), v2 in second.items():
            key = (a1 + a2, b1 + b2, c1 + c2)
            product[key] = product.get(key, 0.0) + v1 * v2
    return product


@cache
def packing(l: int) -> np.ndarray:
    """Return U_l, (3^l, 2l+1): orthonormal columns spanning the symmetric traceless tensors."""
    columns = np.zeros((3,) * l + (2 * l + 1,))
    for column, polynomial in enumerate(solid_harmonics(l)):
        for index in np.ndindex((3,) * l):
            a, b, c = index.count(0), index.count(1), index.count(2)
            multiplicity = math.factorial(l) / math.prod(map(math.factorial, (a, b, c)))
            columns[(*index, column)] = polynomial.get((a, b, c), 0.0) / multiplicity
    flat = columns.reshape(3**l, 2 * l + 1)
    return _read_only(flat / np.linalg.norm(flat, axis=0))


@cache
def projector(l: int) -> np.ndarray:
    """Return D_l = U_l U_l^T, shape (3^l, 3^l)."""
    return _read_only(packing(l) @ packing(l).T)


@cache
def monomial_exponents(l: int) -> tuple[tuple[int, int, int], ...]:
    """Return the exponents (a, b, c) of the (l+1)(l+2)/2 monomials of degree l."""
    return tuple((a, b, l - a - b) for a in range(l, -1, -1) for b in range(l - a, -1, -1))


@cache
def harmonic_coefficients(l: int) -> np.ndarray:
    """Return (2l+1, monomials): Y_l(n) = coefficients @ monomials(n), with ||Y_l||^2 = 2l + 1.

    Y_l(n) = sqrt((2l+1) c_l) U_l^T n^l.
    """
    packed = packing(l)
    monomials = monomial_exponents(l)
    coefficients = np.zeros((2 * l + 1, len(monomials)))
    for flat, index in enumerate(np.ndindex((3,) * l)):
        exponents = (index.count(0), index.count(1), index.count(2))
        coefficients[:, monomials.index(exponents)] += packed[flat]
    return _read_only(coefficients * math.sqrt((2 * l + 1) * harmonic_norm(l)))


@cache
def contraction(l1: int, l2: int, l3: int) -> np.ndarray:
    """Return D_l3 (A o_k B) on packed tensors, shape (2l1+1, 2l2+1, 2l3+1), not normalised.

    k = (l1+l2-l3)/2 index pairs are contracted; where l1+l2-l3 is odd, one further pair goes
    through the Levi-Civita symbol. Zero outside |l1-l2| <= l3 <= l1+l2.
    """
    if not abs(l1 - l2) <= l3 <= l1 + l2:
        return _read_only(np.zeros((2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1)))
    odd = (l1 + l2 - l3) % 2
    k = (l1 + l2 - l3 - odd) // 2
    first = packing(l1).reshape(3 ** (l1 - k - odd), 3**odd, 3**k, 2 * l1 + 1)
    second = packing(l2).reshape(3**k, 3**odd, 3 ** (l2 - k - odd), 2 * l2 + 1)
    third = packing(l3).reshape(3 ** (l1 - k - odd), 3**odd, 3 ** (l2 - k - odd), 2 * l3 + 1)
    exchange = levi_civita() if odd else np.ones((1, 1, 1))
    product = np.einsum("aikx,kjby,ijm,ambz->xyz", first, second, exchange, third, optimize=True)
    return _read_only(product)


@cache
def coupling(l1: int, l2: int, l3: int) -> np.ndarray:
    """Return `contraction` scaled to unit variance: independent unit inputs give unit outputs."""
    product = contraction(l1, l2, l3)
    norm = np.linalg.norm(product)
    return _read_only(product * (math.sqrt(2 * l3 + 1) / norm)) if norm > 0 else product


@cache
def levi_civita() -> np.ndarray:
    """Return the Levi-Civita symbol, (3, 3, 3)."""
    symbol = np.zeros((3, 3, 3))
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        symbol[i, j, k], symbol[i, k, j] = 1.0, -1.0
    return _read_only(symbol)


def couples(l1: int, l2: int, l3: int) -> bool:
    """Tell whether (l1, l2, l3) is a product of natural parity: triangle rule and an even sum."""
    return abs(l1 - l2) <= l3 <= l1 + l2 and (l1 + l2 + l3) % 2 == 0


def _read_only(array: np.ndarray) -> np.ndarray:
    """Return the array with writing switched off, so that a cached one cannot be damaged."""
    array.setflags(write=False)
    return array
