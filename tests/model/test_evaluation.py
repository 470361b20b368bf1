"""Errors of a model, computed the long way."""

import math

import numpy as np
import pytest
from ase.build import molecule

from tace_al.data.graph import graph_from_atoms
from tace_al.model.evaluation import evaluate
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
