"""Nuclear repulsion: bare Coulomb at contact, ASE-independent values, gone at bond lengths."""

import math

import pytest
import torch

from tace_al.core.units import COULOMB_CONSTANT
from tace_al.model.zbl import ZBL


def pair_energy(r: float, first: int = 0, second: int = 1, *, cutoff: float = 5.0) -> float:
    """Return V(r) of C and Pt from both directed edges."""
    zbl = ZBL([6, 78], cutoff)
    distance = torch.full((2, 1), r, dtype=torch.float64)
    sender, receiver = torch.tensor([[first], [second]]), torch.tensor([second, first])
    return zbl(distance, sender, receiver).sum().item()


def test_at_contact_it_is_coulomb() -> None:
    r = 1e-4
    assert pair_energy(r) == pytest.approx(COULOMB_CONSTANT * 6 * 78 / r, rel=1e-2)


def test_the_published_formula_at_half_an_angstrom() -> None:
    r, reach = 0.5, 0.76 + 1.36  # covalent radii of C and Pt (Cordero 2008)
    x = r * (6**0.23 + 78**0.23) / 0.46850
    amplitudes = {3.19980: 0.18175, 0.94229: 0.50986, 0.40290: 0.28022, 0.20162: 0.02817}
    phi = sum(amplitude * math.exp(-decay * x) for decay, amplitude in amplitudes.items())
    s = r / reach
    envelope = 1 - 21 * s**5 + 35 * s**6 - 15 * s**7
    expected = COULOMB_CONSTANT * 6 * 78 / r * phi * envelope
    assert pair_energy(r) == pytest.approx(expected, rel=1e-12)


def test_it_is_symmetric_and_leaves_bonds_alone() -> None:
    assert pair_energy(0.7) == pair_energy(0.7, 1, 0)
    assert pair_energy(0.76 + 1.36) == 0.0
    assert pair_energy(1.99, cutoff=2.0) > 0.0 == pair_energy(2.0, cutoff=2.0)
    assert pair_energy(1.0) > pair_energy(1.2) > pair_energy(1.5) > 0
