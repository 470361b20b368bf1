"""Campaigns without reactions: channels of structures, samplers and targets by name."""

from pathlib import Path
from typing import Any

import pytest
from ase.build import molecule

from tace_al.campaign.config import Campaign, Structure
from tace_al.core.errors import ConfigError
from tace_al.dispatch.machine import machine_from_name
from tace_al.store.store import Store


def water(**parts: Any) -> dict[str, Any]:
    """Return the content of a tiny campaign on one molecule."""
    start = Structure.from_atoms(molecule("H2O"))
    sampler = {
        "name": "langevin",
        "walkers": 2,
        "options": {"steps": 20, "record_every": 5},
        "ladder": {"temperature": [150.0, 300.0]},
    }
    return {
        "name": "water",
        "structures": [{"name": "water", "starts": [start]}],
        "samplers": [sampler, {"name": "fake", "options": {"num_frames": 2}}],
        "machine": machine_from_name("threads", workers=2),
        "model": {
            "options": {"channels": 8, "radial_hidden": [16]},
            "members": 2,
            "first_epochs": 10,
            "epochs": 3,
        },
        "exploration": {"num_rattled": 6, "relax_steps": 10},
        "stopping": {"max_labels": 40, "max_generations": 2},
        **parts,
    }


@pytest.mark.slow
@pytest.mark.campaign
def test_samplers_explore_and_a_target_is_judged(run: Any, tmp_path: Path) -> None:
    target = {
        "name": "relaxed_distance",
        "options": {"first": 0, "second": 1},
    }
    model = {**water()["model"], "first_epochs": 60, "epochs": 20}
    campaign = Campaign.build(**water(target=target, model=model))
    result, text = run(campaign, tmp_path)
    # GFN2's bond is 0.959 A; networks of eight channels come near it
    assert result.targets["water"]["value"] == pytest.approx(0.959, abs=0.05)
    assert 0.0 < result.targets["water"]["error_bar"] < 0.3
    assert "water 0.9" in text or "water 1.0" in text
    assert "Å" in result.summary()
    with Store.open(tmp_path, create=False) as store:
        chunks = store.chunks(kind="md")
        by_sampler = {chunk.summary["payload"]["sampler"] for chunk in chunks}
        assert by_sampler == {"langevin", "fake"}
        assert {chunk.temperature for chunk in chunks} == {150.0, 300.0, None}
        assert all(record.targets for record in store.generations() if record.state != "rejected")
        origins = [store.structure_record(one.key).origin for one in store.candidates()]
        assert {"langevin", "fake"} & {origin.get("sampler") for origin in origins}
    assert "Target (committee" in result.report.read_text()
    again, _ = run(campaign, tmp_path)
    assert again.targets == result.targets


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"structures": []}, "reactions: there are none"),
        ({"samplers": [{"name": "langevine"}]}, "Did you mean 'langevin'?"),
        ({"samplers": [{"name": "langevin", "options": {"step": 1}}]}, "Did you mean 'steps'?"),
        ({"samplers": [{"name": "fake", "channels": ["wter"]}]}, "Did you mean 'water'?"),
        ({"samplers": [{"name": "fake", "ladder": {"temprature": [1]}}]}, "has no option"),
        ({"target": {"name": "barrier"}}, "needs reactions"),
        ({"target": {"name": "none", "options": {"x": 1}}}, "has no options"),
        ({"target": {"name": "observble"}}, "Did you mean 'observable'?"),
        ({"structures": [{"name": "a", "starts": []}]}, "starts"),
    ],
)
def test_wrong_parts_are_one_sentence(parts: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Campaign.build(**water(**parts))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_sampling_campaign_survives_yaml(tmp_path: Path) -> None:
    campaign = Campaign.build(**water(target={"name": "observable", "options": {"name": "x"}}))
    (tmp_path / "campaign.yaml").write_text(campaign.to_yaml())
    read = Campaign.from_yaml(tmp_path / "campaign.yaml")
    assert read == campaign and read.content_key == campaign.content_key
    assert campaign.elements == ("H", "O") and campaign.target_name == "observable"
    other = Campaign.build(**water())
    assert other.target_name == "none" and other.content_key != campaign.content_key


def test_a_ladder_climbs_and_stays() -> None:
    sampler = Campaign.build(**water()).samplers[0]
    temperatures = [sampler.options_at(number)["temperature"] for number in (1, 2, 5)]
    assert temperatures == [150.0, 300.0, 300.0]
