"""Two levels of theory in one campaign: GFN1-xTB everywhere, GFN2-xTB where it matters."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tace_al.campaign.config import Campaign
from tace_al.campaign.workplace import cheap_level
from tace_al.core.errors import ConfigError
from tace_al.engines.labelling.catalogue import labeller_from_name
from tace_al.model.checkpoint import load
from tace_al.store.store import Store
from tace_al.workflows import proton_transfer
from tace_al.workflows.reactions import REFERENCE_BARRIERS

LEVELS = ["gfn1", "gfn2"]
SMALL = {
    "fidelities": LEVELS,
    "model": {"first_epochs": 15, "epochs": 8},
    "exploration": {"walkers": 1, "steps": 20, "band_steps": 40},
}


@pytest.fixture(scope="module")
def two_levels(
    tmp_path_factory: pytest.TempPathFactory, tiny_campaign: Any, run_to_its_end: Any
) -> Iterator[Any]:
    """Return a finished campaign at two levels: read it, never change it."""
    folder = tmp_path_factory.mktemp("levels") / "ammonia"
    campaign = tiny_campaign(**SMALL, stopping={"max_labels": 80, "max_generations": 2})
    yield from run_to_its_end(campaign, folder)


def counts(store: Store) -> Counter[str]:
    return Counter(str(label.fidelity_name) for label in store.labels(state=None))


@pytest.mark.campaign
@pytest.mark.slow
class TestFinished:
    def test_expensive_labels_are_few(self, two_levels: Any) -> None:
        store, found = two_levels.store, counts(two_levels.store)
        assert set(found) == set(LEVELS)
        assert 0 < found["gfn2"] < found["gfn1"] / 1.5
        assert found == two_levels.result.labels_by_level
        assert found.total() == two_levels.result.num_labels
        labels = store.labels(state=None)
        assert len({(label.structure, label.fidelity) for label in labels}) == len(labels)
        assert "gfn2" in two_levels.result.summary()

    def test_the_barrier_is_that_of_the_expensive_level(self, two_levels: Any) -> None:
        store = two_levels.store
        barrier = two_levels.result.barriers["inversion"]
        # GFN2 0.265, GFN1 0.185 eV; so small a network is rough
        assert barrier["barrier"] == pytest.approx(
            REFERENCE_BARRIERS["ammonia_inversion"], abs=0.15
        )
        saddle = [label for label in store.labels("gfn2") if label.structure == barrier["saddle"]]
        assert len(saddle) == 1, "every saddle point is labelled at the expensive level"
        if barrier["saddle_label"] is not None:
            reactant = min(label.energy for label in store.labels("gfn2"))
            above = saddle[0].energy - reactant
            assert barrier["saddle_label"] == pytest.approx(above, abs=0.02)

    def test_whatever_has_an_expensive_label_has_a_cheap_one(self, two_levels: Any) -> None:
        store = two_levels.store
        cheap = {label.structure for label in store.labels("gfn1")}
        assert {label.structure for label in store.labels("gfn2")} <= cheap

    def test_calibration_is_kept_apart_at_both_levels(self, two_levels: Any) -> None:
        store = two_levels.store
        held_out = {label.structure for label in store.labels(role="calibration")}
        trained = {label.structure for label in store.labels(role="train")}
        assert held_out and not held_out & trained

    def test_members_have_a_head_a_level(self, two_levels: Any) -> None:
        store = two_levels.store
        for record in store.models():
            model = load(two_levels.directory / record.path)
            assert model.config.heads == tuple(LEVELS)
            low, high = model.head("gfn1"), model.head("gfn2")
            assert not (low.hidden == high.hidden).all()
        levels = {label.key: label.fidelity_name for label in store.labels()}
        for record in store.models():
            seen = {levels[key] for key in store.training_set(record.training_set)}
            assert seen == set(LEVELS)

    def test_nothing_is_left_undone(self, two_levels: Any) -> None:
        states = {candidate.state for candidate in two_levels.store.candidates()}
        assert states <= {"labelled", "failed", "rejected", "expired"}
        chosen = [record.audit["chosen"] for record in two_levels.store.generations()]
        most = two_levels.campaign.expensive.per_generation
        assert all(0 <= one["expensive"] <= most for one in chosen)


@pytest.mark.campaign
@pytest.mark.slow
def test_the_budget_of_expensive_labels_ends_a_campaign(
    tmp_path: Path, run: Any, tiny_campaign: Any
) -> None:
    stopping = {"max_labels": 80, "max_generations": 3, "max_expensive_labels": 6}
    campaign = tiny_campaign(
        **{**SMALL, "model": {"first_epochs": 3, "epochs": 2}}, stopping=stopping
    )
    result, _ = run(campaign, tmp_path / "budget")
    assert result.labels_by_level["gfn2"] <= 6
    assert result.reason == "label budget spent: 6 of 6 labels of gfn2"


@pytest.mark.campaign
@pytest.mark.slow
def test_killed_it_goes_on_and_labels_nothing_twice(
    program: Callable[[Campaign], Any], tiny_campaign: Any
) -> None:
    small = {**SMALL, "model": {"first_epochs": 8, "epochs": 4}}
    campaign = tiny_campaign(**small, stopping={"max_labels": 90, "max_generations": 2})
    runs = program(campaign)
    runs.start_and_wait_for("results/train/*/.scratch-*")
    known = {path: path.stat().st_mtime_ns for path in runs.directory.glob("labels/*.npz")}
    assert known
    runs.kill()
    runs.start()
    code, out, err = runs.finish()
    assert code == 0, out + err
    assert all(path.stat().st_mtime_ns == time for path, time in known.items())
    with Store.open(runs.directory, create=False) as store:
        labels = store.labels(state=None)
        assert len({label.key for label in labels}) == len(labels)
        assert len(list(runs.directory.glob("labels/*.npz"))) == len(labels)
        assert 0 < counts(store)["gfn2"] < counts(store)["gfn1"]
        assert not store.candidates(state="running") and not store.candidates(state="queued")


class TestConfig:
    def test_names_stand_for_levels(self) -> None:
        campaign = proton_transfer.campaign(fidelities=("gfn1", "gfn2"))
        assert [choice.name for choice in campaign.fidelities] == LEVELS
        assert campaign.labeller == campaign.fidelities[1]
        assert Campaign.build(**campaign.model_dump(mode="json")) == campaign
        assert campaign.reactions[0].reference_barrier == pytest.approx(0.163)

    def test_a_campaign_of_one_level_keeps_its_key(self) -> None:
        campaign = proton_transfer.campaign()
        changed = campaign.expensive.model_copy(update={"per_generation": 9})
        assert campaign.model_copy(update={"expensive": changed}).content_key == (
            campaign.content_key
        )
        two = proton_transfer.campaign(fidelities=("gfn1", "gfn2"))
        assert two.model_copy(update={"expensive": changed}).content_key != two.content_key

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"fidelities": ["gfn2"]}, "give two, the cheap one first"),
            ({"fidelities": ["gfn2", "gfn2"]}, "are the same, 'gfn2'"),
            ({"fidelities": LEVELS, "labeller": {"name": "emt"}}, "leave the labeller out"),
            ({"stopping": {"max_expensive_labels": 3}}, "name them, or use stopping.max_labels"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(
        self, tiny_campaign: Any, changes: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            tiny_campaign(**changes)

    def test_levels_of_one_name_could_not_be_told_apart(self) -> None:
        choices = [
            {"name": "gfn2", "options": {"accuracy": 1.0}},
            {"name": "gfn2", "options": {"accuracy": 0.01}},
        ]
        plain = proton_transfer.campaign().model_dump(mode="json", exclude={"labeller"})
        campaign = Campaign.build(**{**plain, "fidelities": choices})
        target = labeller_from_name("gfn2", {"accuracy": 0.01}).fidelity
        with pytest.raises(ConfigError, match="different names"):
            cheap_level(campaign, target)
