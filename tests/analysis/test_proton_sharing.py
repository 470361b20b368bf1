"""Densities of a sharing coordinate against an oscillator that is known, members by first order."""

from collections.abc import Sequence

import numpy as np
import pytest
from ase import Atoms

from tace_al.analysis.proton_sharing import SharingRun, classical_samples, sharing_density
from tace_al.core.units import BOLTZMANN
from tace_al.engines.sampling.potential import Potential
from tace_al.model.prediction import Prediction

TEMPERATURE = 300.0
KT = BOLTZMANN * TEMPERATURE


def harmonic(k: float, times: int = 20_000) -> np.ndarray:
    """Return classical samples of a spring k in eV/A^2."""
    return np.random.default_rng(4).normal(0.0, np.sqrt(KT / k), (times, 1))


def test_density_and_width_of_a_spring() -> None:
    samples = harmonic(1.0)
    found = sharing_density(samples, np.zeros((len(samples), 2)), temperature=TEMPERATURE)
    assert found.width == pytest.approx(np.sqrt(KT), rel=0.01)
    assert found.error_bar == pytest.approx(found.sampling_error)
    assert found.sampling_error < 0.02 * found.width
    expected = np.exp(-(found.centres**2) / (2 * KT)) / np.sqrt(2 * np.pi * KT)
    np.testing.assert_allclose(found.density, expected, atol=0.05 * expected.max())
    np.testing.assert_allclose(found.density, found.density[::-1], atol=1e-12)
    assert found.density.sum() * np.diff(found.centres)[0] == pytest.approx(1.0, abs=1e-3)


def test_members_with_another_spring_have_its_width_to_first_order() -> None:
    samples = harmonic(1.0)
    change = 0.02
    deviations = 0.5 * change * samples**2 * np.array([1.0, -1.0])
    found = sharing_density(samples, deviations, temperature=TEMPERATURE)
    expected = np.sqrt(KT / (1.0 + change * np.array([1.0, -1.0])))
    np.testing.assert_allclose(found.member_widths, expected, rtol=0.01)
    doubled = sharing_density(samples, deviations, temperature=TEMPERATURE, energy_scale=2.0)
    assert np.ptp(doubled.member_widths) == pytest.approx(2 * np.ptp(found.member_widths), rel=0.01)
    assert doubled.error_bar > found.error_bar


def test_an_energy_that_only_shifts_changes_nothing() -> None:
    samples = harmonic(1.0, times=100)
    shifted = np.repeat([[0.3, -0.3]], 100, axis=0)
    found = sharing_density(samples, shifted, temperature=TEMPERATURE)
    np.testing.assert_allclose(found.member_widths, found.width)


class Springs(Potential):
    """Ties each atom to its place; the second member's springs are a little weaker."""

    def __init__(self, places: np.ndarray, k: float) -> None:
        self.places, self.k = places, k

    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        away = [atoms.positions - self.places for atoms in frames]
        factors = np.array([1.0, 0.9]) * self.k
        return [
            Prediction(
                member_energies=0.5 * factors * (one**2).sum(),
                member_forces=-factors[:, None, None] * one,
            )
            for one in away
        ]


def test_walkers_end_where_forces_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tace_al.analysis.proton_sharing.UNKNOWN_FORCES", 1e-3)
    atoms = Atoms("OHO", [[-1.2, 0, 0], [0, 0, 0], [1.2, 0, 0]])
    run = SharingRun(
        coordinate=(0, 1, 2), temperature=TEMPERATURE, steps=400, timestep_fs=1.0, seed=1
    )
    springs = Springs(atoms.positions.copy(), 30.0)
    found = classical_samples(springs, atoms, run)
    assert found.steps < 400 and "force error bar" in found.reason
    assert len(found.values) == 0


def test_classical_walkers_sample_boltzmann() -> None:
    atoms = Atoms("OHO", [[-1.2, 0, 0], [0, 0, 0], [1.2, 0, 0]])
    run = SharingRun(
        coordinate=(0, 1, 2), temperature=TEMPERATURE, steps=1500, timestep_fs=1.0, seed=1
    )
    found = classical_samples(Springs(atoms.positions.copy(), 30.0), atoms, run)
    assert (found.steps, found.reason) == (1500, "all steps done")
    mean_k = 28.5
    expected = 6 * KT / mean_k  # d = 2 x_H - x_O - x_O near the line
    assert np.mean(found.values**2) == pytest.approx(expected, rel=0.1)
    potential_energy = found.deviations[:, 0] * mean_k / 1.5
    assert potential_energy.mean() == pytest.approx(4.5 * KT, rel=0.1)
