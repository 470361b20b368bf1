"""Extended tight binding (GFN1-xTB, GFN2-xTB) through tblite: milliseconds a label, no cluster.

GFN1: Grimme, Bannwarth, Shushkov, 10.1021/acs.jctc.7b00118. GFN2: Bannwarth, Ehlert, Grimme,
10.1021/acs.jctc.8b01176. The energy is the electronic free energy at the electronic temperature,
whose exact gradient the forces are.

Conventions: tblite knows molecules and three-dimensional crystals only; a slab (two periodic
directions) is run as a crystal with the vacuum its third lattice vector leaves. The dipole of a
charged molecule refers to the origin of the coordinates.
"""

import time
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Literal, final

import numpy as np
from ase import Atoms

from tace_al.core.errors import LabelFailed, LabellerMissing
from tace_al.core.labels import Fidelity, Label
from tace_al.core.units import BOHR, BOLTZMANN, HARTREE
from tace_al.data.frames import spin_multiplicity, structure_key, total_charge
from tace_al.engines.labelling.labeller import Labeller

if TYPE_CHECKING:
    from tblite.interface import Calculator, Result

Method = Literal["gfn1", "gfn2"]

_TBLITE_NAMES = {"gfn1": "GFN1-xTB", "gfn2": "GFN2-xTB"}
_HEAVIEST = 86
# (factor on the iteration limit, mixer damping, mixer memory, initial guess): roads to the same
# fixed point. tblite's default remembers every iteration, which fails on stretched closed shells
# where a memory of 10 converges at once, and costs cubically in the iterations. Guess 0:
# superposed atoms; 1: electronegativity equilibration.
_SCF_LADDER = ((1, 0.4, 10, 0), (1, 0.4, 10, 1), (2, 0.1, 20, 0))


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class XTBLabeller(Labeller):
    """GFN1-xTB or GFN2-xTB.

    Parameters
    ----------
    method
        "gfn1" or "gfn2".
    accuracy
        tblite's factor on every threshold of the self-consistent field; smaller is tighter.
    electronic_temperature
        Fermi smearing in K.
    max_iterations
        Iterations of the first attempt; later attempts, with a steadier mixer, get more.
    """

    method: Method = "gfn2"
    accuracy: float = 1.0
    electronic_temperature: float = 300.0
    max_iterations: int = 250

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if self.method not in _TBLITE_NAMES:
            raise ValueError(f"`method` is '{self.method}', expected 'gfn1' or 'gfn2'")
        for name in ("accuracy", "electronic_temperature", "max_iterations"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` is {getattr(self, name)}, expected a positive number")

    @property
    def fidelity(self) -> Fidelity:
        """The method, tblite's version, thresholds and smearing.

        Raises
        ------
        LabellerMissing
            tblite is not installed.
        """
        return Fidelity(
            name=self.method,
            code=f"tblite {_tblite_version()}",
            settings={
                "method": _TBLITE_NAMES[self.method],
                "accuracy": float(self.accuracy),
                "electronic_temperature": float(self.electronic_temperature),
            },
        )

    def label(self, atoms: Atoms) -> Label:
        """Return energy, forces and dipole, and the stress of a three-dimensional crystal.

        Raises
        ------
        LabelFailed
            "convergence" when no rung of the ladder converges, "elements" beyond radon, "cell"
            when a periodic structure lacks a lattice vector, "crash" otherwise.
        LabellerMissing
            tblite is not installed.
        """
        fidelity_key = self.fidelity.key
        start = time.perf_counter()
        result = self._converged(atoms)
        stress = None
        if atoms.pbc.all():
            virial = np.asarray(result.get("virial")) * HARTREE
            stress = 0.5 * (virial + virial.T) / atoms.get_volume()
        return Label(
            structure_key=structure_key(atoms),
            fidelity_key=fidelity_key,
            energy=float(result.get("energy")) * HARTREE,
            forces=-np.asarray(result.get("gradient")) * HARTREE / BOHR,
            stress=stress,
            dipole=np.asarray(result.get("dipole")) * BOHR,
            seconds=time.perf_counter() - start,
        )

    def _converged(self, atoms: Atoms) -> "Result":
        """Climb the ladder until the self-consistent field converges."""
        calculator = self._calculator(atoms)
        for factor, damping, memory, guess in _SCF_LADDER:
            calculator.set("max-iter", factor * self.max_iterations)
            calculator.set("mixer-damping", damping)
            calculator.set("mixer-memory", memory)
            calculator.set("guess", guess)
            try:
                return calculator.singlepoint()
            except RuntimeError as error:
                if "not converged" not in str(error):
                    raise LabelFailed(
                        "crash",
                        f"tblite stopped on {atoms.get_chemical_formula()}: {error}; "
                        "look at the structure, it is most likely unphysical",
                    ) from error
        raise LabelFailed(
            "convergence",
            f"the self-consistent field of {atoms.get_chemical_formula()} did not converge in "
            f"{len(_SCF_LADDER)} attempts; check charge and multiplicity, or raise "
            "electronic_temperature (a different level of theory) for a metal or broken bonds",
        )

    def _calculator(self, atoms: Atoms) -> "Calculator":
        """Return tblite's calculator of one structure, quiet and with every setting in place."""
        from tblite.interface import Calculator

        if int(atoms.numbers.max()) > _HEAVIEST:
            raise LabelFailed(
                "elements",
                "xTB has parameters up to radon (Z = 86) only and the structure holds a heavier "
                "element; use another labeller",
            )
        periodic = bool(atoms.pbc.any())
        if periodic and abs(atoms.cell.volume) < 1e-3:
            raise LabelFailed(
                "cell",
                "xTB needs three lattice vectors for a periodic structure and the cell has no "
                "volume; add vacuum along the open direction, e.g. atoms.center(10, axis=2)",
            )
        try:
            calculator = Calculator(
                _TBLITE_NAMES[self.method],
                atoms.numbers,
                atoms.positions / BOHR,
                charge=float(total_charge(atoms)),
                uhf=spin_multiplicity(atoms) - 1,
                lattice=atoms.cell.array / BOHR if periodic else None,
                periodic=np.full(3, True) if periodic else None,
            )
        except RuntimeError as error:
            kind = "contact" if "close" in str(error) else "crash"
            raise LabelFailed(
                kind,
                f"tblite refuses {atoms.get_chemical_formula()}: {error}; check the structure",
            ) from error
        calculator.set("verbosity", 0)
        calculator.set("accuracy", self.accuracy)
        calculator.set("temperature", self.electronic_temperature * BOLTZMANN / HARTREE)
        return calculator


def _tblite_version() -> str:
    """Return tblite's version without importing it."""
    try:
        return metadata.version("tblite")
    except metadata.PackageNotFoundError as error:
        raise LabellerMissing(
            "the labellers gfn1 and gfn2 need tblite, which is not installed; "
            "install it with: pip install tblite"
        ) from error
