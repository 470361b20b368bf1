"""Molecules with PySCF: Hartree-Fock, density-functional theory and second-order perturbation.

Sun et al., 10.1063/5.0006074. Closed shells are restricted (RHF, RKS, MP2), open shells
unrestricted (UHF, UKS, UMP2), as the multiplicity says. MP2 (Moller and Plesset,
10.1103/PhysRev.46.618) correlates every electron, so that gradients are those of the energy.

PySCF returns a number whether or not its field is self-consistent; here that is a failed label of
the kind "convergence". The dipole of the mean field (also for MP2) is in e A; that of an ion has no
meaning without an origin and is left out.
"""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any, Literal, final

import numpy as np
from ase import Atoms

from tace_al.core.errors import LabelFailed, LabellerMissing
from tace_al.core.labels import Fidelity, Label, Setting
from tace_al.core.units import BOHR, HARTREE
from tace_al.data.frames import spin_multiplicity, structure_key, total_charge
from tace_al.engines.labelling.labeller import Labeller

Method = Literal["hf", "dft", "mp2"]

_DEBYE = 0.20819433270935597  # e A
_LOG_LINES = 40
_METHODS = ("hf", "dft", "mp2")


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class PySCFLabeller(Labeller):
    """PySCF on one thread.

    Parameters
    ----------
    method
        "hf", "dft" or "mp2".
    xc
        Functional of "dft" by PySCF's name: "pbe", "b3lyp", "pbe0", ...
    basis
        Basis set by PySCF's name.
    density_fitting
        Expand products of orbitals in an auxiliary basis: several times faster from ten atoms on,
        1e-4 eV an atom.
    grid_level
        0 (coarse) to 9: integration grid of "dft".
    convergence
        Change of the energy in Hartree below which the field is self-consistent.
    gradient_convergence
        Norm of the orbital gradient in Hartree that it must have then.
    guess
        First density: "minao", "atom", "huckel", "1e" or "vsap".
    max_cycle, damping, level_shift, newton
        The way to self-consistency, which leaves the result alone: limit of cycles, share of the
        old Fock matrix, Hartree between occupied and empty orbitals, second-order steps.
    memory_mb
        Working memory.
    name
        Name of the fidelity, and of the model's head; "" is "hf", "mp2", or "pyscf" for "dft". Two
        functionals in one campaign need two names.
    """

    method: Method = "dft"
    xc: str = "pbe"
    basis: str = "def2-svp"
    density_fitting: bool = False
    grid_level: int = 3
    convergence: float = 1e-9
    gradient_convergence: float = 3e-5
    guess: str = "minao"
    max_cycle: int = 100
    damping: float = 0.0
    level_shift: float = 0.0
    newton: bool = False
    memory_mb: int = 2000
    name: str = ""

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if self.method not in _METHODS:
            raise ValueError(f"`method` is '{self.method}', expected 'hf', 'dft' or 'mp2'")
        for name in ("convergence", "gradient_convergence", "max_cycle", "memory_mb"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` is {getattr(self, name)}, expected a positive number")
        if self.method == "mp2" and self.density_fitting:
            raise ValueError("`density_fitting` has no forces with method=mp2; leave it out")
        if not 0 <= self.grid_level <= 9:
            raise ValueError(f"`grid_level` is {self.grid_level}, expected 0 to 9")
        if not 0 <= self.damping < 1:
            raise ValueError(f"`damping` is {self.damping}, expected 0 or more and below 1")

    @property
    def fidelity(self) -> Fidelity:
        """Method, basis, thresholds and PySCF's version.

        Raises
        ------
        LabellerMissing
            PySCF is not installed.
        """
        settings: dict[str, Setting] = {
            "method": self.method,
            "basis": self.basis,
            "density_fitting": self.density_fitting,
            "convergence": float(self.convergence),
            "gradient_convergence": float(self.gradient_convergence),
            "guess": self.guess,
        }
        if self.method == "dft":
            settings |= {"xc": self.xc, "grid_level": self.grid_level}
        name = self.name or ("pyscf" if self.method == "dft" else self.method)
        return Fidelity(name=name, code=f"pyscf {_version()}", settings=settings)

    def retries(self, kind: str) -> "tuple[PySCFLabeller, ...]":
        """Return steadier ways to the same field; none but for "convergence".

        First damping and a level shift, which carry a field that swings to and fro, then
        second-order steps, which go downhill from wherever they are.
        """
        if kind != "convergence":
            return ()
        steady = replace(
            self, max_cycle=max(3 * self.max_cycle, 150), damping=0.3, level_shift=0.25
        )
        second_order = replace(self, max_cycle=max(self.max_cycle, 100), newton=True)
        return steady, second_order

    def label(self, atoms: Atoms) -> Label:
        """Return energy, forces, and the dipole of a neutral molecule.

        Raises
        ------
        LabelFailed
            "cell" for a periodic structure, "convergence", "elements" without a basis, or
            "crash"; PySCF's last lines are its note.
        LabellerMissing
            PySCF is not installed.
        """
        start = time.perf_counter()
        fidelity_key = self.fidelity.key
        if atoms.pbc.any():
            raise LabelFailed(
                "cell",
                f"the labeller pyscf knows molecules only and the structure is periodic (pbc = "
                f"{atoms.pbc.tolist()}); use gpaw for a slab or a crystal, or set pbc to false",
            )
        log = io.StringIO()
        try:
            energy, gradient, dipole = self._computed(atoms, log)
        except LabelFailed as error:
            error.add_note(_tail(log))
            raise
        except ImportError as error:
            raise LabellerMissing(
                f"the labeller pyscf cannot be loaded ({error}); install it with: pip install pyscf"
            ) from error
        # the border to a foreign code, which raises what it likes
        except Exception as error:
            failed = _explained(error, atoms)
            failed.add_note(_tail(log))
            raise failed from error
        return Label(
            structure_key=structure_key(atoms),
            fidelity_key=fidelity_key,
            energy=energy,
            forces=-gradient,
            dipole=dipole,
            seconds=time.perf_counter() - start,
        )

    def _computed(
        self, atoms: Atoms, log: io.StringIO
    ) -> tuple[float, np.ndarray, np.ndarray | None]:
        """Return energy (eV), gradient (eV/A) and dipole (e A)."""
        from pyscf import lib

        with lib.with_omp_threads(1):
            field = self._field(atoms, log)
            energy = float(field.kernel())
            if not field.converged:
                raise LabelFailed(
                    "convergence",
                    f"the self-consistent field of {atoms.get_chemical_formula()} did not converge "
                    f"in {self.max_cycle} cycles; check charge and multiplicity, or the geometry",
                )
            dipole = None
            if total_charge(atoms) == 0:
                dipole = np.asarray(field.dip_moment(unit="Debye", verbose=0)) * _DEBYE
            if self.method == "mp2":
                from pyscf import mp

                perturbed = mp.MP2(field)
                perturbed.verbose = 0
                perturbed.kernel()
                energy = float(perturbed.e_tot)
                gradient = perturbed.nuc_grad_method().kernel()
            else:
                slope = field.nuc_grad_method()
                if self.method == "dft":
                    # without the motion of the grid, forces miss the energy's slope by 0.01 eV/A
                    slope.grid_response = True
                gradient = slope.kernel()
        return energy * HARTREE, np.asarray(gradient) * HARTREE / BOHR, dipole

    def _field(self, atoms: Atoms, log: io.StringIO) -> Any:
        """Return PySCF's mean field of one structure, ready to run."""
        from pyscf import dft, gto, scf
        from pyscf.scf import hf

        hf.MUTE_CHKFILE = True  # else every field opens a file it never needs
        molecule = gto.Mole()
        # from level 2 on PySCF writes warnings to standard error, whatever its output is
        molecule.verbose, molecule.stdout = 1, log
        molecule.build(
            dump_input=False,
            parse_arg=False,
            atom=list(zip(atoms.get_chemical_symbols(), atoms.positions.tolist(), strict=True)),
            unit="Angstrom",
            basis=self.basis,
            charge=total_charge(atoms),
            spin=spin_multiplicity(atoms) - 1,
            max_memory=self.memory_mb,
        )
        open_shell = spin_multiplicity(atoms) > 1
        if self.method == "dft":
            field = dft.UKS(molecule) if open_shell else dft.RKS(molecule)
            field.xc = self.xc
            field.grids.level = self.grid_level
        else:
            field = scf.UHF(molecule) if open_shell else scf.RHF(molecule)
        if self.density_fitting:
            field = field.density_fit()
        field.callback = _cycle_writer(log)
        field.conv_tol, field.conv_tol_grad = self.convergence, self.gradient_convergence
        field.init_guess = self.guess
        field.max_cycle = self.max_cycle
        if self.damping:
            field.damp = self.damping
        field.level_shift = self.level_shift
        return field.newton() if self.newton else field


def _cycle_writer(log: io.StringIO) -> Callable[[dict[str, Any]], None]:
    """Return what PySCF calls after every cycle with its local variables."""

    def write(found: dict[str, Any]) -> None:
        energy, gradient = found.get("e_tot"), found.get("norm_gorb")
        log.write(f"energy {energy} Hartree, orbital gradient {gradient}\n")

    return write


def _tail(log: io.StringIO) -> str:
    """Return the last lines of PySCF's output."""
    return "\n".join(log.getvalue().splitlines()[-_LOG_LINES:])


def _explained(error: Exception, atoms: Atoms) -> LabelFailed:
    """Return PySCF's exception as a failed label with a kind."""
    formula = atoms.get_chemical_formula()
    said = str(error).strip().partition("\n")[0] or type(error).__name__
    if type(error).__name__ == "BasisNotFoundError":
        return LabelFailed(
            "elements",
            f"PySCF has no such basis for every element of {formula} ({said}); choose another "
            "with the option basis",
        )
    if "LibXCFunctional" in said:
        return LabelFailed(
            "crash",
            f"PySCF stopped on {formula}, for it knows no such functional ({said}); choose another "
            "with the option xc",
        )
    return LabelFailed(
        "crash",
        f"PySCF stopped on {formula} with {type(error).__name__}: {said}; "
        "its last lines are in the log of the failed label",
    )


def _version() -> str:
    """Return PySCF's version without importing it."""
    try:
        return metadata.version("pyscf")
    except metadata.PackageNotFoundError as error:
        raise LabellerMissing(
            "the labeller pyscf needs pyscf, which is not installed; "
            "install it with: pip install pyscf"
        ) from error
