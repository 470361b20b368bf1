"""What the Store's verbs promise, on every kind of database."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc100, molecule
from ase.constraints import FixAtoms

from tace_al.core.errors import RecordNotFound, StoreError
from tace_al.core.labels import Fidelity, Label
from tace_al.data.frames import structure_key
from tace_al.store.store import Store

GFN2 = Fidelity(name="gfn2", code="tblite 0.4.0", settings={"method": "GFN2-xTB", "accuracy": 1.0})


def rattled(number: int) -> Atoms:
    atoms = molecule("H2O")
    atoms.rattle(0.05, seed=number)
    return atoms


def add(store: Store, number: int, channel: str = "bare") -> str:
    origin = {"kind": "rattle", "step": np.int64(number)}
    return store.add_structure(rattled(number), channel=channel, origin=origin)


def label(key: str, energy: float = -1.0, **more: np.ndarray) -> Label:
    forces = np.full((3, 3), energy)
    return Label(structure_key=key, fidelity_key=GFN2.key, energy=energy, forces=forces, **more)


def put_label(store: Store, key: str, role: str = "train", energy: float = -1.0) -> bool:
    return store.add_label(
        label(key, energy), fidelity_name="gfn2", role=role, generation=0, worker="w"
    )


def test_starting_twice_goes_on_and_notes_a_changed_configuration(store: Store):
    store.finish_campaign("stopped", {"barrier": 1.8})
    created = store.campaign().created
    store.start_campaign("test", {"budget": 3}, seed=7, code_version="0.1.0")
    assert store.campaign().state == "running"
    assert store.campaign().created == created
    assert store.events("config") == []
    record = store.start_campaign("test", {"budget": 4}, seed=7, code_version="0.2.0")
    assert (record.config, record.code_version) == ({"budget": 4}, "0.2.0")
    assert len(store.events("config")) == 1
    with pytest.raises(StoreError, match="cannot be stored"):
        store.finish_campaign("finnished")


def test_a_structure_comes_back_bit_for_bit(store: Store):
    slab = fcc100("Pt", (2, 2, 3), vacuum=5.0)
    slab.set_constraint(FixAtoms(mask=slab.get_tags() > 1))
    slab.info.update(total_charge=1, spin_multiplicity=2, note="dropped")
    slab.rattle(0.01, seed=1)
    slab.set_momenta(np.ones((12, 3)))
    key = store.add_structure(slab, channel="hop", origin={"kind": "seed"})
    again = store.structure(key)
    assert key == structure_key(slab) == structure_key(again)
    assert np.array_equal(again.positions, slab.positions)
    assert np.array_equal(again.cell.array, slab.cell.array)
    assert again.constraints[0].index.tolist() == slab.constraints[0].index.tolist()
    assert again.get_tags().tolist() == slab.get_tags().tolist()
    assert again.info == {"total_charge": 1, "spin_multiplicity": 2}
    assert not again.has("momenta")
    record = store.structure_record(key)
    assert (record.num_atoms, record.charge, record.multiplicity) == (12, 1, 2)


def test_structures_are_stored_once_and_read_in_order(store: Store):
    keys = [add(store, number) for number in range(4)]
    assert add(store, 0) == keys[0]
    assert store.counts()["structures"] == 4
    frames = store.structures([keys[2], keys[0], keys[2]])
    assert [structure_key(atoms) for atoms in frames] == [keys[2], keys[0], keys[2]]
    assert frames[0] is not frames[2]
    with pytest.raises(RecordNotFound, match="no structure with key 'f0'"):
        store.structures([keys[0], "f0"])


def test_a_structure_beyond_a_megabyte_goes_to_gridfs(store: Store):
    generator = np.random.default_rng(0)
    atoms = Atoms(numbers=np.ones(60_000, int), positions=generator.normal(size=(60_000, 3)))
    key = store.add_structure(atoms, channel="big", origin={})
    assert store.structure_record(key).frame_file is not None
    assert np.array_equal(store.structure(key).positions, atoms.positions)


def test_a_label_is_stored_once(store: Store):
    store.add_fidelity(GFN2)
    assert store.add_fidelity(GFN2) == GFN2.key
    key = add(store, 0)
    assert not store.has_label(key, GFN2.key)
    assert put_label(store, key)
    assert not put_label(store, key, energy=-5.0)
    assert store.has_label(key, GFN2.key)
    (record,) = store.labels()
    assert record.energy == -1.0
    assert len(store.fidelities()) == 1


def test_a_failure_is_a_record_that_a_result_replaces(store: Store):
    key = add(store, 0)
    failure = {"kind": "convergence", "message": "no", "bundle": "failed/1"}
    assert store.add_failure(key, GFN2, generation=1, **failure)
    assert store.add_failure(key, GFN2, generation=1, **{**failure, "message": "no again"})
    (record,) = store.labels(state="failed")
    assert (record.failure_kind, record.message) == ("convergence", "no again")
    assert not store.has_label(key, GFN2.key)
    assert store.counts()["labels"]["failed"] == 1
    assert put_label(store, key)
    assert store.labels(state="failed") == []
    assert store.labels()[0].failure_kind is None
    assert not store.add_failure(key, GFN2, generation=1, **failure), "a result is not lost"


def test_labelled_frames_carry_what_training_needs(store: Store):
    keys = [add(store, number, channel=f"c{number}") for number in range(4)]
    for number, key in enumerate(keys):
        put_label(store, key, role="calibration" if number == 2 else "train", energy=-number)
    frames = store.labelled_frames("gfn2")
    assert [atoms.info["structure_key"] for atoms in frames] == keys
    assert [atoms.info["REF_energy"] for atoms in frames] == [0.0, -1.0, -2.0, -3.0]
    assert [atoms.info["channel"] for atoms in frames] == ["c0", "c1", "c2", "c3"]
    assert np.array_equal(frames[3].arrays["REF_forces"], np.full((3, 3), -3.0))
    assert "REF_stress" not in frames[0].info
    assert len(store.labelled_frames("gfn2", role="train")) == 3
    chosen = [frames[3].info["label_key"], frames[0].info["label_key"]]
    assert len(store.labelled_frames("gfn2", keys=chosen)) == 2
    assert store.labelled_frames("pbe") == []
    with pytest.raises(StoreError, match="1 of 1 label keys"):
        store.labelled_frames("gfn2", keys=["0" * 32])


def test_stress_and_dipole_are_kept(store: Store):
    key = add(store, 0)
    stress = np.diag([0.1, 0.2, 0.3])
    store.add_label(
        label(key, stress=stress, dipole=np.arange(3.0)),
        fidelity_name="gfn2",
        role="train",
        generation=0,
    )
    arrays = store.label_arrays(store.labels()[0])
    assert np.array_equal(arrays["dipole"], np.arange(3.0))
    assert np.array_equal(store.labelled_frames("gfn2")[0].info["REF_stress"], stress)


def test_a_candidate_moves_once(store: Store):
    prediction = {"energy": -1.5, "forces": np.ones((3, 3)), "force_spread": None}
    arguments = {"kind": "uncertain", "channel": "bare", "generation": 2, "uncertainty": 0.4}
    assert store.add_candidate("k", prediction=prediction, **arguments)
    assert not store.add_candidate("k", **arguments)
    (candidate,) = store.candidates("flagged")
    assert store.prediction(candidate)["energy"] == -1.5
    assert set(store.prediction(candidate)) == {"energy", "forces"}
    assert store.move_candidate("k", source="flagged", target="queued", priority=3.0)
    assert not store.move_candidate("k", source="flagged", target="queued")
    assert store.move_candidate("k", source=("flagged", "queued"), target="rejected", reason="far")
    assert (store.candidate("k").reason, store.candidate("k").priority) == ("far", 3.0)
    assert store.prediction(store.candidate("k"))["energy"] == -1.5
    with pytest.raises(StoreError, match="Did you mean 'queued'"):
        store.move_candidate("k", source="rejected", target="queud")
    with pytest.raises(StoreError, match=r"no field 'prioritty'.*'priority'"):
        store.move_candidate("k", source="rejected", target="queued", prioritty=1.0)


def test_claims_are_leases_by_priority(store: Store):
    for number, priority in enumerate([0.5, 2.0, 1.0, 2.0]):
        store.add_candidate(
            f"k{number}", kind="seed", channel="c", generation=0, priority=priority, state="queued"
        )
    claimed = store.claim_candidates("one", 3)
    assert {c.key for c in claimed[:2]} == {"k1", "k3"}
    assert claimed[2].key == "k2"
    assert all(c.attempts == 1 and c.owner == "one" for c in claimed)
    assert [c.key for c in store.claim_candidates("two", 5)] == ["k0"]
    assert store.heartbeat("one") == 3
    assert store.release_stale(60.0) == 0
    assert store.release_stale(0.0, owner="two") == 1
    assert store.release_stale(0.0) == 3
    assert store.claim_candidates("two", 1)[0].attempts == 2
    assert store.candidates("queued")[0].owner is None


def test_a_training_set_is_its_ordered_labels(store: Store):
    keys = [f"{number:032x}" for number in range(5)]
    key = store.add_training_set(keys)
    assert store.add_training_set(keys) == key
    assert store.add_training_set(keys[::-1]) != key
    assert store.training_set(key) == keys
    with pytest.raises(StoreError, match="no label key"):
        store.add_training_set(["oops"])


def test_generations_move_and_one_serves(store: Store):
    assert store.serving() is None
    assert store.add_generation(0, models=["a", "b"], num_labels=10)
    assert not store.add_generation(0)
    assert store.move_generation(0, source="training", target="calibrated", scale=2.5)
    assert store.move_generation(0, source="calibrated", target="serving")
    store.add_generation(1)
    store.update_generation(1, coverage=0.9, errors={"forces": np.float64(0.1)}, barriers={})
    serving = store.serving()
    assert serving is not None
    assert (serving.number, serving.scale, list(serving.models)) == (0, 2.5, ["a", "b"])
    assert store.generation(1).errors == {"forces": 0.1}
    assert [g.number for g in store.generations()] == [0, 1]
    assert not store.move_generation(1, source="serving", target="retired")
    with pytest.raises(RecordNotFound, match="no generation with number 9"):
        store.update_generation(9, coverage=0.1)
    with pytest.raises(StoreError, match="cannot be stored"):
        store.update_generation(1, models=["x"] * 17)


def test_chunks_are_a_walkers_history(store: Store):
    for index in (1, 0):
        assert store.add_chunk(
            f"w/{index}", walker="w", kind="md", channel="c", index=index, generation=0
        )
    assert store.move_chunk(
        "w/0", source="running", target="known", steps=100, summary={"mean": float("nan")}
    )
    assert not store.move_chunk("w/0", source="running", target="broken")
    assert [c.index for c in store.chunks(walker="w")] == [0, 1]
    assert [c.key for c in store.chunks(state="running")] == ["w/1"]
    assert np.isnan(store.chunk("w/0").summary["mean"])


def test_events_keep_their_order(store: Store):
    for number in range(5):
        store.log("task", "label", task_kind="label", key=f"k{number}", ok=True)
    store.log("note", "hello")
    assert [event.data["key"] for event in store.events("task")] == [f"k{n}" for n in range(5)]
    assert len(store.events()) == 6


@pytest.mark.parametrize("key", ["$where", "a.b", "a\x00b"])
def test_dangerous_keys_are_refused(store: Store, key: str):
    with pytest.raises(StoreError, match="cannot be stored"):
        store.log("note", "x", inner={"deep": {key: 1}})
    with pytest.raises(StoreError, match="cannot be stored"):
        store.add_structure(rattled(0), channel="c", origin={key: 1})


def test_unknown_fields_name_the_nearest(store: Store):
    with pytest.raises(StoreError, match="Did you mean 'temperature'"):
        store.add_chunk("k", walker="w", kind="md", channel="c", index=0, temprature=300.0)


def test_lineage_of_a_model_reaches_its_oldest_ancestor(store: Store):
    store.add_fidelity(GFN2)
    keys = [add(store, number) for number in range(3)]
    for key in keys:
        put_label(store, key)
    labels = [record.key for record in store.labels()]
    small, large = store.add_training_set(labels[:2]), store.add_training_set(labels[::-1])
    previous: list[str] = []
    for generation in range(6):
        current = [f"{generation}{member}".ljust(32, "e") for member in range(2)]
        for member, key in enumerate(current):
            store.add_model(
                key,
                generation=generation,
                member=member,
                path=f"models/{key}",
                parents=previous,
                training_set=large if generation == 5 else small,
                seed=100 + generation,
                config={"channels": 8},
                code_version="0.1.0",
            )
        previous = current
    lineage = store.lineage("50" + "e" * 20)
    assert (lineage.kind, lineage.key) == ("model", "50".ljust(32, "e"))
    assert [model.generation for model in lineage.models] == [5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0]
    assert lineage.models[0].training_set == large
    assert (lineage.models[0].seed, lineage.models[0].code_version) == (105, "0.1.0")
    assert [node.key for node in lineage.labels] == labels[::-1]
    assert lineage.labels[0].code == "tblite 0.4.0"

    third = store.lineage(keys[2])
    assert {model.generation for model in third.models} == {5}
    assert [node.energy for node in third.labels] == [-1.0]
    assert len(store.lineage(keys[0]).models) == 12


def test_lineage_of_a_structure_tells_who_flagged_it(store: Store):
    key = add(store, 0)
    assert store.lineage(key).structure.flagged_by_generation is None
    store.add_candidate(key, kind="uncertain", channel="bare", generation=4, uncertainty=0.7)
    structure = store.lineage(key[:12]).structure
    assert structure.origin == {"kind": "rattle", "step": 0}
    assert (structure.flagged_by_generation, structure.uncertainty) == (4, 0.7)
    put_label(store, key)
    assert store.lineage(store.labels()[0].key).key == key, "a label leads to its structure"


def test_lineage_of_nothing_and_of_too_much(store: Store):
    for key in ("a" * 32, "a" * 31 + "b"):
        store.add_model(
            key, generation=0, member=0, path="p", training_set="0", seed=0, code_version="0"
        )
    with pytest.raises(RecordNotFound, match="ambiguous"):
        store.lineage("aaaa")
    with pytest.raises(RecordNotFound, match="begins with 'bbbb'"):
        store.lineage("bbbb")
    with pytest.raises(RecordNotFound, match="no identifier"):
        store.lineage("../x")


def test_counts_cover_every_kind(store: Store):
    key = add(store, 0)
    put_label(store, key, role="calibration")
    store.add_candidate(key, kind="audit", channel="c", generation=0)
    store.add_generation(0)
    store.log("note", "x")
    assert store.counts() == {
        "structures": 1,
        "candidates": {"flagged": 1},
        "labels": {"train": 0, "calibration": 1, "failed": 0},
        "models": 0,
        "generations": {"training": 1},
        "chunks": {},
        "events": 1,
    }
