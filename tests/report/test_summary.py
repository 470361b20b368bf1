from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from tace_al.report.summary import as_utc, barrier, read_summary, seconds_since_epoch
from tace_al.store.store import Store


def test_everything_is_read_from_the_store(recorded_campaign: Path) -> None:
    with Store.open(recorded_campaign, create=False) as store:
        summary = read_summary(store)
    assert (summary.name, summary.state, summary.seed) == ("water", "finished", 4)
    assert summary.labels == {"train": 5, "calibration": 1} and summary.num_labels == 6
    assert summary.label_kinds == {"seed": 4, "uncertain": 2}
    assert summary.failures == (("convergence", "no convergence"),)
    assert summary.references == {"stretch": 0.5}
    assert [item.num_labels for item in summary.generations] == [3, 5]
    assert summary.barriers["stretch"].barrier == pytest.approx(0.51)
    assert summary.generations[1].error == pytest.approx([0.12, 0.5])
    assert [task.ended - task.started for task in summary.tasks] == [3.0, 3.0]
    assert summary.created.tzinfo is not None


def test_a_barrier_with_gaps_is_still_a_barrier() -> None:
    found = barrier({"barrier": 1, "error_bar": None, "saddle_label": float("nan"), "band": None})
    assert found.barrier == 1.0 and found.error_bar == 0.0
    assert found.saddle_label is None and found.num_labels is None
    assert not found.energies.size and not found.converged


def test_times_without_a_zone_are_utc() -> None:
    plain = datetime(2026, 1, 1, 12)
    there = datetime(2026, 1, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    assert as_utc(plain) == as_utc(there) == datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert seconds_since_epoch(plain) == seconds_since_epoch(
        np.float64(plain.replace(tzinfo=UTC).timestamp())
    )
