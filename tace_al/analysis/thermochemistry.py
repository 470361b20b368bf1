"""Free energies from frequencies: harmonic vibrations, and the ideal gas of rigid rotors.

With x = h nu / kT of every vibration

    zero-point energy   sum h nu / 2
    U(T)                zero point + sum h nu / (e^x - 1)
    S(T)                k sum [x / (e^x - 1) - ln(1 - e^-x)]
    F = U - T S

and for a molecule in the gas at pressure p, with mass m, moments of inertia I, symmetry number
sigma and electronic multiplicity 2S + 1 (McQuarrie, Statistical Mechanics, chapters 5, 6 and 8)

    q_trans = (2 pi m kT / h^2)^(3/2) kT / p
    q_rot   = (pi I_A I_B I_C)^(1/2) (8 pi^2 kT / h^2)^(3/2) / sigma,  8 pi^2 I kT / (sigma h^2)
    S_trans = k (ln q_trans + 5/2),  S_rot = k (ln q_rot + 3/2 or 1),  S_el = k ln(2S + 1)
    G = E + U_vib + 3/2 kT + (3/2 or 1) kT + kT - T (S_vib + S_trans + S_rot + S_el).

Imaginary modes are left out, as transition-state theory wants it of the reaction coordinate.
"""

from dataclasses import dataclass

import numpy as np
from ase import Atoms, units

from tace_al.core.errors import StructureError
from tace_al.core.units import BOLTZMANN

LINEAR = 1e-3
"""A molecule is linear where its smallest moment of inertia is this share of its largest."""
PLANCK = float(units._hplanck)
"""J s"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Vibrations:
    """Thermodynamics of harmonic vibrations, in eV and eV/K.

    Parameters
    ----------
    zero_point_energy
        Half a quantum of each.
    internal_energy
        Zero-point energy included.
    entropy, free_energy
        At the temperature asked for.
    """

    zero_point_energy: float
    internal_energy: float
    entropy: float
    free_energy: float


@dataclass(frozen=True, kw_only=True, slots=True)
class IdealGas:
    """Thermodynamics of a molecule in the gas, in eV and eV/K; energies without the electrons'.

    Parameters
    ----------
    enthalpy, entropy, gibbs_energy
        Vibrations, rotations, translations and multiplicity together.
    rotational_entropy, translational_entropy
        Shares of the entropy.
    symmetry_number
        Rotations that leave the molecule as it is.
    linear
        Whether it has two rotations.
    """

    enthalpy: float
    entropy: float
    gibbs_energy: float
    rotational_entropy: float
    translational_entropy: float
    symmetry_number: int
    linear: bool


def harmonic(frequencies: np.ndarray, temperature: float) -> Vibrations:
    """Return the thermodynamics of vibrations.

    Parameters
    ----------
    frequencies
        1/cm; those that are not positive are left out.
    temperature
        K, 0 allowed.

    >>> round(harmonic(np.array([1600.0, 3700.0, 3800.0]), 300.0).zero_point_energy, 4)
    0.5641
    """
    quanta = np.asarray(frequencies, dtype=float)
    quanta = quanta[quanta > 0.0] * units.invcm
    zero_point = 0.5 * float(quanta.sum())
    if temperature <= 0.0:
        return Vibrations(
            zero_point_energy=zero_point,
            internal_energy=zero_point,
            entropy=0.0,
            free_energy=zero_point,
        )
    x = quanta / (BOLTZMANN * temperature)
    occupation = np.exp(-x) / -np.expm1(-x)
    energy = zero_point + float((quanta * occupation).sum())
    entropy = BOLTZMANN * float((x * occupation - np.log(-np.expm1(-x))).sum())
    return Vibrations(
        zero_point_energy=zero_point,
        internal_energy=energy,
        entropy=entropy,
        free_energy=energy - temperature * entropy,
    )


def ideal_gas(
    atoms: Atoms,
    frequencies: np.ndarray,
    *,
    temperature: float,
    pressure: float,
    symmetry_number: int,
    multiplicity: int,
) -> IdealGas:
    """Return the thermodynamics of a molecule in the ideal gas.

    Parameters
    ----------
    atoms
        The molecule, for masses and moments of inertia.
    frequencies
        1/cm of its vibrations.
    temperature, pressure
        K and Pa, above 0.
    symmetry_number
        Rotations that leave the molecule as it is: 2 for water, 12 for benzene.
    multiplicity
        2 S + 1.

    Raises
    ------
    StructureError
        Temperature or pressure are not positive.
    """
    if temperature <= 0.0 or pressure <= 0.0:
        given = f"{temperature:g} K and {pressure:g} Pa"
        raise StructureError(f"a gas at {given} has no entropy; give positive values")
    heat = BOLTZMANN * temperature
    joule = units._k * temperature
    mass = float(atoms.get_masses().sum()) * units._amu
    states = (2.0 * np.pi * mass * joule / PLANCK**2) ** 1.5 * joule / pressure
    translation = BOLTZMANN * (np.log(states) + 2.5)
    moments = np.sort(atoms.get_moments_of_inertia()) * units._amu * 1e-20
    factor = 8.0 * np.pi**2 * joule / PLANCK**2
    linear = bool(len(atoms) > 1 and moments[0] < LINEAR * moments[2])
    if len(atoms) == 1:
        rotation, rotational_heat = 0.0, 0.0
    elif linear:
        rotation = BOLTZMANN * (np.log(factor * moments[2] / symmetry_number) + 1.0)
        rotational_heat = heat
    else:
        states = np.sqrt(np.pi * moments.prod()) * factor**1.5 / symmetry_number
        rotation, rotational_heat = BOLTZMANN * (np.log(states) + 1.5), 1.5 * heat
    vibrations = harmonic(frequencies, temperature)
    enthalpy = vibrations.internal_energy + 2.5 * heat + rotational_heat
    entropy = vibrations.entropy + translation + rotation + BOLTZMANN * np.log(multiplicity)
    return IdealGas(
        enthalpy=float(enthalpy),
        entropy=float(entropy),
        gibbs_energy=float(enthalpy - temperature * entropy),
        rotational_entropy=float(rotation),
        translational_entropy=float(translation),
        symmetry_number=symmetry_number,
        linear=linear,
    )


def rotational_symmetry_number(atoms: Atoms, *, tolerance: float = 0.05) -> int:
    """Return the number of rotations that leave a molecule as it is, to `tolerance` Angstrom."""
    from pymatgen.core.structure import Molecule  # a second to import
    from pymatgen.symmetry.analyzer import PointGroupAnalyzer

    if len(atoms) == 1:
        return 1
    found = PointGroupAnalyzer(
        Molecule(atoms.get_chemical_symbols(), atoms.positions), tolerance=tolerance
    )
    return int(found.get_rotational_symmetry_number())
