"""Decomposition of Cartesian tensors of rank 0 to 4 into irreducible parts, and back.

A tensor of rank n is a sum of irreducible parts, each equivalent to a symmetric traceless tensor of
a degree l <= n. Every part has a basis Q (3^n x (2l+1), orthonormal columns) that commutes with
rotations,

    R^(x)n Q = det(R)^(n-l) Q R_l,      R_l = U_l^T R^(x)l U_l,

so that q = Q^T T has the components of a packed tensor of degree l (`tace_al.model.cartesian`) and
T = sum_parts Q q. All columns together are orthonormal: the decomposition keeps the norm.

    rank   l = 0   1   2   3   4        rank   l = 0   1   2   3   4
    0          1                        3          1   3   2   1
    1              1                    4          3   6   6   3   1
    2          1   1   1

Bases of all 3^n components are built by coupling: rank 2 from two vectors, rank 3 from rank 2 and a
vector, rank 4 from two tensors of rank 2, through every degree of the factors, with the isometric
coupling of `cartesian.coupling`. An index symmetry is a group of signed permutations; the mean over
the group, P, commutes with rotations and acts on the copies of a degree as a matrix M_ab,
Q_a^T P Q_b = M_ab 1. Gram-Schmidt on its columns, in the order of the couplings, leaves the bases
of the symmetric tensors. With the symmetry of elastic constants the two scalars are thus
3 times the bulk and 2 sqrt(5) times the shear modulus (Voigt averages).

Jerphagnon, Chemla, Bonneville, Adv. Phys. 27, 609 (1978), 10.1080/00018737800101454.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tace_al.model import cartesian

MAX_RANK = 4

# A residue of Gram-Schmidt below this is rounding: the smallest true one at rank 4 is above 0.1.
DEPENDENT = 1e-6

Permutation = tuple[int, ...]


@final
@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class IrreduciblePart:
    """One irreducible part of a tensor.

    Parameters
    ----------
    degree
        l: the part has 2l + 1 components, ordered as every packed tensor.
    copy
        0, 1, ... among the parts of the same degree.
    natural
        Whether rank - l is even: the part has the parity (-1)^l. If not, it is a pseudo-tensor,
        which gets det R besides.
    basis
        (3^rank, 2l + 1) orthonormal columns.
    """

    degree: int
    copy: int
    natural: bool
    basis: np.ndarray


@final
@dataclass(frozen=True, slots=True)
class IrreducibleDecomposition:
    """The irreducible parts of all tensors of one rank and index symmetry.

    Parameters
    ----------
    rank
        Number of indices, 0 to 4.
    symmetry
        Equal components, such as "ij=ji" (symmetric), "ij=-ji" (antisymmetric), "ijk=ikj"
        (piezoelectric), "ijkl=jikl=klij" (elastic): every term is a permutation of the first,
        perhaps with a sign. None by default.

    Raises
    ------
    ValueError
        The rank is out of range; the symmetry cannot be read; only the zero tensor has it.

    Examples
    --------
    >>> [part.degree for part in IrreducibleDecomposition(4, "ijkl=jikl=klij").parts]
    [0, 0, 2, 2, 4]
    >>> symmetric = IrreducibleDecomposition(2, "ij=ji")
    >>> isotropic, deviatoric = symmetric.decompose(torch.eye(3))
    >>> isotropic
    tensor([1.7321])
    """

    rank: int
    symmetry: str = ""

    def __post_init__(self) -> None:
        """Refuse what has no decomposition."""
        _parts(self.rank, self.symmetry)

    @property
    def parts(self) -> tuple[IrreduciblePart, ...]:
        """All parts, by ascending degree."""
        return _parts(self.rank, self.symmetry)

    @property
    def multiplicities(self) -> dict[int, int]:
        """How many parts there are of each degree."""
        return dict(Counter(part.degree for part in self.parts))

    @property
    def matrix(self) -> np.ndarray:
        """(3^rank, dimension): the bases of all parts side by side."""
        return _matrix(self.rank, self.symmetry)

    @property
    def dimension(self) -> int:
        """Number of independent components, the sum of 2l + 1 over the parts."""
        return self.matrix.shape[1]

    def decompose(self, tensor: Float[Tensor, "..."]) -> list[Tensor]:
        """Return the packed parts, each (..., 2l + 1), in the order of `parts`.

        Parameters
        ----------
        tensor
            (..., 3, 3, ...) with `rank` axes of length 3 at the end. What of it lacks the symmetry
            is projected out.
        """
        leading = tensor.shape[: max(tensor.dim() - self.rank, 0)]
        if tuple(tensor.shape[len(leading) :]) != (3,) * self.rank:
            raise ValueError(
                f"a tensor of rank {self.rank} has shape {tuple(tensor.shape)}, expected one that "
                f"ends in {(3,) * self.rank}; put its {self.rank} xyz axes last"
            )
        flat = tensor.reshape(*leading, 3**self.rank)
        packed = flat @ cartesian.constant(self.matrix, like=tensor)  # (..., dimension)
        return list(packed.split([2 * part.degree + 1 for part in self.parts], dim=-1))

    def compose(self, parts: Sequence[Float[Tensor, "..."]]) -> Float[Tensor, "..."]:
        """Return the tensor (..., 3, 3, ...) that has these packed parts: undo `decompose`."""
        found = [part.shape[-1] if part.dim() else 0 for part in parts]
        expected = [2 * part.degree + 1 for part in self.parts]
        if found != expected:
            raise ValueError(
                f"the parts have {found} components, expected {expected} for rank {self.rank} and "
                f"symmetry '{self.symmetry}'; give them in the order of `parts`"
            )
        leading = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
        packed = torch.cat([part.expand(*leading, -1) for part in parts], dim=-1)
        flat = packed @ cartesian.constant(self.matrix, like=packed).T  # (..., 3^rank)
        return flat.reshape((*packed.shape[:-1], *(3,) * self.rank))


@cache
def _parts(rank: int, symmetry: str) -> tuple[IrreduciblePart, ...]:
    """Return the parts by ascending degree, or raise ValueError."""
    if not isinstance(rank, int) or not 0 <= rank <= MAX_RANK:
        raise ValueError(
            f"the rank of a tensor is {rank!r}, expected a whole number from 0 to {MAX_RANK}; "
            "pass such a rank"
        )
    group = _symmetry_group(rank, symmetry)
    parts = []
    for degree in sorted({degree for degree, _ in _coupled_bases(rank)}):
        bases = np.stack([basis for l, basis in _coupled_bases(rank) if l == degree])
        for copy, basis in enumerate(_symmetric_bases(bases, rank, group)):
            basis.setflags(write=False)
            natural = (rank - degree) % 2 == 0
            parts.append(IrreduciblePart(degree=degree, copy=copy, natural=natural, basis=basis))
    if not parts:
        raise ValueError(
            f"only the zero tensor has the symmetry '{symmetry}'; remove one of its relations"
        )
    return tuple(parts)


@cache
def _matrix(rank: int, symmetry: str) -> np.ndarray:
    """Return all bases side by side, read-only."""
    matrix = np.concatenate([part.basis for part in _parts(rank, symmetry)], axis=1)
    matrix.setflags(write=False)
    return matrix


@cache
def _coupled_bases(rank: int) -> tuple[tuple[int, np.ndarray], ...]:
    """Return (degree, (3^rank, 2 degree + 1)) for every way to couple `rank` vectors."""
    if rank < 2:
        return ((rank, cartesian.packing(rank)),)
    bases = []
    for l1, first in _coupled_bases(rank - rank // 2):
        for l2, second in _coupled_bases(rank // 2):
            for l3 in range(abs(l1 - l2), l1 + l2 + 1):
                coupling = cartesian.coupling(l1, l2, l3)  # its columns have unit norm
                basis = np.einsum("xa,yb,abc->xyc", first, second, coupling, optimize=True)
                bases.append((l3, basis.reshape(3**rank, 2 * l3 + 1)))
    return tuple(bases)


def _symmetric_bases(
    bases: np.ndarray, rank: int, group: dict[Permutation, int]
) -> list[np.ndarray]:
    """Return orthonormal bases of what the copies of one degree, (copies, 3^rank, 2l+1), leave."""
    num_copies, _, size = bases.shape
    tensors = bases.reshape(num_copies, *(3,) * rank, size)
    mean = np.zeros_like(tensors)
    for permutation, sign in group.items():
        axes = (0, *(1 + axis for axis in permutation), rank + 1)
        mean += sign / len(group) * tensors.transpose(axes)
    projection = np.einsum("axm,bxm->ab", bases, mean.reshape(bases.shape)) / size
    chosen: list[np.ndarray] = []
    for column in projection.T:
        for _ in range(2):  # twice is enough: the second pass removes the rounding of the first
            column = column - sum(((known @ column) * known for known in chosen), start=0.0)
        norm = np.linalg.norm(column)
        if norm > DEPENDENT:
            chosen.append(column / norm)
    return [np.einsum("a,axm->xm", mixture, bases) for mixture in chosen]


def _symmetry_group(rank: int, symmetry: str) -> dict[Permutation, int]:
    """Return every permutation of axes that the symmetry implies, with its sign.

    T.transpose(permutation) * sign = T for all of them.
    """
    identity = tuple(range(rank))
    group: dict[Permutation, int] = {identity: 1}
    generators = _relations(rank, symmetry)
    fresh = [(identity, 1)]
    while fresh:
        old, old_sign = fresh.pop()
        for permutation, sign in generators:
            new, new_sign = tuple(old[axis] for axis in permutation), old_sign * sign
            if group.get(new, new_sign) != new_sign:
                raise ValueError(
                    f"the symmetry '{symmetry}' contradicts itself: only the zero tensor has it; "
                    "correct a sign or remove a relation"
                )
            if new not in group:
                group[new] = new_sign
                fresh.append((new, new_sign))
    return group


def _relations(rank: int, symmetry: str) -> list[tuple[Permutation, int]]:
    """Return the permutations and signs that a symmetry states, relative to its first term."""
    terms = symmetry.replace(" ", "").split("=") if symmetry.strip() else []
    if len(terms) == 1:
        raise ValueError(f"the symmetry '{symmetry}' has no '='; write it like 'ij=ji'")
    relations = []
    for term in terms:
        first, letters = terms[0].removeprefix("-"), term.removeprefix("-")
        if not letters.isalpha() or len(set(letters)) != len(letters) or len(letters) != rank:
            raise ValueError(
                f"the term '{term}' of the symmetry '{symmetry}' is not {rank} different letters, "
                f"one for each index of a tensor of rank {rank}; write it like 'ij=ji' or 'ij=-ji'"
            )
        if set(letters) != set(first):
            raise ValueError(
                f"the term '{term}' of the symmetry '{symmetry}' is not a permutation of "
                f"'{first}'; use the same letters in every term"
            )
        sign = -1 if terms[0].startswith("-") != term.startswith("-") else 1
        relations.append((tuple(letters.index(letter) for letter in first), sign))
    return relations
