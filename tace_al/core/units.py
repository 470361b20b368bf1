"""Units and physical constants (CODATA 2018, exact where the SI defines them).

Inside the platform: eV, Angstrom, eV/Angstrom, eV/Angstrom^3, fs, amu, kelvin, elementary charge.
"""

HARTREE = 27.211386245988
"""eV"""
BOHR = 0.529177210903
"""Angstrom"""
BOLTZMANN = 8.617333262145179e-5
"""eV/K"""
COULOMB_CONSTANT = 14.399645478425668
"""e^2 / (4 pi eps0) in eV Angstrom"""
GPA = 6.241509074460763e-3
"""one gigapascal in eV/Angstrom^3"""
KCAL_PER_MOL = 0.043364104241800934
"""eV"""
