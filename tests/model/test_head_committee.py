"""A committee of heads says what each head says alone, whichever way it is asked."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from tace_al.core.errors import ModelError
from tace_al.data.graph import batch_graphs, graph_from_atoms
from tace_al.engines.sampling.committee_potential import CommitteePotential
from tace_al.model import head_committee
from tace_al.model.calculator import CommitteeCalculator
from tace_al.model.checkpoint import save
from tace_al.model.committee import Committee
from tace_al.model.head_committee import HeadCommittee
from tace_al.model.heads import remove_head
from tace_al.model.tace import Tace

HEADS = ("member-0", "member-1", "member-2")
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "moment": {"products": ("moment",), "correlation": 2, "gate": True},
    "fields": {"embeddings": ("electric_field",)},
    "charges": {"charges": "free", "long_range": "ewald"},
    "lone gate": {"site_gate": "lone", "zbl": False},
}


def make_model(**options: Any) -> Tace:
    settings: dict[str, Any] = {"channels": 8, "dtype": "float64", "heads": HEADS}
    model = Tace.from_preset("tiny", elements=["H", "O", "Cu"], seed=1, **(settings | options))
    for index, name in enumerate(model.config.heads):
        head = model.head(name)
        head.e0.copy_(torch.tensor([-1.0, -2.0, -3.0]).double() * (index + 1))
        head.scale.fill_(0.5 + index)
        head.shift.fill_(0.1 * index)
    return model


def frames() -> list[Atoms]:
    copper = bulk("Cu", cubic=True)
    copper.rattle(0.1, seed=1)
    return [molecule("H2O"), copper, Atoms("H"), molecule("H2O2"), bulk("Cu")]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("splines", "error"), [(False, 1e-10), (True, 1e-7)])
@pytest.mark.parametrize("batched_edges", [0, 10**6], ids=["in turn", "batched"])
def test_the_committee_says_what_its_heads_say(
    shape: str, splines: bool, error: float, batched_edges: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Structures of one batch, each compared with every head alone and without splines."""
    monkeypatch.setattr(head_committee, "BATCHED_EDGES", batched_edges)
    model = make_model(**SHAPES[shape])
    committee = HeadCommittee(model, splines=splines)
    predictions = committee.predict(frames(), stress=True, descriptors=True)
    means = committee.predict(frames(), stress=True, member_forces=False)
    for atoms, prediction, mean in zip(frames(), predictions, means, strict=True):
        graph = graph_from_atoms(atoms, 5.0, model.config.conditions)
        outputs = [model.evaluate(graph, ("forces", "stress"), head=head) for head in HEADS]
        energies = [output.energy.item() for output in outputs]
        forces = np.array([output.forces.numpy() for output in outputs])
        assert prediction.member_energies == pytest.approx(energies, abs=error)
        assert mean.member_energies == pytest.approx(energies, abs=error)
        assert np.allclose(prediction.member_forces, forces, rtol=0.0, atol=error)
        assert np.allclose(mean.forces, forces.mean(axis=0), rtol=0.0, atol=error)
        features = outputs[0].descriptors.numpy()
        assert np.allclose(prediction.descriptors, features, rtol=0.0, atol=error)
        stress = np.mean([output.stress.numpy()[0] for output in outputs], axis=0)
        for given in (prediction.stress, mean.stress):
            assert (given is not None) == bool(atoms.pbc.all())
            assert given is None or np.allclose(given, stress, rtol=0.0, atol=error)


def test_forces_are_the_slopes_of_each_members_energy() -> None:
    committee = HeadCommittee(make_model())
    water = molecule("H2O")
    water.rattle(0.1, seed=2)
    (prediction,) = committee.predict([water])
    step = 1e-4
    for atom, axis in [(0, 0), (1, 1), (2, 2)]:
        moved = []
        for sign in (1, -1):
            other = water.copy()
            other.positions[atom, axis] += sign * step
            moved.append(committee.predict([other])[0].member_energies)
        slopes = (moved[1] - moved[0]) / (2 * step)
        assert prediction.member_forces[:, atom, axis] == pytest.approx(slopes, abs=1e-6)


def test_energies_and_forces_spread() -> None:
    (prediction,) = HeadCommittee(make_model()).predict([molecule("H2O2")])
    assert prediction.energy_spread == pytest.approx(prediction.member_energies.std())
    assert prediction.energy_spread > 1.0 and prediction.force_spread.min() > 1e-4
    assert np.allclose(prediction.forces, prediction.member_forces.mean(axis=0))


def test_mean_forces_alone_have_no_spread() -> None:
    (prediction,) = HeadCommittee(make_model()).predict([molecule("H2O")], member_forces=False)
    assert prediction.energy_spread > 0.0
    assert prediction.member_forces.shape == (0, 3, 3)
    with pytest.raises(ModelError, match="every member's, and only their mean was asked for"):
        _ = prediction.force_spread


def test_one_head_is_the_plain_model() -> None:
    model = make_model()
    committee = HeadCommittee(model, ["member-1"])
    alone = remove_head(remove_head(model, "member-0"), "member-2")
    (prediction,) = committee.predict([molecule("H2O")])
    (expected,) = Committee([alone]).predict([molecule("H2O")])
    assert len(committee) == 1 and prediction.energy_spread == 0.0
    assert np.allclose(prediction.member_energies, expected.member_energies, atol=1e-12)
    assert np.allclose(prediction.member_forces, expected.member_forces, atol=1e-12)


def test_a_part_of_the_heads_in_any_order() -> None:
    model = make_model(dtype="float32")
    (every,) = HeadCommittee(model).predict([molecule("H2O")])
    (part,) = HeadCommittee(model, ["member-2", "member-0"]).predict([molecule("H2O")])
    assert np.allclose(part.member_energies, every.member_energies[[2, 0]], atol=1e-5)
    assert np.allclose(part.member_forces, every.member_forces[[2, 0]], atol=1e-5)


def test_a_batch_costs_one_call_and_changes_nothing() -> None:
    model = make_model()
    committee = HeadCommittee(model)
    batch = batch_graphs([graph_from_atoms(atoms, 5.0) for atoms in frames()])
    for prediction, atoms in zip(committee.predict_batch(batch), frames(), strict=True):
        (alone,) = committee.predict([atoms])
        assert np.allclose(prediction.member_energies, alone.member_energies, atol=1e-11)
        assert np.allclose(prediction.member_forces, alone.member_forces, atol=1e-11)
    assert committee.predict([]) == []


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        (["member-0", "pbe"], "no head 'pbe'"),
        (["member-0", "member-0"], "name different heads"),
        ([], "name different heads"),
    ],
)
def test_no_such_committee(heads: list[str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        HeadCommittee(make_model(), heads)


def test_a_trunk_that_knows_the_level_is_not_shared() -> None:
    with pytest.raises(ModelError, match="trunk is told the level of theory"):
        HeadCommittee(make_model(embeddings=("fidelity",)))


def test_the_callers_model_is_left_trainable_and_apart() -> None:
    model = make_model()
    committee = HeadCommittee(model)
    assert all(parameter.requires_grad for parameter in model.parameters())
    before = committee.predict([molecule("H2O")])[0]
    with torch.no_grad():
        model.embedding.add_(1.0)
        model.head("member-1").out.add_(1.0)
    after = committee.predict([molecule("H2O")])[0]
    assert np.array_equal(before.member_energies, after.member_energies)


def test_a_committee_is_loaded_from_one_file(tmp_path: Path) -> None:
    model = make_model()
    save(model, tmp_path / "m.tace")
    loaded = HeadCommittee.load(tmp_path / "m.tace", heads=HEADS[:2])
    (prediction,) = loaded.predict([molecule("H2O")])
    (direct,) = HeadCommittee(model, HEADS[:2]).predict([molecule("H2O")])
    assert np.array_equal(prediction.member_energies, direct.member_energies)
    assert loaded.cutoff == model.config.cutoff and len(loaded) == 2


@pytest.mark.parametrize("member_forces", [True, False])
def test_the_calculator_takes_it(member_forces: bool) -> None:
    committee = HeadCommittee(make_model())
    copper = bulk("Cu", cubic=True)
    copper.rattle(0.1, seed=4)
    (expected,) = committee.predict([copper], stress=True)
    copper.calc = CommitteeCalculator(committee, member_forces=member_forces)
    assert copper.get_potential_energy() == pytest.approx(expected.energy, abs=1e-9)
    assert np.allclose(copper.get_forces(), expected.forces, atol=1e-9)
    assert np.allclose(copper.get_stress(voigt=False), expected.stress, atol=1e-9)
    results = copper.calc.results
    assert results["energy_spread"] == pytest.approx(expected.energy_spread, abs=1e-9)
    assert ("force_spread" in results) == ("member_forces" in results) == member_forces


def test_the_potential_takes_it() -> None:
    committee = HeadCommittee(make_model())
    for skin in (None, 0.5):
        predictions = CommitteePotential(committee, skin=skin).predict(frames())
        for prediction, expected in zip(predictions, committee.predict(frames()), strict=True):
            assert np.allclose(prediction.member_forces, expected.member_forces, atol=1e-9)
