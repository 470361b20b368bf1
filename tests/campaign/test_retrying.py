"""A campaign whose labeller failed for some frames, and how it gets their labels after all."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tace_al.core.errors import LabellerError, TaceError
from tace_al.data.frames import structure_key
from tace_al.store.store import Store
from tace_al.workflows.reactions import ammonia_inversion

pytestmark = [pytest.mark.campaign, pytest.mark.slow]


def test_failed_labels_come_with_the_next_run(
    run: Any, tmp_path: Path, tiny_campaign: Any, tace_al: Callable[..., Any]
) -> None:
    """Every failure has a bundle; after `retry` the same campaign labels them and goes on."""
    ends = [structure_key(atoms) for atoms in ammonia_inversion()]
    # which structures fail hangs on their keys: the two end states must not
    fail_every = next(n for n in (3, 4, 5, 7) if all(int(key[:8], 16) % n for key in ends))
    campaign = tiny_campaign(
        labeller={"name": "fake", "options": {"fail_every": fail_every}},
        model={"first_epochs": 5, "epochs": 3},
        exploration={"walkers": 1, "steps": 10, "band_steps": 5, "relax_steps": 0},
    )
    run(campaign, tmp_path)
    rows = json.loads(tace_al("failures", tmp_path, "--json").out)
    assert rows and all((Path(row["bundle"]) / "rerun.sh").is_file() for row in rows)
    told = json.loads((Path(rows[0]["bundle"]) / "labeller.json").read_text())
    assert told["options"] == {"fail_every": fail_every}

    outcome = tace_al("retry", tmp_path, "--labeller-option", "fail_every=0")
    assert outcome.code == 0 and f"{len(rows)} structures wait" in outcome.out
    longer = campaign.stopping.model_copy(update={"max_generations": 3, "max_labels": 90})
    run(campaign.model_copy(update={"stopping": longer}), tmp_path)
    with Store.open(tmp_path, create=False) as store:
        labelled = {record.structure for record in store.labels()}
        assert {row["structure"] for row in rows} <= labelled
        again = [store.candidate(row["structure"]) for row in rows]
        assert {candidate.state for candidate in again} == {"labelled"}


@pytest.mark.parametrize("kind", ["convergence", "crash"])
def test_a_start_state_that_failed_is_relaxed_again(
    run: Any, tmp_path: Path, tiny_campaign: Any, tace_al: Callable[..., Any], kind: str
) -> None:
    """It ends the campaign, is listed like any failure, and its retry lets the campaign begin."""
    campaign = tiny_campaign(
        labeller={"name": "fake", "options": {"fail_every": 1, "fail_kind": kind}},
        model={"first_epochs": 5, "epochs": 3},
        exploration={"walkers": 1, "steps": 10, "band_steps": 5, "relax_steps": 2},
        stopping={"max_labels": 20, "max_generations": 1},
    )
    with pytest.raises(LabellerError, match="tace-al failures"):
        run(campaign, tmp_path)
    rows = json.loads(tace_al("failures", tmp_path, "--json").out)
    assert rows and {row["kind"] for row in rows} == {kind}
    assert all((Path(row["bundle"]) / "rerun.sh").is_file() for row in rows)
    if kind == "crash":
        return  # any next run tries a crash again by itself

    with pytest.raises(LabellerError, match="tace-al failures"):
        run(campaign, tmp_path)  # the last word until somebody asks for a retry
    outcome = tace_al("retry", tmp_path, "--labeller-option", "fail_every=0")
    assert outcome.code == 0 and f"{len(rows)} structures wait" in outcome.out
    run(campaign, tmp_path)
    with Store.open(tmp_path, create=False) as store:
        assert {row["structure"] for row in rows} <= {one.structure for one in store.labels()}


def test_a_label_that_takes_too_long_is_given_up(
    run: Any, tmp_path: Path, tiny_campaign: Any
) -> None:
    """A calculator that hangs holds up no campaign; its limit is no part of what is computed."""
    slow = {"name": "fake", "options": {"delay_s": 2.0}, "max_seconds": 0.2}
    campaign = tiny_campaign(labeller=slow, exploration={"relax_steps": 0})
    with pytest.raises(TaceError, match="ran longer than its limit"):
        run(campaign, tmp_path)
    patient = tiny_campaign(labeller={**slow, "max_seconds": 60}, exploration={"relax_steps": 0})
    assert patient.content_key == campaign.content_key
