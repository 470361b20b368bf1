"""What leaves a campaign carries its labels, and where it comes from."""

from typing import Any

import numpy as np
import pytest
from ase.build import bulk, molecule

from tace_al.core.errors import DataError
from tace_al.core.labels import Fidelity, Label
from tace_al.store.export import Selection, exported_frames
from tace_al.store.store import Store

LEVELS = {
    name: Fidelity(name=name, code=f"tblite 0.8.0 {name}", settings={"method": name})
    for name in ("gfn1", "gfn2")
}


@pytest.fixture
def two_levels(store: Store) -> Store:
    """Six frames in two channels at gfn2, two of them at gfn1 too, one flagged, one failed."""
    for fidelity in LEVELS.values():
        store.add_fidelity(fidelity)
    for number in range(6):
        atoms = molecule("H2O")
        atoms.rattle(0.05, seed=number)
        origin = {"kind": "md", "walker": f"w{number}", "index": 2, "step": 10 * number}
        channel = "bare" if number < 4 else "water"
        key = store.add_structure(atoms, channel=channel, origin=origin)
        arguments: dict[str, Any] = {"kind": "uncertain", "generation": 2, "uncertainty": 0.25}
        store.add_candidate(key, channel=channel, state="labelled", **arguments)
        for name in ("gfn2", "gfn1") if number < 2 else ("gfn2",):
            label = Label(
                structure_key=key,
                fidelity_key=LEVELS[name].key,
                energy=-float(number),
                forces=np.full((3, 3), float(number)),
                dipole=np.arange(3.0),
                seconds=1.5,
            )
            store.add_label(
                label,
                fidelity_name=name,
                role="calibration" if number == 3 else "train",
                generation=number // 3,
                worker="node:1",
            )
    for name, state in (("CH4", "flagged"), ("NH3", "failed")):
        key = store.add_structure(molecule(name), channel="bare", origin={"kind": "seed"})
        store.add_candidate(key, kind="seed", channel="bare", generation=0, state=state)
    return store


def numbers(store: Store, **selection: Any) -> list[float]:
    return [-a.info["REF_energy"] for a in exported_frames(store, Selection(**selection))]


def test_frames_are_selected_by_what_they_are(two_levels: Store):
    gfn2 = {"fidelities": ("gfn2",)}
    assert numbers(two_levels, **gfn2) == [0, 1, 2, 3, 4, 5]
    assert numbers(two_levels, fidelities=("gfn1",)) == [0, 1]
    assert numbers(two_levels, **gfn2, channel="water") == [4, 5]
    assert numbers(two_levels, **gfn2, generation=0) == [0, 1, 2]
    assert numbers(two_levels, **gfn2, role="calibration") == [3]
    with pytest.raises(DataError, match=r"no frames in .* fit the selection"):
        numbers(two_levels, **gfn2, channel="bare", generation=1, role="train")


def test_levels_are_told_apart_or_refused(two_levels: Store):
    with pytest.raises(DataError, match=r"gfn1, gfn2; they must not be mixed.*--fidelity"):
        numbers(two_levels)
    frames = exported_frames(two_levels, Selection(fidelities=("gfn1", "gfn2")))
    heads = [atoms.info["head"] for atoms in frames]
    assert (heads.count("gfn1"), heads.count("gfn2")) == (2, 6)
    alone = exported_frames(two_levels, Selection(fidelities=("gfn2",)))
    assert all("head" not in atoms.info for atoms in alone), "the model's own head is meant"


def test_every_frame_says_where_it_comes_from(two_levels: Store):
    frames = exported_frames(two_levels, Selection(fidelities=("gfn2",), channel="water"))
    record = two_levels.labels("gfn2")[4]
    info = frames[0].info
    expected = {
        "campaign": two_levels.campaign_id,
        "structure_key": record.structure,
        "label_key": record.key,
        "fidelity": "gfn2",
        "fidelity_key": LEVELS["gfn2"].key,
        "code": "tblite 0.8.0 gfn2",
        "channel": "water",
        "generation": 1,
        "role": "train",
        "origin": "md",
        "walker": "w4",
        "chunk": 2,
        "step": 40,
        "candidate": "uncertain",
        "state": "labelled",
        "uncertainty": 0.25,
        "worker": "node:1",
        "seconds": 1.5,
        "code_version": "0.1.0",
    }
    assert {name: info[name] for name in expected} == expected
    assert np.array_equal(frames[0].arrays["REF_forces"], np.full((3, 3), 4.0))
    assert np.array_equal(info["REF_dipole"], np.arange(3.0))
    assert two_levels.lineage(info["label_key"]).key == record.structure


def test_a_label_is_labelled_whatever_its_candidate_became(two_levels: Store):
    key = two_levels.labels("gfn2")[4].structure
    two_levels.move_candidate(key, source="labelled", target="rejected", reason="duplicate")
    frames = exported_frames(two_levels, Selection(fidelities=("gfn2",), channel="water"))
    assert frames[0].info["state"] == "labelled" and "reason" not in frames[0].info


def test_stress_and_cell_come_along(store: Store):
    store.add_fidelity(LEVELS["gfn2"])
    key = store.add_structure(bulk("Cu", cubic=True), channel="c", origin={})
    stress = np.diag([0.1, 0.2, 0.3])
    label = Label(
        structure_key=key,
        fidelity_key=LEVELS["gfn2"].key,
        energy=0.0,
        forces=np.zeros((4, 3)),
        stress=stress,
    )
    store.add_label(label, fidelity_name="gfn2", role="train", generation=0)
    (atoms,) = exported_frames(store, Selection())
    assert np.array_equal(atoms.info["REF_stress"], stress)
    assert atoms.pbc.all() and "uncertainty" not in atoms.info


def test_unlabelled_frames_can_be_looked_at(two_levels: Store):
    (atoms,) = exported_frames(two_levels, Selection(state="flagged"))
    assert atoms.get_chemical_formula() == "CH4"
    assert atoms.info["state"] == "flagged" and "REF_energy" not in atoms.info
    assert len(exported_frames(two_levels, Selection(state="failed"))) == 1
    with pytest.raises(DataError, match="have no label; leave --fidelity"):
        Selection(state="failed", role="train")


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"role": "trian"}, "'trian' is no role. Did you mean 'train'"),
        ({"state": "labeled"}, "'labeled' is no state. Did you mean 'labelled'"),
        ({"fidelities": ("pbe",)}, "has labels of gfn1, gfn2, not of pbe"),
        ({"fidelities": ("gfn2",), "channel": "wter"}, "no channel 'wter'. Did you mean 'water'"),
    ],
)
def test_what_is_not_there_is_named(two_levels: Store, selection: Any, message: str):
    with pytest.raises(DataError, match=message):
        numbers(two_levels, **selection)
