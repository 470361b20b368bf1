"""Irreducible Cartesian tensors, packed.

An irreducible Cartesian tensor of degree l is a symmetric traceless tensor of rank l: 3^l numbers,
2l + 1 of them independent. With U_l (3^l x (2l+1), orthonormal columns) spanning that subspace,
D_l = U_l U_l^T projects on it; a tensor is stored packed as t = U_l^T T and unpacked as T = U_l t.
Packing is an isometry, so norms and contractions may be done on either side.

The columns of U_l are the tensors of the real solid harmonics, ordered m = -l..l: the packed
components of degree 1 are (y, z, x). The degrees of a feature lie end to end on one axis, degree l
at columns l^2 .. (l+1)^2 - 1, channels on the last axis: [atoms, (l_max+1)^2, channels].

Products contract k = (l1 + l2 - l3) / 2 index pairs and project on D_l3 (arXiv 2405.14253, eq. 5-8;
arXiv 2509.14961); an odd sum needs the Levi-Civita symbol and changes the natural parity (-1)^l.

The matrices are float64 numpy, built once, cached and read-only. `pack`, `unpack`, `harmonics`,
`product` and `rotation_matrix` apply them to torch tensors of any dtype and device, one degree at a
time, on the last axis. Tensors of any rank and symmetry are in `tace_al.model.decomposition`.
"""

import math
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Polynomial = dict[tuple[int, int, int], float]

# A tensor of degree 8 has 6561 components, its projector fills 344 MB; everything is tested to 6.
MAX_DEGREE = 8


def num_components(l_max: int) -> int:
    """Return the packed length of all degrees 0..l_max, (l_max + 1)^2."""
    return (l_max + 1) ** 2


def degree_slice(l: int) -> slice:
    """Return the columns of degree l on the packed axis."""
    return slice(l * l, (l + 1) ** 2)


def split_degrees(features: Tensor) -> tuple[Tensor, ...]:
    """Return the degrees 0, 1, ... that lie end to end on the last axis but one."""
    l_max = math.isqrt(features.shape[-2]) - 1
    return features.split([2 * l + 1 for l in range(l_max + 1)], dim=-2)


def check_degree(l: int, *, highest: int = MAX_DEGREE) -> None:
    """Raise ValueError unless l is a whole number in 0..highest."""
    if not isinstance(l, int | np.integer) or not 0 <= l <= highest:
        raise ValueError(
            f"the degree of a tensor is {l!r}, expected a whole number from 0 to {highest}; "
            "pass such a degree"
        )


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
    check_degree(l)
    indices = np.indices((3,) * l).reshape(l, 3**l)
    counts = [tuple((indices[:, flat] == axis).sum() for axis in range(3)) for flat in range(3**l)]
    places = {exponents: place for place, exponents in enumerate(monomial_exponents(l))}
    components = _normalised_polynomials(l) / _multiplicities(l)  # (2l+1, monomials)
    return _read_only(components.T[[places[exponents] for exponents in counts]])


@cache
def projector(l: int) -> np.ndarray:
    """Return D_l = U_l U_l^T, shape (3^l, 3^l)."""
    return _read_only(packing(l) @ packing(l).T)


@cache
def monomial_exponents(l: int) -> tuple[tuple[int, int, int], ...]:
    """Return the exponents (a, b, c) of the (l+1)(l+2)/2 monomials of degree l."""
    return tuple((a, b, l - a - b) for a in range(l, -1, -1) for b in range(l - a, -1, -1))


@cache
def monomial_steps(l: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return for each monomial of degree l >= 1 its place at degree l - 1 and the axis to go on.

    monomials(l)[i] = monomials(l-1)[parents[i]] * n[axes[i]]: no powers, so every derivative is
    finite at zero components.
    """
    lower = {exponents: place for place, exponents in enumerate(monomial_exponents(l - 1))}
    parents, axes = [], []
    for exponents in monomial_exponents(l):
        axis = next(a for a in range(3) if exponents[a] > 0)
        a, b, c = (e - (other == axis) for other, e in enumerate(exponents))
        parents.append(lower[a, b, c])
        axes.append(axis)
    return tuple(parents), tuple(axes)


def _multiplicities(l: int) -> np.ndarray:
    """Return how many components of a symmetric tensor of rank l are the same monomial."""
    factorials = [math.prod(map(math.factorial, powers)) for powers in monomial_exponents(l)]
    return math.factorial(l) / np.array(factorials)


def _normalised_polynomials(l: int) -> np.ndarray:
    """Return (2l+1, monomials): U_l^T n^l as polynomials of n, from the norm of the tensors."""
    monomials = monomial_exponents(l)
    polynomials = [[h.get(powers, 0.0) for powers in monomials] for h in solid_harmonics(l)]
    norms = np.sqrt((np.array(polynomials) ** 2 / _multiplicities(l)).sum(axis=1, keepdims=True))
    return np.array(polynomials) / norms


@cache
def harmonic_coefficients(l: int) -> np.ndarray:
    """Return (2l+1, monomials): Y_l(n) = coefficients @ monomials(n), with ||Y_l||^2 = 2l + 1.

    Y_l(n) = sqrt((2l+1) c_l) U_l^T n^l.
    """
    return _read_only(_normalised_polynomials(l) * math.sqrt((2 * l + 1) * harmonic_norm(l)))


@cache
def contraction(l1: int, l2: int, l3: int) -> np.ndarray:
    """Return D_l3 (A o_k B) on packed tensors, shape (2l1+1, 2l2+1, 2l3+1), not normalised.

    k = (l1+l2-l3)/2 index pairs are contracted; where l1+l2-l3 is odd, one further pair goes
    through the Levi-Civita symbol: A_(a..)ik B_kj(b..) eps_ijm goes to C_(a..)m(b..), which for
    vectors is A x B. Zero outside |l1-l2| <= l3 <= l1+l2.
    """
    for l in (l1, l2, l3):
        check_degree(l)
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


def pack(tensor: Float[Tensor, "..."], l: int) -> Float[Tensor, "... components"]:
    """Return t = U_l^T T; what of T is not symmetric and traceless is projected out.

    Parameters
    ----------
    tensor
        (..., 3, 3, ...) with l axes of length 3 at the end.
    """
    check_degree(l)
    if tuple(tensor.shape[tensor.dim() - l :]) != (3,) * l or tensor.dim() < l:
        raise ValueError(
            f"a tensor of degree {l} has shape {tuple(tensor.shape)}, expected one that ends in "
            f"{(3,) * l}; put its {l} xyz axes last"
        )
    flat = tensor.reshape(*tensor.shape[: tensor.dim() - l], 3**l)  # (..., 3^l)
    return flat @ constant(packing(l), like=tensor)


def unpack(packed: Float[Tensor, "... components"], l: int) -> Float[Tensor, "..."]:
    """Return T = U_l t with its l axes of length 3 at the end, symmetric and traceless."""
    check_degree(l)
    _check_packed(packed, l)
    flat = packed @ constant(packing(l), like=packed).T  # (..., 3^l)
    return flat.reshape((*packed.shape[:-1], *(3,) * l))


def harmonics(vectors: Float[Tensor, "... 3"], l: int) -> Float[Tensor, "... components"]:
    """Return Y_l(n) of unit vectors n, packed, ||Y_l||^2 = 2l + 1.

    Homogeneous polynomials: a vector of length r gives r^l Y_l(n). The papers' T^l(n) is
    sqrt(c_l / (2l+1)) Y_l(n), see `harmonic_norm`.
    """
    check_degree(l)
    monomials = torch.ones_like(vectors[..., :1])
    for degree in range(1, l + 1):
        parents, axes = monomial_steps(degree)
        monomials = monomials[..., list(parents)] * vectors[..., list(axes)]
    return monomials @ constant(harmonic_coefficients(l), like=vectors).T


def product(
    first: Float[Tensor, "... first"],
    l1: int,
    second: Float[Tensor, "... second"],
    l2: int,
    l3: int,
) -> Float[Tensor, "... components"]:
    """Return the part of degree l3 of the product of two packed tensors, `contraction` applied.

    Even l1 + l2 + l3 keeps natural parities natural; an odd sum goes through the Levi-Civita
    symbol and makes a pseudo-tensor of two true ones. Leading axes are broadcast.

    >>> y, z, x = torch.eye(3)  # the order of packed vectors
    >>> product(x, 1, y, 1, 1)  # the cross product: z
    tensor([0., 1., 0.])
    """
    matrix = contraction(l1, l2, l3)
    if not abs(l1 - l2) <= l3 <= l1 + l2:
        raise ValueError(
            f"degrees {l1} and {l2} have no product of degree {l3}; "
            f"ask for one from {abs(l1 - l2)} to {l1 + l2}"
        )
    _check_packed(first, l1)
    _check_packed(second, l2)
    return torch.einsum("...a,...b,abc->...c", first, second, constant(matrix, like=first))


def rotation_matrix(rotation: Float[Tensor, "... 3 3"], l: int) -> Float[Tensor, "... d d"]:
    """Return R_l = U_l^T R^(x)l U_l, which turns packed tensors of natural parity: t' = R_l t.

    `rotation` acts on columns (x, y, z) and may be improper; a pseudo-tensor gets det R besides.
    """
    check_degree(l)
    leading, size = rotation.shape[:-2], 2 * l + 1
    turned = constant(packing(l), like=rotation).expand(*leading, 3**l, size)
    for _ in range(l):  # turns the first index and moves it behind the others, l times
        turned = rotation @ turned.reshape(*leading, 3, 3**l * size // 3)
        turned = turned.reshape(*leading, 3, 3**l // 3, size).transpose(-3, -2)
    return constant(packing(l), like=rotation).T @ turned.reshape(*leading, 3**l, size)


def constant(array: np.ndarray, *, like: Tensor) -> Tensor:
    """Return one of these cached matrices as a new tensor of the dtype and device of `like`.

    New each time: one made and kept under `torch.inference_mode` could not be differentiated later.
    """
    if not like.is_floating_point():
        raise TypeError(
            f"a tensor has dtype {like.dtype}, expected a floating one; convert it with .double()"
        )
    return torch.tensor(array.copy(), dtype=like.dtype, device=like.device)


def _check_packed(packed: Tensor, l: int) -> None:
    """Raise ValueError unless the last axis holds the 2l + 1 components of degree l."""
    if packed.dim() == 0 or packed.shape[-1] != 2 * l + 1:
        raise ValueError(
            f"a packed tensor of degree {l} has shape {tuple(packed.shape)}, expected "
            f"{2 * l + 1} components on its last axis; pack it with `pack(tensor, {l})`"
        )


def _read_only(array: np.ndarray) -> np.ndarray:
    """Return the array with writing switched off, so that a cached one cannot be damaged."""
    array.setflags(write=False)
    return array
