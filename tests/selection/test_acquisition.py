import numpy as np
import pytest

from tace_al.selection.acquisition import (
    Band,
    Candidate,
    channel_quotas,
    frame_uncertainty,
    is_audit,
    select,
)
from tace_al.selection.calibration import PRIOR_SCALE, fit_calibration


def candidates(channel, points, *, uncertainty=1.0, priority=0):
    return [
        Candidate(
            key=f"{channel}{priority}-{index}",
            channel=channel,
            uncertainty=uncertainty,
            descriptor=np.asarray(point, dtype=float),
            priority=priority,
        )
        for index, point in enumerate(points)
    ]


def test_band_has_two_sides_and_a_nan_is_broken():
    band = Band(low=0.1, high=2.0)
    verdicts = [band.classify(value) for value in (0.0, 0.1, 0.11, 1.99, 2.0, np.inf, np.nan)]
    assert verdicts == ["known", "known", "uncertain", "uncertain", "broken", "broken", "broken"]
    with pytest.raises(ValueError, match="low < high"):
        Band(low=2.0, high=0.1)


def test_frame_uncertainty_is_the_worst_free_atom():
    calibration = fit_calibration([], [])
    spread = np.array([0.5, 0.1, 0.2])
    assert frame_uncertainty(spread, calibration) == pytest.approx(0.5 * PRIOR_SCALE)
    fixed = np.array([True, False, False])
    free = frame_uncertainty(spread, calibration, fixed=fixed)
    assert free == pytest.approx(0.2 * PRIOR_SCALE)
    assert np.isnan(frame_uncertainty(np.array([0.1, np.nan]), calibration))


def test_audit_share_is_kept_and_a_frame_always_draws_the_same_lot():
    drawn = [key for key in range(4000) if is_audit(f"frame{key}", share=0.1, seed=7)]
    assert len(drawn) == pytest.approx(400, abs=60)  # three standard deviations
    assert drawn == [key for key in range(4000) if is_audit(f"frame{key}", share=0.1, seed=7)]
    assert drawn != [key for key in range(4000) if is_audit(f"frame{key}", share=0.1, seed=8)]
    assert not any(is_audit(f"frame{key}", share=0.0, seed=7) for key in range(100))


def test_quotas_follow_shares_and_spill_over():
    available = {"a": 100, "b": 100, "c": 2}
    assert channel_quotas(12, available) == {"a": 5, "b": 5, "c": 2}
    assert channel_quotas(9, available, shares={"a": 6.0}) == {"a": 7, "b": 1, "c": 1}
    assert sum(channel_quotas(1000, available).values()) == 202
    with pytest.raises(ValueError, match="positive"):
        channel_quotas(1, {"a": 1}, shares={"a": 0.0})


def test_a_hot_channel_does_not_starve_the_other():
    rng = np.random.default_rng(0)
    hot = candidates("hot", rng.normal(size=(50, 3)), uncertainty=2.0)
    cold = candidates("cold", rng.normal(size=(5, 3)), uncertainty=0.2)
    chosen = select([*hot, *cold], 8, covered={}).chosen
    assert sum(key.startswith("cold") for key in chosen) == 4
    assert len(chosen) == len(set(chosen)) == 8


def test_urgent_frames_come_first_and_are_never_duplicates():
    rng = np.random.default_rng(1)
    points = rng.normal(size=(10, 3))
    usual = candidates("a", points, uncertainty=2.0)
    audit = candidates("a", points[:2], uncertainty=0.01, priority=1)
    saddle = candidates("a", points[:1], uncertainty=0.01, priority=2)
    chosen = select([*usual, *audit, *saddle], 6, covered={"a": points[:2]})
    assert chosen.chosen[:3] == ("a2-0", "a1-0", "a1-1")
    assert len(chosen.chosen) == 6
    assert set(chosen.duplicates) == {"a0-0", "a0-1"}
    assert select([*usual, *audit, *saddle], 2, covered={}).chosen == ("a2-0", "a1-0")


def test_uncertain_frames_beat_known_ones_at_equal_novelty():
    points = [[0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [-1.0, 0.0]]
    frames = candidates("a", points, uncertainty=0.2)
    frames[2] = candidates("a", points, uncertainty=1.5)[2]
    assert select(frames, 1, covered={"a": np.zeros((1, 2))}).chosen == ("a0-2",)


def test_nothing_to_choose_from_or_nothing_to_spend():
    assert select([], 5, covered={}).chosen == ()
    assert select(candidates("a", [[0.0], [1.0]]), 0, covered={}).chosen == ()
