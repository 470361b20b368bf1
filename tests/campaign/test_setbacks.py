"""Tasks that fail and committees that lose: setbacks that a campaign must get over by itself."""

import time
from pathlib import Path
from typing import Any

import pytest

from tace_al.campaign.generations import Generations
from tace_al.core.errors import LabellerError, TaceError
from tace_al.core.labels import Label
from tace_al.dispatch.tasks import band, label, langevin, train
from tace_al.store.store import Store

pytestmark = [pytest.mark.campaign, pytest.mark.slow]


@pytest.fixture
def quick_campaign(tiny_campaign: Any) -> Any:
    """Return a campaign of three short generations."""
    return tiny_campaign(
        model={"first_epochs": 5, "epochs": 3},
        exploration={"walkers": 1, "steps": 5, "band_steps": 5, "num_rattled": 2},
        stopping={"max_generations": 3},
    )


def test_a_generation_that_loses_does_not_serve(
    run: Any, tmp_path: Path, quick_campaign: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(generations: Generations, probe: dict[str, float]) -> bool:
        return generations.number != 2

    monkeypatch.setattr(Generations, "_no_worse_than_serving", judge)
    run(quick_campaign, tmp_path)
    with Store.open(tmp_path, create=False) as store:
        states = {generation.number: generation.state for generation in store.generations()}
        assert states == {1: "retired", 2: "rejected", 3: "serving"}
        # the next one begins anew instead of from the weights that lost
        assert all(not store.model(key).parents for key in store.generation(3).models)
        assert all(chunk.generation != 2 for chunk in store.chunks())


def test_a_member_that_fails_is_trained_again_from_another_seed(
    run: Any, tmp_path: Path, quick_campaign: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []
    original = train.run

    def fail_first(payload: dict[str, Any], folder: Path) -> dict[str, Any]:
        if payload["metadata"]["generation"] == 2 and payload["metadata"]["member"] == 0:
            seeds.append(payload["options"]["seed"])
            if len(seeds) == 1:
                raise RuntimeError("a cosmic ray")
        return original(payload, folder)

    monkeypatch.setattr(train, "run", fail_first)
    run(quick_campaign, tmp_path)
    assert len(seeds) == 2 and seeds[0] != seeds[1]
    with Store.open(tmp_path, create=False) as store:
        assert any("cosmic ray" in event.message for event in store.events(kind="warning"))
        (anew,) = (model for model in store.models(2) if model.member == 0)
        assert anew.seed == seeds[1] and not anew.parents
        (warm,) = (model for model in store.models(2) if model.member == 1)
        assert warm.parents


@pytest.mark.parametrize("num_crashes", [1, 100])
def test_an_end_state_whose_labeller_crashes_is_tried_once_more(
    num_crashes: int,
    run: Any,
    tmp_path: Path,
    quick_campaign: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crashes: list[int] = []
    original = label.guarded_label

    def crash(*arguments: Any, **options: Any) -> Label:
        if len(crashes) < num_crashes:
            crashes.append(1)
            raise RuntimeError("a cosmic ray")
        return original(*arguments, **options)

    monkeypatch.setattr(label, "guarded_label", crash)
    if num_crashes > 1:
        with pytest.raises(LabellerError, match=r"fails on the \w+ state.*a cosmic ray"):
            run(quick_campaign, tmp_path)
        # each end state once more at most, and the next session tries again
        assert 2 <= len(crashes) <= 4
        crashes.extend([1] * num_crashes)
    result, _ = run(quick_campaign, tmp_path)
    assert "inversion" in result.barriers


def test_time_that_runs_out_ends_a_campaign_in_the_middle_of_a_generation(
    run: Any, tmp_path: Path, tiny_campaign: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = {"first_epochs": 5, "epochs": 3}
    steps = {"walkers": 1, "steps": 5, "band_steps": 5}
    original = train.run

    def slow(payload: dict[str, Any], folder: Path) -> dict[str, Any]:
        if payload["metadata"]["generation"] == 2:
            time.sleep(2.0)
        return original(payload, folder)

    monkeypatch.setattr(train, "run", slow)
    budget = {"max_generations": 2, "max_seconds": 1e-3}
    result, _ = run(tiny_campaign(model=model, exploration=steps, stopping=budget), tmp_path)
    assert result.reason.startswith("time budget spent") and result.barriers == {}
    budget = {"max_generations": 2, "max_seconds": result.seconds + 1e3}
    with monkeypatch.context() as patch:
        late = property(lambda loop: 2e3 * (loop.generations.number > 1))
        patch.setattr("tace_al.campaign.loop._Loop.seconds", late)
        result, _ = run(tiny_campaign(model=model, exploration=steps, stopping=budget), tmp_path)
    assert result.reason.startswith("time budget spent") and "inversion" in result.barriers
    with Store.open(tmp_path, create=False) as store:
        assert [record.state for record in store.generations()] == ["serving", "training"]
    result, _ = run(tiny_campaign(model=model, exploration=steps), tmp_path)
    assert "generation budget" in result.reason
    with Store.open(tmp_path, create=False) as store:
        assert len(store.generations()) == 2


def test_walkers_that_fail_leave_the_band(
    run: Any, tmp_path: Path, quick_campaign: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(payload: dict[str, Any], folder: Path) -> dict[str, Any]:
        raise RuntimeError("the walker fell")

    monkeypatch.setattr(langevin, "run", fail)
    result, _ = run(quick_campaign, tmp_path)
    assert "inversion" in result.barriers
    with Store.open(tmp_path, create=False) as store:
        walkers = store.chunks(kind="md")
        assert walkers and all(chunk.state == "broken" for chunk in walkers)
        assert any("the walker fell" in event.message for event in store.events(kind="warning"))


def test_nothing_left_to_explore_with_is_an_error_and_the_same_command_goes_on(
    run: Any, tmp_path: Path, quick_campaign: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(payload: dict[str, Any], folder: Path) -> dict[str, Any]:
        raise RuntimeError("no way out")

    with monkeypatch.context() as patch:
        patch.setattr(langevin, "run", fail)
        patch.setattr(band, "run", fail)
        with pytest.raises(TaceError, match=r"no way out.*nothing can be explored"):
            run(quick_campaign, tmp_path)
    with Store.open(tmp_path, create=False) as store:
        assert store.campaign().state == "failed"
    result, _ = run(quick_campaign, tmp_path)
    assert result.num_labels > 0
