"""Errors of a model, computed the long way."""

import math

import numpy as np
import pytest
from ase.build import molecule

from tace_al.data.graph import graph_from_atoms
from tace_al.model.evaluation import evaluate, evaluate_by_head
from tace_al.model.tace import Tace


def test_errors_are_those_of_each_frame_by_itself(make_crystals) -> None:  # type: ignore[no-untyped-def]
    model = Tace.from_preset("tiny", elements=["Cu"], channels=8, dtype="float64")
    frames = make_crystals(5, 0)
    metrics = evaluate(model, frames, batch_size=2)
    energy, forces, stress = [], [], []
    for atoms in frames:
        output = model.evaluate(graph_from_atoms(atoms, 5.0), ("forces", "stress"))
        energy.append((output.energy.item() - atoms.info["REF_energy"]) / len(atoms))
        forces.append(output.forces.detach().numpy() - atoms.arrays["REF_forces"])
        stress.append(output.stress.detach().numpy()[0] - atoms.info["REF_stress"])
    for name, errors in (("energy", energy), ("forces", forces), ("stress", stress)):
        unit = {"energy": "atom", "forces": "angstrom", "stress": "angstrom3"}[name]
        errors = 1e3 * np.concatenate([np.ravel(error) for error in errors])
        rmse, mae = np.sqrt(np.mean(errors**2)), np.mean(np.abs(errors))
        assert getattr(metrics, f"{name}_rmse_mev_per_{unit}") == pytest.approx(rmse)
        assert getattr(metrics, f"{name}_mae_mev_per_{unit}") == pytest.approx(mae)
    assert metrics.num_structures == 5


def test_what_has_no_label_has_no_error() -> None:
    model = Tace.from_preset("tiny", elements=["H", "O"], channels=8)
    water = molecule("H2O")
    water.info["REF_energy"] = -1.0
    metrics = evaluate(model, [water, molecule("H2O")])
    assert math.isnan(metrics.forces_rmse_mev_per_angstrom)
    assert set(metrics.to_dict()) == {
        "energy_rmse_mev_per_atom",
        "energy_mae_mev_per_atom",
        "num_structures",
    }


def test_every_labelled_output_has_its_error_in_its_own_unit() -> None:
    model = Tace.from_preset(
        "tiny", elements=["H", "O"], channels=8, embeddings=("electric_field",), dtype="float64"
    )
    water = molecule("H2O")
    output = model.evaluate(graph_from_atoms(water, 5.0, ["electric_field"]), ("dipole",))
    shift = np.array([0.3, 0.0, 0.0])
    water.info["REF_dipole"] = output["dipole"].detach().numpy()[0] + shift
    metrics = evaluate(model, [water, water])
    assert metrics.others["dipole"] == pytest.approx((0.3 / math.sqrt(3), 0.1))
    assert metrics.to_dict()["dipole_mae"] == pytest.approx(0.1)
    assert "others" not in metrics.to_dict()


def test_dipoles_of_crystals_are_compared_modulo_lattice_vectors(make_crystals) -> None:  # type: ignore[no-untyped-def]
    model = Tace.from_preset(
        "tiny", elements=["Cu"], channels=8, embeddings=("electric_field",), dtype="float64"
    )
    atoms = make_crystals(1, 0)[0]
    output = model.evaluate(graph_from_atoms(atoms, 5.0, ["electric_field"]), ("dipole",))
    dipole = output["dipole"].detach().numpy()[0]
    atoms.info["REF_dipole"] = dipole + atoms.cell.array[0] - 2 * atoms.cell.array[2]
    assert evaluate(model, [atoms]).others["dipole"] == pytest.approx((0.0, 0.0), abs=1e-9)


def test_heads_are_judged_on_the_frames_of_their_level(make_crystals) -> None:  # type: ignore[no-untyped-def]
    model = Tace.from_preset("tiny", elements=["Cu"], channels=8, heads=("pbe", "pbe0", "hf"))
    frames = make_crystals(3, 0)
    frames[2].info["head"] = "pbe0"
    by_head = evaluate_by_head(model, frames)
    assert list(by_head) == ["pbe", "pbe0"]
    assert by_head["pbe"] == evaluate(model, frames[:2])
    assert by_head["pbe0"] == evaluate(model, frames[2:])
