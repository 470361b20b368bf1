"""Against ASE's own thermochemistry and limits of the harmonic oscillator."""

import warnings

import numpy as np
import pytest
from ase import units
from ase.build import molecule
from ase.thermochemistry import HarmonicThermo, IdealGasThermo

from tace_al.analysis.thermochemistry import harmonic, ideal_gas, rotational_symmetry_number
from tace_al.core.errors import StructureError
from tace_al.core.units import BOLTZMANN

WATER = np.array([1538.6, 3643.4, 3651.6])


def test_vibrations_equal_ase() -> None:
    frequencies = np.array([50.0, 400.0, 1500.0])
    by_ase = HarmonicThermo(frequencies * units.invcm)
    found = harmonic(frequencies, 500.0)
    assert found.free_energy == pytest.approx(
        by_ase.get_helmholtz_energy(500.0, verbose=False), abs=1e-7
    )
    assert found.entropy == pytest.approx(by_ase.get_entropy(500.0, verbose=False), abs=1e-9)


def test_limits() -> None:
    cold, hot = harmonic(WATER, 0.0), harmonic(WATER, 1e6)
    assert cold.free_energy == cold.zero_point_energy == cold.internal_energy
    assert hot.internal_energy == pytest.approx(3 * BOLTZMANN * 1e6, rel=1e-4)  # equipartition
    assert harmonic(np.array([-500.0, *WATER]), 300.0) == harmonic(WATER, 300.0)


@pytest.mark.parametrize(
    ("name", "geometry", "frequencies", "sigma", "multiplicity"),
    [
        ("H2O", "nonlinear", WATER, 2, 1),
        ("CO2", "linear", np.array([600.0, 600.0, 1300.0, 2400.0]), 2, 1),
        ("O", "monatomic", np.array([]), 1, 3),
        ("O2", "linear", np.array([1500.0]), 2, 3),
    ],
)
def test_gases_equal_ase(
    name: str, geometry: str, frequencies: np.ndarray, sigma: int, multiplicity: int
) -> None:
    atoms = molecule(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        by_ase = IdealGasThermo(
            frequencies * units.invcm,
            geometry,
            atoms=atoms,
            symmetrynumber=sigma,
            spin=(multiplicity - 1) / 2,
        )
        expected = by_ase.get_gibbs_energy(400.0, 2e5, verbose=False)
    found = ideal_gas(
        atoms,
        frequencies,
        temperature=400.0,
        pressure=2e5,
        symmetry_number=sigma,
        multiplicity=multiplicity,
    )
    assert found.gibbs_energy == pytest.approx(expected, abs=1e-5)
    assert found.linear == (geometry == "linear")
    assert rotational_symmetry_number(atoms) == sigma


def test_a_gas_needs_temperature_and_pressure() -> None:
    with pytest.raises(StructureError, match="positive"):
        ideal_gas(
            molecule("H2O"),
            WATER,
            temperature=0.0,
            pressure=1e5,
            symmetry_number=2,
            multiplicity=1,
        )
