"""Training learns, repeats, starts warm, stops when told, and survives bad data and bad rates."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from tace_al.core.errors import TrainingError
from tace_al.data.graph import graph_from_atoms
from tace_al.model.config import preset_config
from tace_al.model.evaluation import evaluate
from tace_al.model.trainer import TrainingOptions, TrainingResult, prepare_model, train

Maker = Callable[..., list[Atoms]]

WATER = preset_config("tiny", elements=("H", "O"), channels=16, radial_hidden=(16,))
BRIEF = TrainingOptions(epochs=2, batch_size=8)


def isolated(symbol: str, energy: float) -> Atoms:
    atoms = Atoms(symbol)
    atoms.info |= {"REF_energy": energy, "config_type": "IsolatedAtom"}
    return atoms


def weights(result: TrainingResult) -> torch.Tensor:
    return torch.cat([p.detach().ravel() for p in result.model.parameters()])


def force_error(result: TrainingResult, frames: list[Atoms]) -> float:
    return evaluate(result.model, frames).forces_rmse_mev_per_angstrom


def force_size(frames: list[Atoms]) -> float:
    """Return the error of a model that says zero, meV/Angstrom."""
    forces = np.concatenate([atoms.arrays["REF_forces"] for atoms in frames])
    return 1e3 * float(np.sqrt(np.mean(forces**2)))


@pytest.mark.slow
def test_it_learns_energies_and_forces(make_molecules: Maker) -> None:
    frames, held_out = make_molecules(40, 0), make_molecules(20, 1)
    frames += [isolated("H", -3.0), isolated("O", -3.0)]
    options = TrainingOptions(epochs=30, batch_size=8)
    result = train(frames, held_out, config=WATER, options=options)
    metrics = evaluate(result.model, held_out)
    energies = [atoms.info["REF_energy"] / 3 for atoms in held_out]
    assert metrics.forces_rmse_mev_per_angstrom < 0.15 * force_size(held_out)
    assert metrics.energy_rmse_mev_per_atom < 0.15 * 1e3 * np.std(energies)
    assert result.stopped == "epochs"
    assert len(result.history) == 30
    assert result.history[-1].validation_loss < 0.1 * result.history[0].validation_loss
    lone = result.model.evaluate(graph_from_atoms(Atoms("O"), 5.0))
    assert lone.energy.item() == -3.0  # exactly, after training
    assert (result.model.head().shift != 0.0).all()


def test_it_learns_stress_beside_molecules_without_one(
    make_molecules: Maker, make_crystals: Maker
) -> None:
    config = replace(WATER, elements=("H", "O", "Cu"))
    frames = make_crystals(16, 0) + make_molecules(8, 0)
    held_out = make_crystals(6, 1)
    options = TrainingOptions(epochs=12, batch_size=6)
    result = train(frames, held_out, config=config, options=options)
    metrics = evaluate(result.model, held_out)
    stress = np.array([atoms.info["REF_stress"] for atoms in held_out])
    size = 1e3 * float(np.sqrt(np.mean(stress**2)))
    assert metrics.stress_rmse_mev_per_angstrom3 < 0.5 * size
    assert all(math.isfinite(report.training_loss) for report in result.history)


def test_one_seed_is_one_model_and_another_is_another(make_molecules: Maker) -> None:
    frames = make_molecules(12, 0)
    first = train(frames, [], config=WATER, options=replace(BRIEF, seed=1))
    again = train(frames, [], config=WATER, options=replace(BRIEF, seed=1))
    other = train(frames, [], config=WATER, options=replace(BRIEF, seed=2))
    assert torch.equal(weights(first), weights(again))
    assert not torch.allclose(weights(first), weights(other))


def test_a_warm_start_begins_where_the_last_one_ended(make_molecules: Maker) -> None:
    frames, held_out = make_molecules(24, 0), make_molecules(10, 1)
    cold = train(frames, held_out, config=WATER, options=replace(BRIEF, epochs=10))
    before = weights(cold).clone()
    more = frames + make_molecules(8, 2)
    warm = train(more, held_out, config=WATER, options=BRIEF, start=cold.model)
    fresh = train(more, held_out, config=WATER, options=BRIEF)
    assert warm.history[0].validation_loss < 0.5 * fresh.history[0].validation_loss
    assert force_error(warm, held_out) < force_error(fresh, held_out)
    assert torch.equal(weights(cold), before)  # the start is not changed
    assert torch.equal(warm.model.head().e0, cold.model.head().e0)


def test_patience_stops_and_returns_the_best(make_molecules: Maker) -> None:
    frames, held_out = make_molecules(8, 0), make_molecules(8, 1)
    reached = train(frames, held_out, config=WATER, options=replace(BRIEF, epochs=6)).model
    still = replace(BRIEF, epochs=50, learning_rate=1e-12, patience=3)
    result = train(frames, held_out, config=WATER, options=still, start=reached)
    assert result.stopped == "patience"
    assert len(result.history) < 20


def test_a_time_limit_is_kept_and_the_schedule_ends_low(make_molecules: Maker) -> None:
    frames = make_molecules(16, 0)
    options = TrainingOptions(epochs=10_000, batch_size=4, time_limit_s=0.6)
    started = time.monotonic()
    result = train(frames, make_molecules(4, 1), config=WATER, options=options)
    assert time.monotonic() - started < 3.0
    assert result.stopped == "time"
    assert result.history[-1].learning_rate < 0.2 * options.learning_rate


def test_reports_follow_the_run(make_molecules: Maker) -> None:
    seen = []
    result = train(
        make_molecules(8, 0),
        [],
        config=WATER,
        options=replace(BRIEF, epochs=3),
        on_epoch=seen.append,
    )
    assert seen == result.history
    assert [report.epoch for report in seen] == [1, 2, 3]
    assert seen[-1].progress == 1.0


def test_absent_labels_are_passed_over(make_molecules: Maker) -> None:
    frames = make_molecules(12, 0)
    for atoms in frames[:4]:
        del atoms.arrays["REF_forces"]
    for atoms in frames[4:8]:
        del atoms.info["REF_energy"]
    frames[8].info["REF_energy"] = math.nan
    result = train(frames, [], config=WATER, options=BRIEF)
    assert math.isfinite(result.history[-1].training_loss)
    assert torch.isfinite(weights(result)).all()


@pytest.mark.parametrize("poison", ["energy", "forces"])
def test_an_infinite_label_loses_no_run(make_molecules: Maker, poison: str) -> None:
    good = make_molecules(12, 0)
    reached = train(good, [], config=WATER, options=BRIEF).model
    bad = make_molecules(12, 2)
    if poison == "energy":
        bad[3].info["REF_energy"] = math.inf
    else:
        bad[3].arrays["REF_forces"][0, 0] = math.inf
    with pytest.raises(TrainingError, match="a label of structure 3 is infinite"):
        train(bad, [], config=WATER, options=BRIEF, start=reached)


def test_a_diverging_rate_keeps_the_last_good_weights(
    make_molecules: Maker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    frames, held_out = make_molecules(16, 0), make_molecules(8, 1)
    good = train(frames, held_out, config=WATER, options=replace(BRIEF, epochs=10))
    wild = replace(BRIEF, epochs=12, learning_rate=1e4, warmup=0.99, clip_norm=math.inf)
    with caplog.at_level(logging.WARNING):
        result = train(frames, held_out, config=WATER, options=wild, start=good.model)
    assert torch.equal(weights(result), weights(good))
    assert "back to the best weights" in caplog.text


def test_nothing_to_train_on_says_so() -> None:
    with pytest.raises(TrainingError, match="no training frame has more than one atom"):
        train([isolated("H", -3.0), isolated("O", -3.0)], [], config=WATER, options=BRIEF)
    with pytest.raises(TrainingError, match="REF_energy"):
        train([molecule("H2O")], [], config=WATER, options=BRIEF)


def test_an_untrained_model_starts_from_the_mean(make_molecules: Maker) -> None:
    frames = [*make_molecules(10, 0), isolated("H", -1.0), isolated("O", -2.0)]
    model = prepare_model(frames, config=WATER, seed=0, start=None)
    head = model.head()
    assert head.e0.tolist() == [-1.0, -2.0]
    energies = [atoms.info["REF_energy"] for atoms in frames[:10]]
    assert head.shift.tolist() == pytest.approx([(np.mean(energies) + 4.0) / 3] * 2)
    assert (1e3 * head.scale).tolist() == pytest.approx([force_size(frames[:10])] * 2)
    assert model.config.average_neighbours == pytest.approx(2.0)


def test_the_seed_of_the_weights_is_the_members(make_molecules: Maker) -> None:
    frames = make_molecules(4, 0)
    first, second = (prepare_model(frames, config=WATER, seed=s, start=None) for s in (0, 1))
    assert not torch.equal(first.embedding, second.embedding)


def test_unknown_elements_are_refused_before_training(make_crystals: Maker) -> None:
    with pytest.raises(TrainingError, match="Cu"):
        train(make_crystals(2, 0), [], config=WATER, options=BRIEF)
