"""From a model or a checkpoint back to its labels, and from a frame to all that saw it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from ase.build import molecule

from tace_al.core.errors import RecordNotFound, StoreError
from tace_al.core.labels import Fidelity, Label
from tace_al.store.model_files import (
    LABEL_KEYS,
    ancestors,
    file_digest,
    label_keys_in,
    packed_label_keys,
)
from tace_al.store.store import Store

GFN2 = Fidelity(name="gfn2", code="tblite 0.8.0", settings={"method": "GFN2-xTB"})


def checkpoint(path: Path, **metadata: Any) -> Path:
    """Write a file with the header of a checkpoint."""
    import json

    header = {"tace": json.dumps({"format": "tace", "version": 2, "metadata": metadata})}
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file({"w": np.arange(2.0)}, path, metadata=header)
    return path


def add_label(store: Store, number: int, role: str = "train") -> tuple[str, str]:
    atoms = molecule("H2O")
    atoms.rattle(0.05, seed=number)
    origin = {"kind": "md", "walker": "c-0", "generation": 1, "index": 3, "step": 40 + number}
    key = store.add_structure(atoms, channel="c", origin=origin)
    label = Label(structure_key=key, fidelity_key=GFN2.key, energy=-number, forces=np.zeros((3, 3)))
    store.add_label(label, fidelity_name="gfn2", role=role, generation=1)
    return key, label.key


def add_models(store: Store, generation: int, labels: list[str], parents: list[str]) -> list[str]:
    """Add a committee of two whose members go on from the former ones'."""
    training_set = store.add_training_set(labels)
    keys = []
    for member in range(2):
        fields: dict[str, Any] = {
            "generation": generation,
            "member": member,
            "seed": 10 * generation + member,
            "parents": parents[member : member + 1],
        }
        name = f"models/{generation}-{member}.tace"
        checkpoint(store.directory / name, campaign=store.campaign_id, **fields)
        keys.append(f"{generation}{member}".ljust(32, "d"))
        fields |= {"training_set": training_set, "code_version": "0.1.0", "path": name}
        store.add_model(keys[-1], **fields)
    store.add_generation(generation, models=keys, num_labels=len(labels))
    return keys


@pytest.fixture
def grown(store: Store) -> tuple[Store, list[str], list[str]]:
    """Three generations on one, two and three labels; returns labels and structures."""
    store.add_fidelity(GFN2)
    structures, labels = zip(*(add_label(store, number) for number in range(3)), strict=True)
    parents: list[str] = []
    for generation in range(1, 4):
        parents = add_models(store, generation, list(labels[:generation]), parents)
    return store, list(labels), list(structures)


def test_a_file_leads_through_fine_tunings_into_the_campaign(
    grown: tuple[Store, list[str], list[str]], tmp_path: Path
):
    store, labels, _ = grown
    start = store.directory / store.model("30".ljust(32, "d")).path
    once = checkpoint(
        tmp_path / "once.tace",
        campaign=store.campaign_id,  # as `tace-al train --start` leaves it
        generation=3,
        member=0,
        seed=30,
        data="more.xyz",
        num_training=7,
        label_keys=packed_label_keys([labels[1]]),
        ancestors=ancestors(start),
    )
    text = packed_label_keys([labels[2], labels[0], labels[2]])
    twice = checkpoint(
        tmp_path / "twice.tace", data="own.xyz", ancestors=ancestors(once), label_keys=text
    )
    found = store.lineage_of_file(twice)
    assert (found.kind, found.key) == ("file", file_digest(twice))
    assert [node.file for node in found.files] == ["twice.tace", "once.tace", "3-0.tace"]
    assert [node.model for node in found.files] == [None, None, "30".ljust(32, "d")]
    assert found.files[1].metadata["data"] == "more.xyz"
    assert [(node.generation, node.member) for node in found.models] == [(3, 0), (2, 0), (1, 0)]
    assert [label.key for label in found.labels] == [labels[2], labels[0]]
    assert [node.labels for node in found.files] == [(labels[2], labels[0]), (labels[1],), ()]
    assert found.unknown == ()


def test_a_frame_leads_to_fine_tunings_of_fine_tunings(
    grown: tuple[Store, list[str], list[str]], tmp_path: Path
):
    store, labels, structures = grown
    start = store.directory / store.model("10".ljust(32, "d")).path  # saw the first label
    made: dict[str, Any] = {"data": "own.xyz", "label_keys": packed_label_keys([labels[1]])}
    once = checkpoint(tmp_path / "once.tace", **made, ancestors=ancestors(start))
    twice = checkpoint(tmp_path / "twice.tace", data="b.xyz", ancestors=ancestors(once))
    strange = checkpoint(tmp_path / "strange.tace", data="c.xyz")
    files = [once, twice, strange]

    def through(structure: str) -> list[str | None]:
        return [sight.through for sight in store.lineage(structure, files=files).sights]

    first = f"model {'10'.ljust(32, 'd')}"
    assert through(structures[0]) == [first, first, None]
    assert through(structures[1]) == ["once.tace", "once.tace", None]
    assert through(structures[2]) == [None, None, None]
    with pytest.raises(StoreError, match="is a model"):
        store.lineage("10d", files=files)


def test_a_file_of_the_campaign_is_its_model(grown: tuple[Store, list[str], list[str]]):
    store, _, _ = grown
    key = "21".ljust(32, "d")
    path = store.directory / store.model(key).path
    assert store.lineage_of_file(path).key == key
    copy = path.with_name("renamed.tace")
    copy.write_bytes(path.read_bytes())
    assert store.lineage_of_file(copy).key == key, "whatever it is called"
    store.connection.documents["model"].update_one(
        {"campaign": store.campaign_id, "key": key}, {"$set": {"digest": None}}
    )
    assert store.lineage_of_file(path).key == key, "records of older releases have no digest"


def test_a_file_from_elsewhere_is_told_as_far_as_it_tells(store: Store, tmp_path: Path):
    keys = ["ab" * 16, "cd" * 16]
    strange = checkpoint(
        tmp_path / "s.tace", campaign="other", label_keys=packed_label_keys(keys), ancestors=[3]
    )
    found = store.lineage_of_file(strange)
    assert (found.models, found.labels, found.unknown) == ((), (), tuple(keys))
    with pytest.raises(RecordNotFound, match=r"is no \.tace checkpoint"):
        store.lineage_of_file(tmp_path / "missing.tace")


def test_parents_that_are_not_in_the_campaign_are_named(store: Store):
    store.add_fidelity(GFN2)
    _, label = add_label(store, 0)
    add_models(store, 1, [label], ["ee" * 16, "ff" * 16])
    found = store.lineage("10d")
    assert found.unknown == ("ee" * 16,)
    assert [node.key for node in found.models] == ["10".ljust(32, "d")]


def test_a_frame_leads_to_its_trajectory_and_to_all_models(
    grown: tuple[Store, list[str], list[str]],
):
    store, _, structures = grown
    store.add_chunk(
        "k" * 8,
        walker="c-0",
        kind="md",
        channel="c",
        index=3,
        state="uncertain",
        generation=1,
        temperature=500.0,
        frames_path="results/frames.npz",
    )
    store.add_candidate(structures[1], kind="uncertain", channel="c", generation=1, uncertainty=0.4)
    store.move_candidate(structures[1], source="flagged", target="rejected", reason="duplicate")
    found = store.lineage(structures[1])
    assert [node.generation for node in found.models] == [2, 2, 3, 3]
    node = found.structure
    assert node is not None and node.chunk is not None
    assert (node.chunk.walker, node.chunk.index, node.chunk.temperature) == ("c-0", 3, 500.0)
    assert node.chunk.frames_path == "results/frames.npz"
    assert node.flagged_by_models == ("10".ljust(32, "d"), "11".ljust(32, "d"))
    assert (node.candidate_state, node.reason) == ("rejected", "duplicate")


def test_a_calibration_frame_leads_to_the_generations_it_sized(store: Store):
    store.add_fidelity(GFN2)
    _, trained = add_label(store, 0)
    audits = [add_label(store, number, role="calibration")[0] for number in (1, 2)]
    for generation in (1, 2):
        add_models(store, generation, [trained], [])
        store.update_generation(generation, num_calibration=generation)
    first, second = (store.lineage(key) for key in audits)
    assert first.models == second.models == ()
    assert [node.generation for node in first.calibrated] == [1, 1, 2, 2]
    assert [node.generation for node in second.calibrated] == [2, 2], "it came later"


def test_a_failure_tells_its_reason(store: Store):
    store.add_fidelity(GFN2)
    key = store.add_structure(molecule("NH3"), channel="c", origin={})
    store.add_failure(key, GFN2, kind="convergence", message="50 cycles", generation=1)
    (label,) = store.lineage(key).labels
    assert (label.state, label.failure_kind, label.message) == (
        "failed",
        "convergence",
        "50 cycles",
    )


def test_label_keys_in_headers():
    keys = [f"{number:032x}" for number in range(3)]
    assert label_keys_in({LABEL_KEYS: packed_label_keys(keys)}) == keys
    assert packed_label_keys([*keys, None]) == "", "all or nothing"
    for damaged in (None, 5, "abc", "x" * 32, ["a"]):
        assert label_keys_in({LABEL_KEYS: damaged}) == []


def test_the_walker_that_flagged_a_frame_is_not_the_one_that_brought_it(store: Store):
    key = store.add_structure(molecule("NH3"), channel="c", origin={"kind": "end_state"})
    met = {"kind": "neb", "walker": "c-band", "generation": 2, "step": 0}
    store.add_chunk("b", walker="c-band", kind="neb", channel="c", index=2, generation=2)
    for _ in range(2):
        assert store.add_structure(molecule("NH3"), channel="c", origin=met) == key
    store.add_structure(molecule("NH3"), channel="c", origin={**met, "generation": 3})
    store.add_structure(molecule("NH3"), channel="c", origin={"kind": "path"})
    assert len(store.structure_record(key).met) == 2, "each once, and walkers only"
    store.add_candidate(key, kind="uncertain", channel="c", generation=2)
    node = store.lineage(key).structure
    assert node is not None and node.chunk is not None
    assert (dict(node.met), node.origin["kind"]) == (met, "end_state")
    assert (node.chunk.walker, node.chunk.index) == ("c-band", 2)
