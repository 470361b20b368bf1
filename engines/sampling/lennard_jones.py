"""The Lennard-Jones fluid, fast enough for statistics: literature to hold dynamics to.

E = sum over pairs of 4 eps ((sigma/r)^12 - (sigma/r)^6), cut and shifted to zero at `cutoff`.
Pairs lie under a Verlet skin that follows a deforming cell (see `data/neighbour_skin.py`).
"""

from collections.abc import Sequence
from typing import final

import numpy as np
from ase import Atoms
from vesin import NeighborList

from tace_al.engines.sampling.potential import Potential
from tace_al.model.prediction import Prediction

SKIN = 0.3
"""In units of sigma."""


@final
class LennardJones(Potential):
    """Energy, forces and stress of atoms that are all alike, as a committee of one.

    Parameters
    ----------
    epsilon, sigma
        eV and A; argon's by default.
    cutoff
        In units of sigma.
    """

    def __init__(
        self, *, epsilon: float = 0.0103, sigma: float = 3.405, cutoff: float = 2.5
    ) -> None:
        self.epsilon, self.sigma, self.reach = epsilon, sigma, cutoff * sigma
        power = cutoff**-6
        self.shift = 4.0 * epsilon * (power * power - power)
        self._reference: tuple[np.ndarray, np.ndarray] | None = None
        self._pairs: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        """Return one prediction a frame."""
        return [self._predict(atoms) for atoms in frames]

    def _predict(self, atoms: Atoms) -> Prediction:
        positions, cell = atoms.positions, atoms.cell.array
        first, second, shifts = self._pairs_of(atoms)
        vectors = positions[second] - positions[first] + shifts @ cell
        squares = np.einsum("px,px->p", vectors, vectors)
        near = squares < self.reach**2
        first, second, vectors, squares = first[near], second[near], vectors[near], squares[near]
        power = (self.sigma**2 / squares) ** 3
        energy = float((4.0 * self.epsilon * (power * power - power) - self.shift).sum())
        # dE/dr / r along each pair
        slopes = -24.0 * self.epsilon * (2.0 * power * power - power) / squares
        pulls = slopes[:, None] * vectors
        forces = np.stack(
            [
                np.bincount(first, weights=pulls[:, axis], minlength=len(positions))
                - np.bincount(second, weights=pulls[:, axis], minlength=len(positions))
                for axis in range(3)
            ],
            axis=1,
        )
        stress = None
        if atoms.pbc.all():
            stress = np.einsum("px,py->xy", pulls, vectors) / atoms.get_volume()
        return Prediction(
            member_energies=np.array([energy]), member_forces=forces[None], stress=stress
        )

    def _pairs_of(self, atoms: Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return pairs within cutoff and skin, the former ones while they serve."""
        positions, box = atoms.positions, atoms.cell.complete().array
        skin = SKIN * self.sigma
        if self._reference is not None and len(self._reference[0]) == len(positions):
            before, cell = self._reference
            strain = np.linalg.solve(cell, box)
            moved = np.linalg.norm(positions - before @ strain, axis=1).max()
            least = np.linalg.svd(strain, compute_uv=False)[-1]
            if self.reach + 2.0 * moved <= least * (self.reach + skin):
                assert self._pairs is not None
                return self._pairs
        neighbours = NeighborList(cutoff=self.reach + skin, full_list=False)
        found = neighbours.compute(points=positions, box=box, periodic=atoms.pbc, quantities="ijS")
        first, second, shifts = (np.asarray(part) for part in found)
        self._pairs = (first.astype(np.int64), second.astype(np.int64), shifts.astype(float))
        self._reference = (positions.copy(), box.copy())
        return self._pairs
