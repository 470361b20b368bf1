import fcntl
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tace_al.campaign.config import Campaign, Structure
from tace_al.core.errors import ConfigError, LabellerError, StructureError
from tace_al.data.frames import structure_key
from tace_al.model.checkpoint import load
from tace_al.store.store import Store
from tace_al.workflows.reactions import REFERENCE_BARRIERS, ammonia_inversion

pytestmark = [pytest.mark.campaign, pytest.mark.slow]

FINAL_STATES = {"labelled", "failed", "rejected", "expired"}


def check_campaign(finished: Any) -> None:
    """Check what must hold for every campaign that ended well."""
    store, campaign = finished.store, finished.campaign
    assert store.campaign().state == "finished"
    labels = store.labels(state=None)
    assert len({label.key for label in labels}) == len(labels)
    assert len({(label.structure, label.fidelity) for label in labels}) == len(labels)
    assert len(labels) == finished.result.num_labels <= campaign.stopping.max_labels
    assert {candidate.state for candidate in store.candidates()} <= FINAL_STATES
    states = [generation.state for generation in store.generations()]
    assert states.count("serving") == 1
    assert set(states) <= {"serving", "retired", "rejected"}
    assert all(chunk.state != "running" for chunk in store.chunks(kind="neb"))
    barrier = finished.result.barriers["inversion"]
    # the answer of so small a network is rough; the labeller's own at its saddle point is not
    assert abs(barrier["barrier"] - REFERENCE_BARRIERS["ammonia_inversion"]) < 0.2
    if barrier["saddle_label"] is not None:
        assert abs(barrier["saddle_label"] - REFERENCE_BARRIERS["ammonia_inversion"]) < 0.1
        assert barrier["error_bar"] >= abs(barrier["saddle_label"] - barrier["barrier"]) - 1e-12


def test_a_campaign_in_threads(finished_in_threads: Any) -> None:
    check_campaign(finished_in_threads)
    generations = finished_in_threads.store.generations()
    assert [generation.number for generation in generations] == [1, 2, 3]
    assert "generation budget spent" in finished_in_threads.result.reason
    assert "barrier" in finished_in_threads.result.summary()


def test_a_campaign_in_processes(finished_in_processes: Any) -> None:
    check_campaign(finished_in_processes)
    workers = {event.data["worker"] for event in finished_in_processes.store.events(kind="task")}
    assert len({worker.split(":")[1] for worker in workers}) >= 2


def test_the_report_has_its_figures(finished_in_threads: Any) -> None:
    report = finished_in_threads.result.report
    text = report.read_text()
    assert "inversion" in text
    figures = sorted(path.name for path in report.parent.rglob("*.png"))
    assert len(figures) >= 4
    for name in figures:
        assert name in text


def test_calibration_labels_are_never_trained_on(finished_in_threads: Any) -> None:
    store = finished_in_threads.store
    held_out = {label.key for label in store.labels(role="calibration")}
    trained = {label.key for label in store.labels(role="train")}
    assert held_out and not held_out & trained
    for model in store.models():
        seen = set(store.training_set(model.training_set))
        assert seen and seen <= trained


def check_audits(store: Store, low: float) -> int:
    """Check what must hold for every audit; return how many there are."""
    audits = store.candidates(state="labelled", kind="audit")
    for audit in audits:
        (label,) = store.labels_of_structure(audit.key)
        assert label.role == "calibration"
        assert audit.uncertainty < low
        prediction = store.prediction(audit)
        assert prediction["forces"].shape == (4, 3) and prediction["force_spread"].shape == (4,)
    return len(audits)


def test_audits_are_frames_that_the_committee_knew(finished_in_threads: Any) -> None:
    # how many such frames a run meets is chance; the next test makes sure that there are some
    check_audits(finished_in_threads.store, finished_in_threads.campaign.acquisition.low)


def test_audit_frames_calibrate(run: Any, tmp_path: Path, tiny_campaign: Any) -> None:
    # every frame counts as known, so only audits are labelled
    campaign = tiny_campaign(
        acquisition={"audit_share": 0.9, "low": 1e3, "high": 1e4},
        model={"first_epochs": 5},
        exploration={"walkers": 1, "steps": 30, "band_steps": 5},
        stopping={"max_generations": 1},
    )
    run(campaign, tmp_path)
    with Store.open(tmp_path, create=False) as store:
        assert check_audits(store, campaign.acquisition.low) > 0
        assert not store.candidates(kind="uncertain")


def test_members_differ_in_weights_and_in_what_they_saw(finished_in_threads: Any) -> None:
    store, directory = finished_in_threads.store, finished_in_threads.directory
    for generation in store.generations():
        first, second = (store.model(key) for key in generation.models)
        assert first.seed != second.seed
        assert first.training_set != second.training_set
        networks = [load(directory / model.path) for model in (first, second)]
        weights = [
            np.concatenate([p.detach().numpy().ravel() for p in network.parameters()])
            for network in networks
        ]
        assert not np.allclose(*weights)


def test_models_descend_from_the_generation_before(finished_in_threads: Any) -> None:
    store = finished_in_threads.store
    by_generation = {
        generation.number: set(generation.models) for generation in store.generations()
    }
    assert all(not store.model(key).parents for key in by_generation[1])
    for number in (2, 3):
        for key in by_generation[number]:
            model = store.model(key)
            if model.parents:  # a member that failed begins anew
                assert set(model.parents) <= by_generation[number - 1]
            metadata = load(finished_in_threads.directory / model.path).metadata
            assert metadata["training_set"] == model.training_set
            assert metadata["generation"] == number and metadata["seed"] == model.seed
    lineage = store.lineage(min(by_generation[3]))
    assert lineage


def test_training_sets_grow_and_error_bars_are_measured(finished_in_threads: Any) -> None:
    generations = finished_in_threads.store.generations()
    numbers = [generation.num_labels for generation in generations]
    assert numbers == sorted(numbers) and numbers[-1] > numbers[0]
    last = generations[-1]
    assert last.num_calibration > 0 and last.scale > 0
    assert 0.0 <= last.coverage <= 1.0
    assert {"force_rmse", "energy_rmse"} <= set(last.errors)


def test_every_flagged_frame_was_uncertain(finished_in_threads: Any) -> None:
    acquisition = finished_in_threads.campaign.acquisition
    uncertain = finished_in_threads.store.candidates(kind="uncertain")
    assert uncertain
    assert all(candidate.uncertainty >= acquisition.low for candidate in uncertain)


def test_the_same_command_after_the_end_changes_nothing(
    run: Any, tmp_path: Path, tiny_campaign: Any
) -> None:
    campaign = tiny_campaign(
        model={"first_epochs": 5, "epochs": 2},
        exploration={"walkers": 0, "band_steps": 5, "num_rattled": 1},
        stopping={"max_labels": 12},
    )
    first, _ = run(campaign, tmp_path)
    before = sorted((path.name, path.stat().st_mtime_ns) for path in tmp_path.glob("labels/*"))
    again, _ = run(campaign, tmp_path)
    assert (again.barriers, again.num_labels) == (first.barriers, first.num_labels)
    after = sorted((path.name, path.stat().st_mtime_ns) for path in tmp_path.glob("labels/*"))
    assert after == before

    other = tiny_campaign(seed=1)
    with pytest.raises(ConfigError, match="other settings; choose another directory"):
        run(other, tmp_path)
    with Store.open(tmp_path, create=False) as store:
        assert store.campaign().seed == 0 and store.campaign().state == "finished"
    # a larger budget is no other campaign
    longer = campaign.model_copy(
        update={"stopping": campaign.stopping.model_copy(update={"max_generations": 3})}
    )
    assert run(longer, tmp_path)[0].num_labels >= first.num_labels


def test_a_budget_below_the_seeds(run: Any, tmp_path: Path, tiny_campaign: Any) -> None:
    campaign = tiny_campaign(
        model={"first_epochs": 5},
        exploration={"walkers": 1, "steps": 5},
        stopping={"max_labels": 3},
    )
    result, _ = run(campaign, tmp_path)
    assert result.reason.startswith("label budget spent")
    assert "inversion" in result.barriers
    assert result.report is not None and result.report.exists()
    with Store.open(tmp_path, create=False) as store:
        assert len(store.labels(state=None)) == result.num_labels
        assert store.campaign().state == "finished"


def test_two_paths_from_one_reactant(run: Any, tmp_path: Path, tiny_campaign: Any) -> None:
    initial, final = (Structure.from_atoms(atoms) for atoms in ammonia_inversion())
    turned = ammonia_inversion()[1]
    turned.rotate(120.0, "z", center="COM")
    reactions = [
        {"name": "straight", "initial": initial, "final": final, "num_images": 5},
        {
            "name": "turned",
            "initial": initial,
            "final": Structure.from_atoms(turned),
            "num_images": 5,
        },
        {"name": "back", "initial": final, "final": initial, "num_images": 5},
    ]
    campaign = tiny_campaign(
        reactions=reactions,
        model={"first_epochs": 5},
        exploration={"walkers": 1, "steps": 5, "band_steps": 5, "num_rattled": 2},
        stopping={"max_generations": 1},
    )
    result, _ = run(campaign, tmp_path)
    assert set(result.barriers) == {"straight", "turned", "back"}


def test_end_states_that_are_one_state(run: Any, tmp_path: Path, tiny_campaign: Any) -> None:
    initial, _ = ammonia_inversion()
    moved = initial.copy()
    moved.rotate(40.0, "x")
    states = [Structure.from_atoms(atoms) for atoms in (initial, moved)]
    reactions = [{"name": "nothing", "initial": states[0], "final": states[1]}]
    with pytest.raises(StructureError, match="relax to the same structure"):
        run(tiny_campaign(reactions=reactions), tmp_path)


def test_one_run_a_directory(tmp_path: Path, tiny_campaign: Any, run: Any) -> None:
    with (tmp_path / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another process is running the campaign"):
            run(tiny_campaign(), tmp_path)


def fake_ammonia(tiny_campaign: Any, fail_every: int) -> Campaign:
    return tiny_campaign(
        labeller={"name": "fake", "options": {"fail_every": fail_every}},
        model={"first_epochs": 5, "epochs": 3},
        exploration={"walkers": 1, "steps": 10, "band_steps": 5, "relax_steps": 0},
    )


def test_failed_labels_do_not_stop_a_campaign(run: Any, tmp_path: Path, tiny_campaign: Any) -> None:
    ends = [structure_key(atoms) for atoms in ammonia_inversion()]
    # which structures fail hangs on their keys: the two end states must not
    fail_every = next(n for n in (3, 4, 5, 7) if all(int(key[:8], 16) % n for key in ends))
    result, _ = run(fake_ammonia(tiny_campaign, fail_every), tmp_path)
    with Store.open(tmp_path, create=False) as store:
        failed = store.labels(state="failed")
        assert failed and len(store.labels()) > len(failed)
        assert {label.failure_kind for label in failed} == {"convergence"}
        assert len(store.candidates(state="failed")) == len(failed)
        assert len(store.labels(state=None)) == result.num_labels


def test_an_end_state_without_a_label(run: Any, tmp_path: Path, tiny_campaign: Any) -> None:
    with pytest.raises(LabellerError, match=r"the labeller fails on the (initial|final) state"):
        run(fake_ammonia(tiny_campaign, 1), tmp_path)
    with Store.open(tmp_path, create=False) as store:
        assert store.campaign().state == "failed"


def test_a_run_that_is_interrupted_says_so_in_the_store(
    run: Any, tmp_path: Path, tiny_campaign: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tace_al.campaign.loop.Generations.start", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_campaign(), tmp_path)
    with Store.open(tmp_path, create=False) as store:
        assert store.campaign().state == "stopped"
        assert store.events(kind="session")
