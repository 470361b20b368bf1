"""The Agnesi transform maps [0, r_c] on itself, steepest at bonds, and keeps smoothness."""

import pytest
import torch
from ase.data import covalent_radii

from tace_al.model.distance_transform import AgnesiTransform
from tace_al.model.radial import polynomial_cutoff, radial_basis

CUTOFF = 5.0
NUMBERS = [1, 8, 78]


def transform() -> AgnesiTransform:
    return AgnesiTransform(NUMBERS, CUTOFF)


@pytest.mark.parametrize("pair", range(9))
def test_it_rises_from_zero_to_the_cutoff(pair: int) -> None:
    r = torch.linspace(1e-3, CUTOFF, 500, dtype=torch.float64)
    t = transform()(r, torch.full((500,), pair))
    assert t[0] < 1e-6
    assert t[-1].item() == pytest.approx(CUTOFF, abs=1e-12)
    assert (t.diff() > 0).all()


def test_it_is_the_published_function_stretched() -> None:
    """1 / (1 + a s^q / (1 + s^(q-p))) with the numbers of MACE-MP, from its two ends."""
    a, p, q = 1.0805, 4.5791, 0.9183
    length = 0.5 * (covalent_radii[1] + covalent_radii[8])

    def agnesi(r: float) -> float:
        s = r / length
        return float(1.0 / (1.0 + a * s**q / (1.0 + s ** (q - p))))

    for r in (0.5, 0.96, 1.8, 4.0):
        found = transform()(torch.tensor([r]).double(), torch.tensor([1])).item()
        expected = CUTOFF * (1.0 - agnesi(r)) / (1.0 - agnesi(CUTOFF))
        assert found == pytest.approx(expected, rel=1e-6)


def test_pairs_are_symmetric_and_small_atoms_are_resolved_at_short_range() -> None:
    r = torch.tensor([1.0], dtype=torch.float64)
    values = transform()(r.expand(9), torch.arange(9)).reshape(3, 3)
    assert torch.equal(values, values.T)
    assert values[0, 0] > values[1, 1] > values[2, 2]  # H-H is far at 1 Angstrom, Pt-Pt is not


@pytest.mark.parametrize("kind", ["bessel", "chebyshev", "gaussian"])
def test_a_transformed_basis_is_twice_differentiable_at_the_cutoff(kind: str) -> None:
    basis, agnesi, pairs = radial_basis(kind, 8, CUTOFF).double(), transform(), torch.arange(9)

    def at(x: torch.Tensor) -> torch.Tensor:
        r = x.expand(9)
        return basis(agnesi(r, pairs), polynomial_cutoff(r, CUTOFF))

    first = torch.func.jacrev(at)
    for step in (1e-3, 1e-5):
        x = torch.tensor(CUTOFF - step, dtype=torch.float64)
        assert at(x).abs().max() < 1e2 * step**3
        assert first(x).abs().max() < 1e2 * step**2
        assert torch.func.jacrev(first)(x).abs().max() < 1e2 * step
    for beyond in (CUTOFF, 17 * CUTOFF):
        x = torch.tensor(beyond, dtype=torch.float64)
        assert not at(x).any()
        assert not torch.func.jacrev(first)(x).any()


def test_single_precision_stays_finite_from_contact_to_empty_slots() -> None:
    agnesi = transform().float()
    r = torch.tensor([0.05, 0.3, 90.0], requires_grad=True)
    basis = radial_basis("bessel", 8, CUTOFF).float()
    values = basis(agnesi(r, torch.tensor([8, 0, 0])), polynomial_cutoff(r, CUTOFF))
    (gradient,) = torch.autograd.grad(values.sum(), r, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), r)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in (values, gradient, second))
