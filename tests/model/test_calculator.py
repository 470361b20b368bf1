"""The ASE calculators against ASE's own finite differences."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.md.verlet import VelocityVerlet

from tace_al.data.graph import graph_from_atoms
from tace_al.model.calculator import CommitteeCalculator, TaceCalculator
from tace_al.model.committee import Committee
from tace_al.model.kernels import compiled, spline
from tace_al.model.tace import Tace


def make_model(seed: int = 0, **options: Any) -> Tace:
    return Tace.from_preset("tiny", elements=["H", "O", "Cu"], seed=seed, channels=8, **options)


def rattled(atoms: Atoms) -> Atoms:
    atoms.rattle(0.1, seed=2)
    return atoms


def calculators() -> list:
    double = [make_model(seed).as_dtype("float64") for seed in range(2)]
    return [
        TaceCalculator(make_model(), dtype="float64"),
        CommitteeCalculator(Committee(double)),
    ]


@pytest.mark.parametrize("calculator", calculators(), ids=["model", "committee"])
def test_forces_and_stress_are_finite_differences_of_the_energy(calculator) -> None:  # type: ignore[no-untyped-def]
    water = rattled(molecule("H2O"))
    water.calc = calculator
    numerical = calculate_numerical_forces(water, eps=1e-5)
    assert np.allclose(water.get_forces(), numerical, atol=1e-5)
    copper = rattled(bulk("Cu", cubic=True))
    copper.calc = calculator
    numerical = calculate_numerical_stress(copper, eps=1e-5, voigt=True)
    assert np.allclose(copper.get_stress(), numerical, atol=1e-6)


def test_a_molecule_has_no_stress() -> None:
    water = molecule("H2O")
    water.calc = TaceCalculator(make_model())
    with pytest.raises(PropertyNotImplementedError):
        water.get_stress()


def test_any_output_is_a_property_of_its_name() -> None:
    model = make_model(embeddings=("electric_field",), charges="free", dtype="float64")
    water = rattled(molecule("H2O"))
    water.calc = TaceCalculator(model)
    graph = graph_from_atoms(water, model.config.cutoff, model.config.conditions)
    names = ("charges", "dipole", "polarizability", "born_charges", "hessian", "atomic_virials")
    output = model.evaluate(graph, names)
    assert np.allclose(water.get_dipole_moment(), output["dipole"][0])
    assert np.allclose(water.get_charges(), output["charges"])
    assert water.get_potential_energies().sum() == pytest.approx(water.get_potential_energy())
    for name in ("polarizability", "born_charges", "hessian", "atomic_virials"):
        found = water.calc.get_property(name, water)
        expected = output[name][0] if name == "polarizability" else output[name]
        assert np.allclose(found, expected, atol=1e-12), name
    assert "dipole" in water.calc.results, "a further property does not lose the others"
    with pytest.raises(PropertyNotImplementedError):
        water.calc.get_property("magnetic_forces", water)


def test_the_committee_reports_its_spread() -> None:
    water = molecule("H2O")
    water.calc = CommitteeCalculator(Committee([make_model(0), make_model(1)]))
    forces, results = water.get_forces(), water.calc.results
    assert np.allclose(forces, results["member_forces"].mean(axis=0))
    assert results["energy_spread"] == pytest.approx(np.std(results["member_energies"]))
    assert results["force_spread"].shape == (3,)


def test_results_follow_the_structure() -> None:
    water = molecule("H2O")
    water.calc = TaceCalculator(make_model())
    before = water.get_potential_energy()
    assert water.get_potential_energy() == before
    water.positions[1] += 0.1
    assert water.get_potential_energy() != before


def test_dynamics_conserve_energy() -> None:
    """Velocity Verlet with the model's forces: the total energy does not drift."""
    atoms = bulk("Cu", cubic=True)
    model = make_model().as_dtype("float64")
    model.head().scale.fill_(0.05)
    atoms.calc = TaceCalculator(model)
    atoms.rattle(0.05, seed=3)
    dynamics = VelocityVerlet(atoms, timestep=1.0 * units.fs)
    energies, kinetic = [], []
    for _ in range(60):
        dynamics.run(1)
        energies.append(atoms.get_total_energy())
        kinetic.append(atoms.get_kinetic_energy())
    assert np.ptp(energies) < 2e-2 * np.ptp(kinetic)


def test_a_step_looks_at_neighbours_and_inputs_again_only_when_it_must() -> None:
    """Pairs that come and go, other elements and another cell are those of a fresh calculator."""
    model, copper = make_model(dtype="float64"), bulk("Cu", cubic=True) * (2, 1, 1)
    kept = TaceCalculator(model, splines=False)
    generator = np.random.default_rng(3)
    for step in range(12):
        copper.positions += generator.normal(scale=0.05, size=copper.positions.shape)
        if step == 4:
            copper.set_cell(copper.cell.array * 1.03, scale_atoms=True)
        if step == 8:
            copper.numbers[0] = 8
        kept.calculate(copper, ["energy", "forces", "stress"])
        fresh = TaceCalculator(model, splines=False)
        fresh.calculate(copper, ["energy", "forces", "stress"])
        assert kept.results["energy"] == pytest.approx(fresh.results["energy"], abs=1e-10)
        for name in ("forces", "stress", "energies"):
            assert np.allclose(kept.results[name], fresh.results[name], atol=1e-10), (step, name)


def test_changed_weights_make_other_splines() -> None:
    model, water = make_model(), molecule("H2O")
    calculator = TaceCalculator(model)
    calculator.calculate(water, ["forces"])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    calculator.calculate(water, ["forces"])
    exact = TaceCalculator(model, splines=False)
    exact.calculate(water, ["forces"])
    assert np.allclose(calculator.results["forces"], exact.results["forces"], atol=1e-6)


@pytest.mark.parametrize("name", ["embedding", "products.0.weight", "heads.default.shift"])
def test_changing_any_weight_or_constant_counts(name: str) -> None:
    model, water = make_model(), molecule("H2O")
    calculator = TaceCalculator(model)
    calculator.calculate(water, ["energy"])
    before = calculator.results["energy"]
    with torch.no_grad():
        model.state_dict()[name].add_(0.5)
    calculator.calculate(water, ["energy"])
    exact = TaceCalculator(model, splines=False)
    exact.calculate(water, ["energy"])
    assert calculator.results["energy"] == pytest.approx(exact.results["energy"], abs=1e-5)
    assert abs(calculator.results["energy"] - before) > 1e-3


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda kept: pickle.loads(pickle.dumps(kept))])
def test_calculators_and_committees_can_be_copied_after_use(copied: Callable) -> None:
    model, water = make_model(), molecule("H2O")
    for calculator in (TaceCalculator(model), CommitteeCalculator(Committee([model, model]))):
        calculator.calculate(water, ["energy", "forces"])
        other = copied(calculator)
        other.calculate(water, ["energy", "forces"])
        assert np.array_equal(other.results["forces"], calculator.results["forces"])


def test_radial_weights_too_rough_for_splines_stay_networks(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(spline, "FEWEST_PIECES", 2)
    monkeypatch.setattr(spline, "MOST_PIECES", 2)
    model, water = make_model(), molecule("H2O")
    rough, exact = TaceCalculator(model), TaceCalculator(model, splines=False)
    for calculator in (rough, exact):
        calculator.calculate(water, ["forces"])
    assert np.allclose(rough.results["forces"], exact.results["forces"], atol=1e-7)
    assert "too few" in caplog.text or compiled() is None
