"""Any ASE calculator as a labeller, named by its import path: "ase.calculators.lj:LennardJones".

The bridge to codes without a labeller of their own. Only the options given are known to the
fidelity, so give every setting that changes a number. Where the calculator tells the free energy of
its smearing, that is the label's energy: forces are its gradient, and not that of the energy
extrapolated to zero width.
"""

import importlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from types import MappingProxyType
from typing import final

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_properties
from ase.geometry import find_mic

from tace_al.core.errors import ConfigError, LabelFailed, LabellerMissing, TaceError
from tace_al.core.labels import Fidelity, Label, Setting
from tace_al.data.frames import spin_multiplicity, structure_key, total_charge
from tace_al.engines.labelling.labeller import Labeller

SAME_PLACE = 1e-4
"""A; further than that no atom may be found from where it was put, rounding in files included."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class ASELabeller(Labeller):
    """A calculator built anew for every structure from its import path and plain options.

    Parameters
    ----------
    factory
        "package.module:Name" of a calculator class or of a function that returns a calculator.
    options
        Keyword arguments of the factory.
    charge_option, multiplicity_option
        Names of the factory's keywords for total charge and spin multiplicity. Without them a
        charged structure, or one that is not in its lowest multiplicity, is refused: the
        calculator would silently ignore it.
    """

    factory: str
    options: Mapping[str, Setting] = field(default_factory=dict)
    charge_option: str | None = None
    multiplicity_option: str | None = None

    def __post_init__(self) -> None:
        """Freeze the options."""
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle as plain values (a mapping proxy cannot be pickled)."""
        return (
            _rebuild,
            (self.factory, dict(self.options), self.charge_option, self.multiplicity_option),
        )

    @property
    def fidelity(self) -> Fidelity:
        """The factory, its package's version, every option, and which energy is read."""
        module, _, name = self.factory.partition(":")
        return Fidelity(
            name=name.lower(),
            code=f"{self.factory} {_version(module.partition('.')[0])}",
            settings={**self.options, "energy_read": "free_energy, else energy"},
        )

    def label(self, atoms: Atoms) -> Label:
        """Return energy and forces, and stress and dipole where the calculator has them.

        Raises
        ------
        ConfigError
            The import path names nothing, or the factory refuses the options.
        LabellerMissing
            The package, or one that it needs, is not installed.
        LabelFailed
            "charge" when charge or multiplicity cannot be passed on, "geometry" when the calculator
            moved atoms, "crash" when it fails.
        """
        start = time.perf_counter()
        probe = Atoms(
            numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc
        )
        factory, options = _imported(self.factory), self._options(atoms)
        try:
            probe.calc = _built(factory, options, self.factory)
            energy = float(probe.get_potential_energy())
            forces = np.asarray(probe.get_forces(), dtype=float)
            implemented = set(getattr(probe.calc, "implemented_properties", all_properties))
            stress = dipole = None
            if atoms.pbc.all() and "stress" in implemented:
                stress = probe.get_stress(voigt=False)
            if "dipole" in implemented and not atoms.pbc.any():
                dipole = np.asarray(probe.get_dipole_moment(), dtype=float)
            energy = float(getattr(probe.calc, "results", {}).get("free_energy", energy))
        except TaceError:
            raise
        except ImportError as error:
            raise LabellerMissing(
                f"{self.factory} lacks a package: {error}; install it and run the same command "
                "again"
            ) from error
        # the border to foreign code: calculators raise whatever they like, and some just exit
        except (Exception, SystemExit) as error:
            raise LabelFailed(
                "crash",
                f"{self.factory} failed on {atoms.get_chemical_formula()} with "
                f"{type(error).__name__}: {error}; "
                "run the calculator on this structure by hand to see more",
            ) from error
        _require_same_geometry(atoms, probe)
        return Label(
            structure_key=structure_key(atoms),
            fidelity_key=self.fidelity.key,
            energy=energy,
            forces=forces,
            stress=stress,
            dipole=dipole,
            seconds=time.perf_counter() - start,
        )

    def _options(self, atoms: Atoms) -> dict[str, Setting]:
        """Return the factory's keywords, charge and multiplicity included."""
        options: dict[str, Setting] = dict(self.options)
        charge, multiplicity = total_charge(atoms), spin_multiplicity(atoms)
        lowest = 1 + (int(atoms.numbers.sum()) - charge) % 2
        if self.charge_option is not None:
            options[self.charge_option] = charge
        elif charge != 0:
            raise LabelFailed(
                "charge",
                f"the structure has charge {charge:+d} and {self.factory} was not told how to take "
                "one; name its keyword with the option charge_option",
            )
        if self.multiplicity_option is not None:
            options[self.multiplicity_option] = multiplicity
        elif multiplicity != lowest:
            raise LabelFailed(
                "charge",
                f"the structure has multiplicity {multiplicity} and {self.factory} was not told "
                "how to take one; name its keyword with the option multiplicity_option",
            )
        return options


def _rebuild(
    factory: str,
    options: dict[str, Setting],
    charge_option: str | None,
    multiplicity_option: str | None,
) -> ASELabeller:
    """Undo `ASELabeller.__reduce__`."""
    return ASELabeller(
        factory=factory,
        options=options,
        charge_option=charge_option,
        multiplicity_option=multiplicity_option,
    )


def _built(
    factory: Callable[..., Calculator], options: Mapping[str, Setting], path: str
) -> Calculator:
    """Return the calculator that a factory makes from its keywords."""
    try:
        calculator = factory(**options)
    except TypeError as error:
        raise ConfigError(
            f"{path} refuses the options {sorted(options)}: {error}; give only keywords it knows"
        ) from error
    if not hasattr(calculator, "get_potential_energy"):
        raise ConfigError(
            f"{path} returns {type(calculator).__name__}, which is no ASE calculator; "
            "give the class, or a function that returns a calculator"
        )
    return calculator


def _require_same_geometry(asked: Atoms, probe: Atoms) -> None:
    """Refuse the numbers of a calculator that moved or re-ordered the atoms it was given.

    Parameters
    ----------
    asked
        What was to be labelled.
    probe
        What the calculator was given; beside it stands what the calculator itself remembers.
    """
    for found in (probe, getattr(probe.calc, "atoms", None)):
        if not isinstance(found, Atoms):
            continue
        same = len(found) == len(asked) and bool((found.numbers == asked.numbers).all())
        if same:
            steps = found.positions - asked.positions
            moved = float(find_mic(steps, asked.cell, asked.pbc)[1].max())
            stretched = float(np.abs(found.cell.array - asked.cell.array).max())
            same = moved <= SAME_PLACE and stretched <= SAME_PLACE
        if not same:
            raise LabelFailed(
                "geometry",
                "the calculator moved or re-ordered the atoms of "
                f"{asked.get_chemical_formula()}, so that its numbers are another structure's; "
                "switch its relaxation or sorting off",
            )


def _imported(factory: str) -> Callable[..., Calculator]:
    """Import what "module:Name" names."""
    module_name, _, name = factory.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        package = module_name.partition(".")[0]
        raise LabellerMissing(
            f"the labeller {factory} cannot be imported: {error}; "
            f"install the package that holds {package}, or put its folder into PYTHONPATH, or "
            "correct the path"
        ) from error
    # a module of the user's own that fails as it is imported
    except Exception as error:
        raise ConfigError(
            f"{module_name} cannot be imported ({type(error).__name__}: {error}); correct it"
        ) from error
    try:
        found: Callable[..., Calculator] = getattr(module, name)
    except AttributeError as error:
        raise ConfigError(
            f"{module_name} has no '{name}'; give the labeller as 'package.module:Name'"
        ) from error
    return found


@cache  # listing every installed distribution costs more than many a label
def _version(package: str) -> str:
    """Return the version of the distribution that holds a top-level package."""
    for distribution in metadata.packages_distributions().get(package, []):
        return metadata.version(distribution)
    return "of unknown version"
