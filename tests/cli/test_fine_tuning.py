"""From a campaign's labels to a file, to a model, to a finer one, and all the way back."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule

from tace_al.core.labels import Label
from tace_al.engines.labelling.catalogue import labeller_from_name
from tace_al.store.embedded.launch import stop_server
from tace_al.store.store import Store


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A campaign of twelve labelled waters, the last three asked for by generation 1."""
    monkeypatch.delenv("TACE_AL_MONGO_URI", raising=False)
    folder = tmp_path / "water"
    labeller = labeller_from_name("fake")
    rng = np.random.default_rng(3)
    with Store.open(folder) as store:
        store.start_campaign("water", {}, seed=0, code_version="0.1.0")
        store.add_fidelity(labeller.fidelity)
        for number in range(12):
            atoms = molecule("H2O")
            atoms.positions += rng.normal(0.0, 0.1, (3, 3))
            key = store.add_structure(atoms, channel="c", origin={"kind": "rattle"})
            made = labeller.label(store.structure(key))
            label = Label(
                structure_key=key,
                fidelity_key=labeller.fidelity.key,
                energy=made.energy,
                forces=made.forces,
                dipole=np.zeros(3),
            )
            name, generation = labeller.fidelity.name, number // 9
            store.add_label(label, fidelity_name=name, role="train", generation=generation)
        yield folder
    stop_server(folder / "db")


@pytest.mark.slow
def test_a_fine_tuned_model_leads_back_to_its_labels(
    tace_al, campaign: Path, tmp_path: Path
) -> None:
    first, later = tmp_path / "first.xyz", tmp_path / "later.xyz.xz"
    assert tace_al("export", campaign, first, "--generation", 0).code == 0
    outcome = tace_al("export", campaign, later, "--generation", 1, "--role", "train")
    assert outcome.code == 0 and outcome.out.startswith("3 labelled structures")
    cold, warm = tmp_path / "cold.tace", tmp_path / "warm.tace"
    quick = ("--epochs", 1, "--valid-fraction", 0)
    outcome = tace_al("train", first, "--preset", "tiny", "--cutoff", 3, "--out", cold, *quick)
    assert outcome.code == 0, outcome.err
    outcome = tace_al("train", later, "--start", cold, "--out", warm, *quick)
    assert outcome.code == 0, outcome.err

    found = json.loads(tace_al("lineage", campaign, warm, "--json").out)
    assert [file["file"] for file in found["files"]] == ["warm.tace", "cold.tace"]
    assert [label["sequence"] for label in found["labels"]] == [9, 10, 11]
    assert found["unknown"] == []
    found = json.loads(tace_al("lineage", campaign, cold, "--json").out)
    assert [label["sequence"] for label in found["labels"]] == list(range(9))
    outcome = tace_al("lineage", campaign, warm)
    assert outcome.code == 0, outcome.err
    assert "Goes on from" in outcome.out and "9 structures of first.xyz" in outcome.out
    assert "Labels it saw, in order" in outcome.out


def test_a_file_that_is_no_model(tace_al, campaign: Path, tmp_path: Path) -> None:
    outcome = tace_al("lineage", campaign, tmp_path / "missing.tace")
    assert outcome.code == 2 and "is no .tace checkpoint" in outcome.err
