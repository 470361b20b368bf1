"""A campaign whose labeller failed for some frames, and how it gets their labels after all."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
