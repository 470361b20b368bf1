"""Effective medium theory for fcc metals with adsorbed H, C, N and O: the seconds-long twin.

Jacobsen, Stoltze, Norskov, 10.1016/0039-6028(96)00816-3, in ASE's implementation. Meaningful for
surfaces of Al, Cu, Ag, Au, Ni, Pd and Pt only: gas molecules fall apart in it. For tests and
teaching.
"""

import time
from dataclasses import dataclass
from typing import final

import ase
from ase import Atoms
from ase.calculators.emt import EMT, parameters

from tace_al.core.errors import LabelFailed
from tace_al.core.labels import Fidelity, Label
from tace_al.data.frames import structure_key, total_charge
from tace_al.engines.labelling.labeller import Labeller


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class EMTLabeller(Labeller):
    """ASE's effective medium theory; it has no settings."""

    @property
    def fidelity(self) -> Fidelity:
        """ASE's version, for its EMT parameters."""
        return Fidelity(name="emt", code=f"ase {ase.__version__}", settings={"method": "EMT"})

    def label(self, atoms: Atoms) -> Label:
        """Return energy and forces, and the stress of a structure periodic in all directions.

        Raises
        ------
        LabelFailed
            "elements" outside EMT's set, "charge" when the structure is charged.
        """
        unknown = sorted(set(atoms.symbols) - set(parameters))
        if unknown:
            raise LabelFailed(
                "elements",
                f"EMT has no parameters for {', '.join(unknown)}, only for "
                f"{', '.join(sorted(parameters))}; use another labeller, e.g. gfn2",
            )
        if total_charge(atoms) != 0:
            raise LabelFailed(
                "charge",
                f"EMT knows no charge and the structure has {total_charge(atoms):+d} e; "
                "use another labeller, e.g. gfn2",
            )
        start = time.perf_counter()
        probe = Atoms(
            numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc
        )
        probe.calc = EMT()
        return Label(
            structure_key=structure_key(atoms),
            fidelity_key=self.fidelity.key,
            energy=float(probe.get_potential_energy()),
            forces=probe.get_forces(),
            stress=probe.get_stress(voigt=False) if atoms.pbc.all() else None,
            seconds=time.perf_counter() - start,
        )
