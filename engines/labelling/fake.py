"""A labeller that costs nothing and ships with the package: Morse pairs, optional failures.

E = sum_{i<j} D [(1 - exp(-a (r - r0)))^2 - 1] s(r), with r0 the sum of the covalent radii and s a
smooth switch to zero at the cutoff (Morse, 10.1103/PhysRev.34.57). Forces and stress are exact
derivatives, so models can be trained on it and dynamics run with it; periodic images included.
"""

import time
from dataclasses import dataclass
from typing import final

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from vesin import NeighborList

from tace_al.core.errors import LabelFailed
from tace_al.core.labels import Fidelity, Label
from tace_al.data.frames import structure_key
from tace_al.engines.labelling.labeller import Labeller


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class FakeLabeller(Labeller):
    """Morse pairs between all atoms, for tests of everything around a labeller.

    Parameters
    ----------
    depth
        Well depth D of every pair in eV.
    stiffness
        a in 1/A.
    cutoff
        Distance in A where the pair energy has been switched to zero.
    fail_every
        0: never fail; n: fail on about one structure in n. Which ones depends on their content
        only, so every process and every retry agrees.
    fail_kind
        Kind of those failures.
    delay_s
        Sleep this long a label, in s.
    """

    depth: float = 1.0
    stiffness: float = 1.5
    cutoff: float = 5.0
    fail_every: int = 0
    fail_kind: str = "convergence"
    delay_s: float = 0.0

    @property
    def fidelity(self) -> Fidelity:
        """The pair parameters; failures and delays change no number and stay out."""
        return Fidelity(
            name="fake",
            code="tace-al morse 1",
            settings={
                "depth": float(self.depth),
                "stiffness": float(self.stiffness),
                "cutoff": float(self.cutoff),
            },
        )

    def label(self, atoms: Atoms) -> Label:
        """Return energy, forces and (with a volume) stress.

        Raises
        ------
        LabelFailed
            `fail_kind`, on the share of structures that `fail_every` asks for.
        """
        start = time.perf_counter()
        if self.delay_s > 0:
            time.sleep(self.delay_s)
        key = structure_key(atoms)
        if self.fail_every > 0 and int(key[:8], 16) % self.fail_every == 0:
            raise LabelFailed(self.fail_kind, "the fake labeller was asked to fail here; go on")
        energy, forces, virial = self._energy_forces_virial(atoms)
        return Label(
            structure_key=key,
            fidelity_key=self.fidelity.key,
            energy=energy,
            forces=forces,
            stress=virial / atoms.get_volume() if atoms.pbc.all() else None,
            seconds=time.perf_counter() - start,
        )

    def _energy_forces_virial(self, atoms: Atoms) -> tuple[float, np.ndarray, np.ndarray]:
        """Return energy, (atoms, 3) forces and (3, 3) dE/dstrain."""
        neighbours = NeighborList(cutoff=self.cutoff, full_list=False)
        box = atoms.cell.complete().array if atoms.pbc.any() else np.eye(3)
        first, second, r, vectors = neighbours.compute(
            points=atoms.positions, box=box, periodic=atoms.pbc, quantities="ijdD"
        )
        r0 = covalent_radii[atoms.numbers[first]] + covalent_radii[atoms.numbers[second]]
        decay = np.exp(-self.stiffness * (r - r0))
        well = self.depth * ((1.0 - decay) ** 2 - 1.0)
        well_slope = 2.0 * self.depth * self.stiffness * decay * (1.0 - decay)
        # s = 1 - 10 x^3 + 15 x^4 - 6 x^5 over the outer half: two derivatives vanish at both ends
        x = np.clip(2.0 * r / self.cutoff - 1.0, 0.0, 1.0)
        switch = 1.0 - x**3 * (10.0 - 15.0 * x + 6.0 * x**2)
        switch_slope = -30.0 * x**2 * (1.0 - x) ** 2 * 2.0 / self.cutoff
        slope = well_slope * switch + well * switch_slope
        gradients = (slope / r)[:, None] * vectors  # (pairs, 3), dE/dr_j
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, first.astype(np.int64), gradients)
        np.add.at(forces, second.astype(np.int64), -gradients)
        return float((well * switch).sum()), forces, vectors.T @ gradients
