"""A committee is its members: stacked, in turn and one by one give the same numbers."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from tace_al.core.errors import ModelError, StructureError
from tace_al.data.graph import graph_from_atoms
from tace_al.model import committee as committee_module
from tace_al.model import ensemble
from tace_al.model.checkpoint import save
from tace_al.model.committee import Committee
from tace_al.model.head_committee import HeadCommittee
from tace_al.model.tace import Tace


def make_members(num_members: int = 3, **options: object) -> list[Tace]:
    members = []
    for seed in range(num_members):
        settings: dict = {"channels": 8, "dtype": "float64", "average_neighbours": 4.0 + seed}
        model = Tace.from_preset(
            "tiny", elements=["H", "O", "Cu"], seed=seed, **(settings | options)
        )
        model.head().e0.copy_(torch.tensor([-1.0, -2.0, -3.0]).double() * (seed + 1))
        model.head().scale.fill_(0.5 + seed)
        members.append(model)
    return members


def frames() -> list[Atoms]:
    copper = bulk("Cu", cubic=True)
    copper.rattle(0.1, seed=1)
    return [molecule("H2O"), copper, Atoms("H"), molecule("H2O2"), bulk("Cu")]


@pytest.mark.parametrize(("splines", "error"), [(False, 1e-10), (True, 1e-7)])
@pytest.mark.parametrize("stacked_size", [0, 10**6], ids=["in turn", "stacked"])
def test_the_committee_says_what_its_members_say(
    stacked_size: int, splines: bool, error: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committee_module, "STACKED_SIZE", stacked_size)
    monkeypatch.setattr(committee_module, "ONE_CALL_EDGES", stacked_size)
    members = make_members()
    committee = Committee(members, splines=splines)
    predictions = committee.predict(frames(), stress=True, descriptors=True)
    for atoms, prediction in zip(frames(), predictions, strict=True):
        graph = graph_from_atoms(atoms, 5.0)
        outputs = [member.evaluate(graph, ("forces", "stress")) for member in members]
        energies = [output.energy.item() for output in outputs]
        assert prediction.member_energies == pytest.approx(energies, abs=error)
        forces = np.array([output.forces.detach().numpy() for output in outputs])
        assert np.allclose(prediction.member_forces, forces, atol=error)
        features = outputs[0].descriptors.detach().numpy()
        assert np.allclose(prediction.descriptors, features, atol=error)
        if atoms.pbc.all():
            stress = np.mean([output.stress.detach().numpy()[0] for output in outputs], axis=0)
            assert np.allclose(prediction.stress, stress, atol=error)
        else:
            assert prediction.stress is None


@pytest.mark.parametrize("splines", [False, True])
def test_callers_may_have_switched_gradients_off(splines: bool) -> None:
    members = make_members(2)
    heads = Tace.from_preset("tiny", elements=["H", "O"], heads=("a", "b"), channels=8)
    for committee in (Committee(members, splines=splines), HeadCommittee(heads, splines=splines)):
        (expected,) = committee.predict([molecule("H2O")])
        with torch.no_grad():
            (found,) = committee.predict([molecule("H2O")])
        assert np.array_equal(found.member_forces, expected.member_forces)
        assert np.abs(found.member_forces).max() > 0.0


def test_large_requests_are_split_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    committee = Committee(make_members(2))
    whole = committee.predict(frames())
    monkeypatch.setattr(ensemble, "MAXIMUM_EDGES", 10)
    for before, after in zip(whole, committee.predict(frames()), strict=True):
        assert np.allclose(before.member_energies, after.member_energies, atol=1e-12)
        assert np.allclose(before.member_forces, after.member_forces, atol=1e-12)
    assert committee.predict([]) == []


def test_equal_members_agree_and_different_ones_do_not() -> None:
    member = make_members(1)[0]
    same = Committee([member, member]).predict([molecule("H2O")])[0]
    assert same.force_spread.max() < 1e-12
    different = Committee(make_members(2)).predict([molecule("H2O")])[0]
    assert different.force_spread.min() > 1e-3


def test_members_must_share_a_shape() -> None:
    with pytest.raises(ModelError, match="at least one member"):
        Committee([])
    with pytest.raises(ModelError, match="differ in shape"):
        Committee([make_members(1)[0], make_members(1, channels=4)[0]])


def test_the_callers_models_are_left_trainable_and_apart() -> None:
    members = make_members(2)
    committee = Committee(members)
    assert all(parameter.requires_grad for parameter in members[0].parameters())
    before = committee.predict([molecule("H2O")])[0]
    with torch.no_grad():
        members[0].embedding.add_(1.0)
    after = committee.predict([molecule("H2O")])[0]
    assert np.array_equal(before.member_energies, after.member_energies)


def test_bad_structures_are_refused_before_the_network() -> None:
    committee = Committee(make_members(1))
    with pytest.raises(StructureError, match="cannot share a place"):
        committee.predict([Atoms("H2", positions=[[0, 0, 0], [0, 0, 0]])])
    with pytest.raises(StructureError, match="NaN"):
        committee.predict([Atoms("H", positions=[[np.nan, 0, 0]])])
    with pytest.raises(ModelError, match="unknown"):
        committee.predict([molecule("CH4")])


def test_a_committee_is_loaded_from_files(tmp_path) -> None:  # type: ignore[no-untyped-def]
    members = make_members(2)
    paths = [tmp_path / f"{index}.tace" for index in range(2)]
    for member, path in zip(members, paths, strict=True):
        save(member, path)
    loaded = Committee.load(paths).predict([molecule("H2O")])[0]
    direct = Committee(members).predict([molecule("H2O")])[0]
    assert np.array_equal(loaded.member_energies, direct.member_energies)
    assert len(Committee.load(paths)) == 2
